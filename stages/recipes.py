"""Recipes: named settings for a data set, listed in recipes.yaml. The command line takes their names (`--recipe`)."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_suffix(".yaml")


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
    """Every recipe by name. Names that begin with a dot are only shared settings."""
    recipes: dict[str, Recipe] = {}
    for name, entry in sorted(_entries().items()):
        if not name.startswith("."):
            scenes = partial(_draw_scenes, entry["scenes"]) if "scenes" in entry else None
            recipes[name] = Recipe(entry["summary"], _with_tuples(entry.get("settings", {})), scenes)
    return recipes


def faithful_settings(of_features: bool) -> dict[str, Any]:
    """What the released code does otherwise than the defaults, and with features of videos."""
    shared = [".faithful", *([".faithful_video"] if of_features else [])]
    return {key: value for name in shared for key, value in _with_tuples(_entries()[name]).items()}


@cache
def _entries() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(FILE.read_text("utf-8"))


def _with_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


def _draw_scenes(settings: Mapping[str, Any], folder: Path) -> None:
    from pipeline.sources.scenes.corpus import Settings, write_corpus

    write_corpus(folder, Settings(**settings))
