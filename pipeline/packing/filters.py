"""Which translated pairs are fit for training: the rules' thresholds, of the run that translated or of a YAML file.

    default: {meaning: 0.4, copied: 0.9, repeated: off}
    cs: {meaning: 0.8}

A rule that the file names, for the pair's language or by default, is judged anew from the stored scores; of any other
rule the stored flag decides. A tag with a region takes its language's thresholds first: `pt-BR` those of `pt`.
"""

import dataclasses
import difflib
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from pipeline.errors import UsageError
from pipeline.quality.rules import RULES, fired
from pipeline.translation.tags import check_language
from pipeline.yaml_file import read_yaml

DEFAULT, OFF, ALWAYS = "default", "off", "empty"
# What a threshold may be, by score; those not named here are shares, from 0 to 1.
BOUNDS = {"length_ratio": (0.0, math.inf), "meaning": (-1.0, 1.0)}
OPTION = "--filters"


@dataclasses.dataclass(frozen=True)
class Filters:
    """Thresholds by language tag or `default`, then by rule; None switches a rule off."""

    thresholds: Mapping[str, Mapping[str, float | None]] = dataclasses.field(default_factory=dict)

    def settings(self) -> dict[str, dict[str, float | None]]:
        return {language: dict(rules) for language, rules in self.thresholds.items()}

    def of(self, language: str) -> dict[str, float | None]:
        """The thresholds that the file names for a language, as the float32 that scores are stored in: a score equal
        to its threshold passes."""
        parts = language.split("-")
        tags = ["-".join(parts[:number]) for number in range(1, len(parts) + 1)]
        named: dict[str, float | None] = {}
        for tag in (DEFAULT, *tags):
            named.update(self.thresholds.get(tag, {}))
        return {rule: None if value is None else float(np.float32(value)) for rule, value in named.items()}

    def against(self, pair: Mapping[str, Any]) -> list[str]:
        """The rules that a row of `translations` falls to, sorted; [] for a pair that is kept."""
        named = self.of(pair["target_language"])
        stored = {flag for flag in pair["flags"] if flag in RULES and flag not in named}
        return sorted(stored | set(fired(pair["scores"], named)))

    def masks(self, pairs: pa.Table) -> dict[str, np.ndarray]:
        """By rule, which rows of a `translations` shard fall to it: what `against` says, for a whole shard at once."""
        flags = pairs["flags"].combine_chunks()
        owners, names = np.asarray(pc.list_parent_indices(flags)), pc.list_flatten(flags)
        falls = {rule: np.zeros(pairs.num_rows, bool) for rule in RULES}
        for rule, mask in falls.items():
            mask[owners[np.asarray(pc.equal(names, rule), bool)]] = True
        for language in pc.unique(pairs["target_language"]).to_pylist():
            here = np.asarray(pc.equal(pairs["target_language"], language), bool)
            for rule, threshold in self.of(language).items():
                score, side, *_ = RULES[rule]
                values = pc.struct_field(pairs["scores"], score).to_numpy()
                anew = np.zeros(len(values), bool) if threshold is None else _beyond(values, side, threshold)
                falls[rule] = np.where(here, anew, falls[rule])
        return falls


def _beyond(values: np.ndarray, side: str, threshold: float) -> np.ndarray:
    """Where a score is under its least or over its greatest value; nulls, which are NaN here, never are."""
    return values < threshold if side == "min" else values > threshold


def read_filters(path: Path | None) -> Filters:
    """The filters in a YAML file; without one, the flags of the rows decide. Raises UsageError naming what is wrong."""
    if path is None:
        return Filters()
    # Every scalar stays text: by YAML's rules `no`, the tag of Norwegian, would be false.
    loaded = read_yaml(path, OPTION, "thresholds, such as `default: {meaning: 0.4}`", yaml.BaseLoader)
    thresholds: dict[str, dict[str, float | None]] = {}
    for tag, rules in loaded.items():
        language = _language(path, tag)
        if language in thresholds:
            raise UsageError(f"{OPTION}: {path}: {language} comes twice (as {tag}, too): put both into one line")
        if not isinstance(rules, dict) or not rules:
            raise UsageError(f"{OPTION}: {path}: {tag}: got {rules!r}, wanted rules, such as {{meaning: 0.4}}")
        thresholds[language] = {_rule(path, tag, rule): _value(path, tag, rule, rules[rule]) for rule in rules}
    return Filters(thresholds)


def _language(path: Path, tag: str) -> str:
    if tag == DEFAULT or difflib.get_close_matches(tag, [DEFAULT], 1, 0.75) == [DEFAULT]:
        if tag != DEFAULT:
            raise UsageError(f"{OPTION}: {path}: got {tag!r}, which is no language tag: did you mean {DEFAULT}?")
        return DEFAULT
    return check_language(tag, f"{OPTION}: {path}")


def _rule(path: Path, tag: str, rule: str) -> str:
    if rule == ALWAYS:
        raise UsageError(
            f"{OPTION}: {path}: {tag}: the rule {ALWAYS} is always on, and has no threshold: take it out of the file"
        )
    if rule not in RULES:
        hint = _hint(rule, [name for name in RULES if name != ALWAYS])
        raise UsageError(f"{OPTION}: {path}: {tag}: got {rule!r}, which is no rule: {hint}")
    return rule


def _value(path: Path, tag: str, rule: str, text: Any) -> float | None:
    if text == OFF:
        return None
    low, high = BOUNDS.get(RULES[rule][0], (0.0, 1.0))
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not low <= value <= high or math.isinf(value):
        span = f"a number from {low:g} to {high:g}" if math.isfinite(high) else f"a number of at least {low:g}"
        near = isinstance(text, str) and difflib.get_close_matches(text.lower(), [OFF, "false"], 1, 0.6)
        hint = f": did you mean {OFF}?" if near else ""
        raise UsageError(f"{OPTION}: {path}: {tag}: {rule} is {text!r}, wanted {span}, or {OFF}{hint}")
    return value


def _hint(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else f"the rules are {', '.join(known)}"
