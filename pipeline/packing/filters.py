"""Filters of translated pairs and descriptions: thresholds from the run that translated, or from a YAML file.

    default: {meaning: 0.4, copied: 0.9, repeated: off}
    cs: {meaning: 0.8}
    descriptions: {loop: off}

A rule that the file names, for the pair's language or by default, is judged again from the stored scores. For every
other rule the stored flag decides. A tag with a region starts from its language: `pt-BR` from `pt`.
Descriptions are judged by their flags only: `off` packs those of a flag nevertheless.
"""

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.captioning.cleaning import DROPPED
from pipeline.errors import UsageError
from pipeline.quality.rules import RULES, fired
from pipeline.translation.tags import check_language
from pipeline.yaml_file import read_yaml

DEFAULT, DESCRIPTIONS, OFF, ALWAYS_ON = "default", "descriptions", "off", "empty"
OPTION = "--filters"


@dataclasses.dataclass(frozen=True)
class Filters:
    """Thresholds by language tag or `default`, then by rule; None switches a rule off."""

    thresholds: Mapping[str, Mapping[str, float | None]] = dataclasses.field(default_factory=dict)

    def for_language(self, language: str) -> dict[str, float | None]:
        """The thresholds that apply to a language, as float32 like the stored scores: an equal score passes."""
        parts = language.split("-")
        tags = ["-".join(parts[:count]) for count in range(1, len(parts) + 1)]
        merged: dict[str, float | None] = {}
        for tag in (DEFAULT, *tags):
            merged.update(self.thresholds.get(tag, {}))
        return {rule: None if value is None else float(np.float32(value)) for rule, value in merged.items()}

    def rules_against(self, pair: Mapping[str, Any]) -> list[str]:
        """The rules that drop a row of `translations`, sorted; [] for a pair that is kept."""
        thresholds = self.for_language(pair["target_language"])
        stored = {flag for flag in pair["flags"] if flag in RULES and flag not in thresholds}
        return sorted(stored | set(fired(pair["scores"], thresholds)))

    def flags_against(self, description: Mapping[str, Any]) -> list[str]:
        """The flags that drop a row of `descriptions`, sorted; [] for one that is kept."""
        return sorted(DROPPED.intersection(description["flags"]) - self.thresholds.get(DESCRIPTIONS, {}).keys())


def read_filters(path: Path | None) -> Filters:
    """Read filters from a YAML file; without a file, the flags of the rows decide.

    Raises:
        UsageError: The file cannot be read, or names a language, rule or threshold that does not exist.
    """
    if path is None:
        return Filters()
    # Every scalar stays text: by YAML's rules `no`, the tag of Norwegian, would be false.
    loaded = read_yaml(path, OPTION, "thresholds, such as `default: {meaning: 0.4}`", yaml.BaseLoader)
    thresholds: dict[str, dict[str, float | None]] = {}
    for tag, rules in loaded.items():
        language = tag if tag in (DEFAULT, DESCRIPTIONS) else check_language(tag, f"{OPTION}: {path}")
        if not isinstance(rules, dict) or not rules:
            raise UsageError(f"{OPTION}: {path}: {tag} is {rules!r}, expected rules, such as {{meaning: 0.4}}")
        thresholds[language] = {rule: _threshold(path, tag, rule, text) for rule, text in rules.items()}
    return Filters(thresholds)


def _threshold(path: Path, tag: str, rule: str, text: Any) -> float | None:
    place = f"{path}: {tag}"
    known = sorted(DROPPED) if tag == DESCRIPTIONS else [name for name in RULES if name != ALWAYS_ON]
    if rule not in known:
        raise UsageError(f"{OPTION}: {place}: {rule!r} has no threshold, expected one of {', '.join(known)}")
    if text == OFF:
        return None
    with contextlib.suppress(TypeError, ValueError):
        if tag != DESCRIPTIONS and math.isfinite(value := float(text)):
            return value
    expected = OFF if tag == DESCRIPTIONS else f"a number or {OFF}"
    raise UsageError(f"{OPTION}: {place}: {rule} is {text!r}, expected {expected}")
