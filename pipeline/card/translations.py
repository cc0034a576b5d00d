"""What a card says of translations, a language at a time: how good they are, what fell to which rule, who made them.

    table `translations` → surveyed, shard by shard → sections, and the figure of pipeline.card.quality_chart

Dropped is what a rule flagged under the thresholds of the run: `pack` and training may read others. Any other flag is a
note of how the text was made, and drops nothing.
"""

import collections
import dataclasses
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.card.markdown import grid, matrix, plain, public, some
from pipeline.card.texts import LENGTHS
from pipeline.corpus.counting import Counts, covered, lengths, values
from pipeline.corpus.table import Table
from pipeline.translation.checkpoints import noncommercial

EXAMPLES, EXAMPLE_CHARACTERS = 10, 200
STEPS = 10_000  # scores are stored with four decimals: every quality is told apart, whatever their number
RULES = {
    "empty": "there is no text",
    "wrong_language": "`language`, the confidence that it is in the target language, is below its threshold",
    "wrong_script": "`script`, the share of letters in a script of the language, is below its threshold",
    "too_short": "`length_ratio` (1 is usual for the pair of languages) is below its threshold",
    "too_long": "`length_ratio` is above its threshold",
    "copied": "`copied`, the share that stands in the source, is above its threshold",
    "repeated": "`repetition`, the share of words that only repeat a phrase before them, is above its threshold",
    "numbers": "`numbers`, the share of numbers that both sides have, is below its threshold",
    "cut_off": "`complete` is below its threshold: the text breaks off",
    "boilerplate": "`boilerplate`, the share that is chatter, is above its threshold",
    "meaning": "`meaning`, the nearness of the two sentence vectors, is below its threshold",
    "round_trip": "`round_trip`, chrF of the source and the text translated back, is below its threshold",
    "refusal": "the description that was translated was declined by its model",
    "low_quality": "`quality` is below its threshold",
}
NOTES = {
    "preamble_removed": "an opening such as “Here is the translation:”, or a closing remark",
    "quotes_removed": "quotation marks around the whole",
    "echo_removed": "the source, repeated before or after its translation",
}


@dataclasses.dataclass
class Survey:
    """The pairs of one target language, in memory that does not grow with their number."""

    pairs: int = 0
    kept: int = 0  # no rule flagged them
    rules: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    notes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # flags that are no rules
    steps: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((2, STEPS + 1), np.int64))
    best: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    worst: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def add(self, rows: pa.Table) -> None:
        """Count rows of `translations`, all of this language."""
        flags = rows["flags"].combine_chunks()
        names = pc.list_flatten(flags)
        by_rule = pc.is_in(names, pa.array(RULES))
        kept = np.ones(rows.num_rows, bool)
        kept[np.asarray(pc.list_parent_indices(flags).filter(by_rule))] = False
        self.pairs += rows.num_rows
        self.kept += int(kept.sum())
        self.rules.update(names.filter(by_rule).to_pylist())
        self.notes.update(names.filter(pc.invert(by_rule)).to_pylist())
        rows = rows.append_column("kept", pa.array(kept))
        rows = rows.append_column("quality", pc.struct_field(rows["scores"], "quality"))
        rows = rows.filter(pc.is_finite(rows["quality"]))
        step = np.clip(np.rint(rows["quality"].to_numpy().astype(np.float64) * STEPS).astype(np.int64), 0, STEPS)
        kept = rows["kept"].to_numpy()
        for index, chosen in enumerate((~kept, kept)):
            self.steps[index] += np.bincount(step[chosen], minlength=STEPS + 1)
        self.best = _distinct(sorted([*self.best, *_first(rows, "descending")], key=_from_best))
        self.worst = _distinct(sorted([*self.worst, *_first(rows, "ascending")], key=_from_worst))

    @property
    def measured(self) -> int:
        """Pairs that have a `quality`."""
        return int(self.steps.sum())

    @property
    def mean(self) -> float:
        return float((self.steps.sum(0) * np.arange(STEPS + 1)).sum() / max(1, self.measured) / STEPS)

    @property
    def median(self) -> float:
        """Of two in the middle, the lower."""
        return int(np.searchsorted(2 * np.cumsum(self.steps.sum(0)), max(1, self.measured))) / STEPS

    def histogram(self, bins: int) -> tuple[list[int], list[int]]:
        """(kept, dropped) pairs by quality, in bins of the same width over [0, 1]; the last one holds 1 too."""
        width = STEPS // bins
        whole = self.steps[:, :STEPS].reshape(2, bins, width).sum(2)
        whole[:, -1] += self.steps[:, STEPS]
        return whole[1].tolist(), whole[0].tolist()


def _first(rows: pa.Table, order: str) -> list[dict[str, Any]]:
    """The first EXAMPLES rows by quality that are distinct pairs of texts."""
    keys = [("quality", order), ("caption_id", "ascending")]
    shown = rows.select(["caption_id", "source_text", "text", "quality", "flags"])
    asked, found = 0, list[dict[str, Any]]()
    while len(found) < EXAMPLES and asked < rows.num_rows:
        asked = min(4 * max(asked, EXAMPLES), rows.num_rows)  # more until enough of them differ
        chosen = pc.select_k_unstable(shown.select(["quality", "caption_id"]), asked, sort_keys=keys)
        found = _distinct(shown.take(chosen).to_pylist())
    return found


def _distinct(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first EXAMPLES rows, less those that say what a row before them says."""
    firsts: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        firsts.setdefault((row["source_text"], row["text"]), row)
    return list(firsts.values())[:EXAMPLES]


def _from_best(row: dict[str, Any]) -> tuple[float, str]:
    return -row["quality"], row["caption_id"]


def _from_worst(row: dict[str, Any]) -> tuple[float, str]:
    return row["quality"], row["caption_id"]


def surveyed(table: Table) -> dict[str, Survey]:
    """A survey by target language, in the order of the tags. Reads every shard once."""
    found: dict[str, Survey] = {}
    for index in range(table.num_shards):
        shard = table.shard(index).select(["caption_id", "target_language", "source_text", "text", "scores", "flags"])
        for language in pc.unique(shard["target_language"]).to_pylist():
            rows = shard.filter(pc.equal(shard["target_language"], language))
            found.setdefault(language, Survey()).add(rows)
    return dict(sorted(found.items()))


def translations_section(table: Table, surveys: Mapping[str, Survey], figure: str) -> list[str]:
    """Blocks of Markdown. `figure` is the name of the histograms' file."""
    if not surveys:
        return ["## Translations", "None could be made: see the failures."]
    settings = table.manifest["settings"]
    thresholds = settings.get("thresholds", {})
    sources = sorted(name for (name,) in values(table, "source_table"))
    pairs = {language: survey.pairs for language, survey in surveys.items()}
    return [
        "## Translations",
        f"Of {some(covered(table), 'item')}, from {' and '.join(sources)}. Every pair has its scores, and nothing "
        f"is deleted: *dropped* is what a rule flagged, and what to do about it is for training to decide. {LENGTHS}",
        _overview(table, surveys),
        f"![How many pairs of each language have which quality, kept and dropped]({figure})",
        *dropped_by_rule(pairs, {language: survey.rules for language, survey in surveys.items()}),
        *_taken_off(pairs, {language: survey.notes for language, survey in surveys.items()}),
        *(["The thresholds:", threshold_grid(thresholds)] if thresholds else []),
        "### Who translated, and how",
        _translators(table, settings),
        *notices(settings.get("translators", {})),
        "### The best and the worst of them",
        "By `quality`, then by `caption_id`.",
        *(block for language, survey in surveys.items() for block in _examples(language, survey)),
    ]


def _overview(table: Table, surveys: Mapping[str, Survey]) -> str:
    origins: dict[str, list[str]] = {}
    for source, target in sorted(values(table, "source_language", "target_language")):
        origins.setdefault(target, []).append(source)
    measures, rows = lengths(table, ["target_language"]), []
    for language, survey in surveys.items():
        shares = [f"{count:,} ({count / survey.pairs:.1%})" for count in (survey.kept, survey.pairs - survey.kept)]
        quality = [f"{survey.mean:.3f}", f"{survey.median:.3f}"] if survey.measured else ["not measured"] * 2
        rows.append([language, ", ".join(origins[language]), survey.pairs, *shares, *quality, *measures[language,]])
    head = ["language", "from", "pairs", "kept", "dropped", "mean quality", "median quality", "words", "characters"]
    return grid(head, rows)


def dropped_by_rule(pairs: Mapping[str, int], fallen: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Blocks of Markdown: how many of a language's `pairs` fell to each rule, and what those rules mean."""
    if not any(count for rules in fallen.values() for count in rules.values()):
        return ["The rules dropped none of them."]
    return [
        "What the rules dropped, and the share of the language's pairs. A pair may fall to several rules.",
        *_by_name(pairs, fallen, RULES),
    ]


def _taken_off(pairs: Mapping[str, int], notes: Mapping[str, Mapping[str, int]]) -> list[str]:
    if not any(notes.values()):
        return []
    return [
        "What was taken off chat answers, and the share of the language's pairs. That drops none of them.",
        *_by_name(pairs, notes, NOTES),
    ]


def _by_name(
    pairs: Mapping[str, int], named: Mapping[str, Mapping[str, int]], meanings: Mapping[str, str]
) -> list[str]:
    """Languages by names, and what the names mean."""
    counts = Counts({(language, name): n for language, names in named.items() for name, n in names.items() if n})
    totals = Counts({(language,): count for language, count in pairs.items() if count})
    found = {name for _, name in counts}
    legend = [f"**{name}**: {meaning}" for name, meaning in meanings.items() if name in found]
    return [matrix(counts, totals, "language"), *([f"{'; '.join(legend)}."] if legend else [])]


def threshold_grid(thresholds: Mapping[str, Mapping[str, float | None]]) -> str:
    """Languages by rules: at which score a rule drops a pair."""
    rules = sorted({rule for own in thresholds.values() for rule in own})
    shown = ([language, *(_threshold(own, rule) for rule in rules)] for language, own in sorted(thresholds.items()))
    return grid(["language", *rules], shown)


def _threshold(own: Mapping[str, float | None], rule: str) -> str:
    value = own.get(rule)
    return f"{value:g}" if value is not None else "off" if rule in own else ""


def _translators(table: Table, settings: Mapping[str, Any]) -> str:
    licenses = {language: made.get("license", "") for language, made in settings.get("translators", {}).items()}
    encoders, back, rows = settings.get("encoders", {}), settings.get("back", {}), []
    for key, count in sorted(values(table, "target_language", "translator", "revision", "decoding").items()):
        language, translator, revision, decoding = key
        license = licenses.get(language) or "not stated"
        encoder = public(encoders.get(language) or "not measured")
        returned = public(back[language]["name"]) if language in back else ""
        rows.append([language, public(translator), public(revision), license, decoding, encoder, returned, count])
    head = ["language", "translator", "revision", "licence", "decoding", "meaning measured by", "translated back by"]
    return grid([*head, "pairs"], rows)


def notices(*translators: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A notice for every model whose licence forbids commercial use. `translators` are by target language, of one or
    several corpora."""
    languages: dict[tuple[str, str], dict[str, None]] = {}
    for language, made in sorted((pair for of in translators for pair in of.items()), key=itemgetter(0)):
        if noncommercial(made.get("license", "")):
            languages.setdefault((made["name"], made["license"]), {})[language] = None
    return [
        f"> [!WARNING]\n> **Not for commercial use.** The translations into {plain(', '.join(into))} were made by "
        f"{plain(public(name))}, whose licence is {plain(license)}: read its terms before you use them or a model that "
        "was trained on them."
        for (name, license), into in languages.items()
    ]


def _examples(language: str, survey: Survey) -> list[str]:
    if not survey.measured:
        return [f"#### {plain(language)}", "Their quality was not measured."]
    blocks = [f"#### {plain(language)}"]
    for title, rows in (("Best", survey.best), ("Worst", survey.worst)):
        shown = ([row["source_text"], _text(row), f"{row['quality']:.3f}", ", ".join(row["flags"])] for row in rows)
        blocks += [f"{title}:", grid(["source", "translation", "quality", "flags"], shown, EXAMPLE_CHARACTERS)]
    return blocks


def _text(row: dict[str, Any]) -> str:
    return row["text"] if row["text"].strip() else "(empty)"
