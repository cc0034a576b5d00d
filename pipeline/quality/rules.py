"""Rules: which scores of a pair are bad. One threshold a rule; a language or an encoder may have its own.

A rule that fires only leaves its name in the row. `--stage pack` drops flagged pairs, or judges pairs by
its own thresholds (`--filters`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import yaml

from pipeline.quality.languages import base


class Rule(NamedTuple):
    """One rule: it fires on a score below its `min` or above its `max` threshold."""

    score: str
    side: Literal["min", "max"]
    threshold: float | None  # the general default; None: off
    meaning: str


_DATA = yaml.safe_load(Path(__file__).with_name("rules.yaml").read_text(encoding="utf-8"))
RULES = {name: Rule(*fields) for name, fields in _DATA["rules"].items()}


def thresholds(language: str, encoder: str | None) -> dict[str, float | None]:
    """The default threshold of each rule for a target language and the encoder that measured its `meaning`."""
    chosen: dict[str, float | None] = {name: rule.threshold for name, rule in RULES.items()}
    by_encoder = _DATA["by_encoder"].get(encoder, {})
    chosen |= _DATA["by_language"].get(base(language), {})
    chosen |= by_encoder.get(base(language), by_encoder.get("other", {}))
    return chosen


def fired(scores: Mapping[str, float | None], thresholds: Mapping[str, float | None]) -> list[str]:
    """Names of the rules that fire, sorted. A score that is absent or null fires none, nor does a null threshold."""
    names = []
    for name, rule in RULES.items():
        score, threshold = scores.get(rule.score), thresholds.get(name)
        if score is None or threshold is None:
            continue
        if score < threshold if rule.side == "min" else score > threshold:
            names.append(name)
    return sorted(names)
