"""Filters of translated pairs: thresholds from the run that translated, or from a YAML file.

    default: {meaning: 0.4, copied: 0.9, repeated: off}
    cs: {meaning: 0.8}

A rule that the file names, for the pair's language or by default, is judged again from the stored scores. For every
other rule the stored flag decides. A tag with a region starts from its language: `pt-BR` from `pt`.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.errors import UsageError
from pipeline.quality.rules import RULES, fired
from pipeline.translation.tags import check_language
from pipeline.yaml_file import read_yaml

DEFAULT, OFF, ALWAYS_ON = "default", "off", "empty"
# What a threshold may be, by score. Scores that are not listed are shares, from 0 to 1.
BOUNDS = {"length_ratio": (0.0, math.inf), "meaning": (-1.0, 1.0)}
OPTION = "--filters"


@dataclasses.dataclass(frozen=True)
class Filters:
    """Thresholds by language tag or `default`, then by rule; None switches a rule off."""

    thresholds: Mapping[str, Mapping[str, float | None]] = dataclasses.field(default_factory=dict)

    def settings(self) -> dict[str, dict[str, float | None]]:
        """The thresholds as they go into a manifest."""
        return {language: dict(rules) for language, rules in self.thresholds.items()}

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
        language = tag if tag == DEFAULT else check_language(tag, f"{OPTION}: {path}")
        if language in thresholds:
            raise UsageError(f"{OPTION}: {path}: {language} comes twice (also as {tag}): put both into one line")
        if not isinstance(rules, dict) or not rules:
            raise UsageError(f"{OPTION}: {path}: {tag} is {rules!r}: give rules, such as {{meaning: 0.4}}")
        thresholds[language] = {rule: _threshold(f"{path}: {tag}", rule, text) for rule, text in rules.items()}
    return Filters(thresholds)


def _threshold(place: str, rule: str, text: Any) -> float | None:
    if rule == ALWAYS_ON:
        raise UsageError(f"{OPTION}: {place}: the rule {rule} is always on and takes no threshold: remove it")
    if rule not in RULES:
        known = [name for name in RULES if name != ALWAYS_ON]
        near = difflib.get_close_matches(rule, known, 1, 0.75)
        hint = f"did you mean {near[0]}?" if near else f"the rules are {', '.join(known)}"
        raise UsageError(f"{OPTION}: {place}: {rule!r} is not a rule: {hint}")
    if text == OFF:
        return None
    low, high = BOUNDS.get(RULES[rule].score, (0.0, 1.0))
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not low <= value <= high or math.isinf(value):
        span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        raise UsageError(f"{OPTION}: {place}: {rule} is {text!r}: give a number {span}, or {OFF}")
    return value
