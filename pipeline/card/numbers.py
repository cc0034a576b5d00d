"""The numbers of a dataset card, counted in one pass over each table.

Split sizes of `training` are counted in `pipeline.packing.manifest.split_sizes`, which verification also uses.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.captioning.cleaning import DROPPED
from pipeline.corpus import counting
from pipeline.corpus.counting import Counts, Tally, columns, flattened, median, total
from pipeline.corpus.table import Table
from pipeline.quality.rules import RULES

EXAMPLES = 5  # best and worst pairs of a language
DIGITS = 4  # decimals of a stored score
BINS, BARS = 20, "·▁▂▃▄▅▆▇█"  # histograms of quality

Numbers = Mapping[str, Mapping[str, Any]]  # what `count_tables` returns


class Examples:
    """The best and the worst distinct pairs of each target language, from `translations` shards."""

    def __init__(self) -> None:
        self.best: dict[str, pa.Table] = {}
        self.worst: dict[str, pa.Table] = {}

    def add(self, shard: pa.Table) -> None:
        """Take in the pairs of a shard that have a quality."""
        pairs = shard.select(["target_language", "source_text", "text"])
        pairs = pairs.append_column("quality", pc.struct_field(shard["scores"], "quality"))
        pairs = pairs.append_column("flags", pc.binary_join(shard["flags"], ", "))
        pairs = pairs.filter(pc.is_finite(pairs["quality"]))
        for language in pc.unique(pairs["target_language"]).to_pylist():
            own = pairs.filter(pc.equal(pairs["target_language"], language))
            for examples, order in ((self.best, "descending"), (self.worst, "ascending")):
                candidates = pa.concat_tables([own, *([examples[language]] if language in examples else [])])
                distinct = candidates.group_by(candidates.column_names, use_threads=False).aggregate([])
                keys = [("quality", order), ("source_text", "ascending"), ("text", "ascending")]
                examples[language] = distinct.take(pc.select_k_unstable(distinct, EXAMPLES, sort_keys=keys))


def count_tables(tables: Mapping[str, Table]) -> dict[str, dict[str, Any]]:
    """Count what a card shows of each table.

    Returns:
        By table, then by name: Counts, with keys as in `_accumulators`, and the other accumulators themselves.
    """
    numbers: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        accumulators = _accumulators(name)
        counting.scan(table, accumulators.values())
        numbers[name] = {key: of.counts if isinstance(of, Tally) else of for key, of in accumulators.items()}
    return numbers


def _accumulators(table: str) -> dict[str, counting.Accumulator]:
    if table == "items":
        return {
            "media": _by("media_type"),
            "splits": _by("split", "media_type"),
            "sources": _by("source"),
            "licenses": _by("license"),
            "widths": _sizes("width"),
            "heights": _sizes("height"),
            "durations": _numbers(["media_type"], lambda items: pc.round(items["duration_s"], 1)),
            "without_media": Tally(lambda items: pa.table({"missing": pc.equal(items["sha256"], "")})),
            "copies": counting.Copies(),
        }
    if table == "captions":
        return {"languages": _by("language", "origin"), **_texts("language", "origin")}
    if table == "descriptions":
        return {
            "languages": _by("language"),
            "views": _by("view"),
            "prompt_tokens": Tally(columns("view", "prompt_tokens")),
            "completion_tokens": Tally(columns("view", "completion_tokens")),
            "flags": Tally(flattened("view", "flags")),
            "dropped": Tally(
                lambda rows: pa.table({"any": [not DROPPED.isdisjoint(f) for f in rows["flags"].to_pylist()]})
            ),
            "captioners": _by("captioner", "revision"),
            "prompts": _by("view", "prompt_id", "decoding"),
            **_texts("view"),
        }
    if table == "translations":
        return {
            "languages": _by("target_language"),
            "source_tables": _by("source_table"),
            "qualities": Tally(_kept_and_quality),
            "flags": Tally(flattened("target_language", "flags")),
            "translators": _by("target_language", "translator", "revision", "decoding"),
            "examples": Examples(),
            **_texts("target_language"),
        }
    return {
        "media": _by("media_type"),
        "licenses": _by("license"),
        "captions": Tally(_caption_kinds),
        "described": Tally(lambda rows: pa.table({"any": pc.greater(pc.list_value_length(rows["descriptions"]), 0)})),
    }


def _by(*names: str) -> Tally:
    return Tally(columns(*names), counting.MAX_DISTINCT)


def _numbers(keys: list[str], number: Callable[[pa.Table], Any]) -> Tally:
    return Tally(lambda shard: shard.select(keys).append_column("number", number(shard)))


def _sizes(side: str) -> Tally:
    """Sizes in pixels. Features and items without media have none."""
    return Tally(lambda items: items.select(["media_type", side]).filter(pc.greater(items[side], 0)))


def _texts(*keys: str) -> dict[str, counting.Accumulator]:
    return {
        "words": _numbers(list(keys), lambda shard: counting.num_words(shard["text"])),
        "characters": _numbers(list(keys), lambda shard: pc.utf8_length(shard["text"])),
        "covered": Tally(lambda shard: pa.table({"items": [pc.count_distinct(shard["item_id"]).as_py()]})),
    }


def _kept_and_quality(shard: pa.Table) -> pa.Table:
    """(target language, whether no rule flagged the pair, quality or null)."""
    is_kept = [RULES.keys().isdisjoint(flags) for flags in shard["flags"].to_pylist()]  # other flags are notes
    quality = pc.round(pc.cast(pc.struct_field(shard["scores"], "quality"), pa.float64()), DIGITS)
    return pa.table({"language": shard["target_language"], "kept": is_kept, "quality": quality})


def _caption_kinds(shard: pa.Table) -> pa.Table:
    """(split, language, origin) of each caption."""
    rows = flattened("split", "captions")(shard)
    fields = {name: pc.struct_field(rows["captions"], name) for name in ("language", "origin")}
    return pa.table({"split": rows["split"], **fields})


def spreads(counts: Counts) -> dict[tuple[Any, ...], str]:
    """Of counts of (key…, number), by key: smallest / median / largest."""
    return {
        key: f"{min(numbers):,} / {median(numbers):,} / {max(numbers):,}"
        for key, numbers in counting.group_numbers(counts).items()
    }


def totals(counts: Counts) -> dict[tuple[Any, ...], Any]:
    """Of counts of (key…, number), by key: the sum."""
    return {key: total(numbers) for key, numbers in counting.group_numbers(counts).items()}


@dataclasses.dataclass
class LanguageQuality:
    """The pairs of one target language.

    Attributes:
        pairs: Number of pairs.
        kept: Number of those that no rule flagged.
        measured: How often each quality occurs; pairs without one are left out.
    """

    pairs: int = 0
    kept: int = 0
    measured: Counter[float] = dataclasses.field(default_factory=Counter)

    def summary(self) -> str:
        """Mean / median of the quality; "" where it was not measured."""
        if not self.measured:
            return ""
        return f"{total(self.measured) / self.measured.total():.3f} / {median(self.measured):.3f}"

    def histogram(self) -> str:
        """A bar for each of BINS equal parts of [0, 1]; "" where the quality was not measured."""
        counts = [0] * BINS
        for quality, count in self.measured.items():
            counts[min(BINS - 1, int(quality * BINS + 1e-9))] += count
        # Rounded up, so that one pair of a million is visible.
        return "".join(BARS[-(-count * (len(BARS) - 1) // max(counts))] for count in counts) if self.measured else ""


def by_language(qualities: Counts) -> dict[str, LanguageQuality]:
    """The pairs of each target language, from counts of (language, kept, quality)."""
    languages: dict[str, LanguageQuality] = {}
    for (language, is_kept, quality), count in sorted(qualities.items(), key=lambda entry: entry[0][0]):
        of = languages.setdefault(language, LanguageQuality())
        of.pairs += count
        of.kept += count * is_kept
        if quality is not None:
            of.measured[quality] += count
    return languages
