"""Recipes: named settings for a data set, one file per data set. The command line takes their names (`--recipe`)."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings that differ from the defaults in `stages.training.settings`.

    Attributes:
        summary: One line for `--help`.
        settings: Values by name.
        make_corpus: Writes the corpus of the recipe into a folder, for a recipe that needs no `--data`.
    """

    summary: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    make_corpus: Callable[[Path], None] | None = None


@cache
def load_recipes() -> dict[str, Recipe]:
    """Every recipe by name: the `RECIPES` of all files of this folder."""
    recipes: dict[str, Recipe] = {}
    for module in pkgutil.iter_modules(__path__):
        recipes |= importlib.import_module(f"{__name__}.{module.name}").RECIPES
    return dict(sorted(recipes.items()))
