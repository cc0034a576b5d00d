"""What there is to train on: samples over the shards of one or more corpora, found in one pass over their columns.

A sample is an item and one English text of it. Its text in another language is drawn when it is read, among the
languages that this English text was translated into.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import Table
from pipeline.errors import EnvironmentTrouble, UsageError

ALL = "all"
HUMAN, MACHINE = "human", "mt"


class Shards:
    """The `training` shards of corpora, one after the other; each is opened, memory-mapped, when it is first read."""

    def __init__(self, corpora: Sequence[Path]):
        self.tables = [Table(Path(corpus), "training") for corpus in corpora]
        self.places = [(table, index) for table in self.tables for index in range(table.num_shards)]
        self._open: dict[int, pa.Table] = {}

    def __len__(self) -> int:
        return len(self.places)

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process, which opens its own."""
        return {**self.__dict__, "_open": {}}

    def shard(self, number: int) -> pa.Table:
        if number not in self._open:
            table, index = self.places[number]
            self._open[number] = table.shard(index)
        return self._open[number]

    def row(self, number: int, row: int) -> dict[str, Any]:
        shard = self.shard(number)
        return {name: shard.column(name)[row].as_py() for name in shard.column_names}

    def name(self, number: int) -> str:
        table, index = self.places[number]
        return str(table.shard_path(index))

    def damaged(self, number: int, item_id: str, reason: object) -> EnvironmentTrouble:
        return EnvironmentTrouble(
            f"{self.name(number)}: {item_id}: got media that cannot be read ({reason}): run --stage verify on the "
            "corpus, then --stage pack again"
        )


def select_views(descriptions: Sequence[dict[str, str]], wanted: Sequence[str]) -> list[str]:
    """Texts of the views, in the order of the table; `wanted` has their names, or "all"."""
    return [row["text"] for row in descriptions if ALL in wanted or row["view"] in wanted]


@dataclasses.dataclass(frozen=True)
class Index:
    """Where the samples lie, 10 bytes each. `texts[i]`: the caption at that place in its row; below zero, the
    description at place −1 − texts[i]."""

    shards: np.ndarray  # [S] int32
    rows: np.ndarray  # [S] int32
    texts: np.ndarray  # [S] int16
    languages: tuple[str, ...]  # that are trained besides the source language
    unmeasured: frozenset[str]  # of them, those without a single pair whose quality was measured
    notes: tuple[str, ...]  # what the user should know

    def __len__(self) -> int:
        return len(self.rows)


def build_index(
    shards: Shards, split: str, languages: Sequence[str], source_language: str, extra_views: Sequence[str]
) -> Index:
    """Samples of a split. `languages`: none given, all that the split has. Raises UsageError as the messages say."""
    parts, found, measured, without, splits = [], set(), set(), 0, dict[str, int]()
    views: set[str] = set()
    for number in range(len(shards)):
        shard = shards.shard(number).select(["split", "captions", "descriptions"]).combine_chunks()
        for name, count in _counts(shard.column("split")).items():
            splits[name] = splits.get(name, 0) + count
        rows = np.flatnonzero(pc.equal(shard.column("split"), split).to_numpy())
        if not len(rows):
            continue
        shard = shard.take(rows)
        captions = _Lists(shard.column("captions"))
        codes = captions.strings("language")
        found |= set(codes.dictionary.to_pylist())
        measured |= _measured(captions, codes)
        taken = [captions.where(_is(codes, [source_language]))]
        described = _Lists(shard.column("descriptions"))
        if extra_views and len(described.values):
            kinds = described.strings("view")
            views |= set(kinds.dictionary.to_pylist())
            wanted = kinds.dictionary.to_pylist() if ALL in extra_views else extra_views
            owners, places = described.where(_is(kinds, wanted))
            taken.append((owners, -1 - places))
        owners, places = (np.concatenate(part) for part in zip(*taken, strict=True))
        order = np.argsort(owners, kind="stable")
        owners, places = owners[order], places[order]
        without += len(rows) - len(np.unique(owners))
        shard_of = np.full(len(owners), number, np.int32)
        parts.append((shard_of, rows[owners].astype(np.int32), places.astype(np.int16)))
    _check(shards, split, splits, source_language, extra_views, views, sum(len(rows) for _, rows, _ in parts))
    chosen = _languages(shards, languages, found - {source_language}, split)
    notes = [f"{without:,} items of {split} have no text in {source_language} and are left out"] if without else []
    unmeasured = frozenset(set(chosen) - measured)
    if unmeasured:
        notes.append(f"the quality of {', '.join(sorted(unmeasured))} was not measured: every pair weighs 1")
    shard_of, row_of, text_of = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Index(shard_of, row_of, text_of, chosen, unmeasured, tuple(notes))


class _Lists:
    """A column of lists of structs: all elements in one array, with the row and the place in it of each."""

    def __init__(self, column: pa.ChunkedArray):
        array = column.chunk(0) if column.num_chunks else pa.array([], column.type)
        self.offsets = array.offsets.to_numpy()
        self.values = array.values[self.offsets[0] : self.offsets[-1]]
        self.offsets = self.offsets - self.offsets[0]

    def strings(self, name: str) -> pa.DictionaryArray:
        return self.values.field(name).dictionary_encode()

    def where(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and place in it of the elements at which `mask` is True."""
        elements = np.flatnonzero(mask)
        owners = np.searchsorted(self.offsets, elements, side="right") - 1
        return owners, elements - self.offsets[owners]


def _is(codes: pa.DictionaryArray, wanted: Sequence[str]) -> np.ndarray:
    allowed = np.array([value in wanted for value in codes.dictionary.to_pylist()], bool)
    return allowed[codes.indices.to_numpy()] if len(allowed) else np.zeros(len(codes), bool)


def _measured(captions: _Lists, codes: pa.DictionaryArray) -> set[str]:
    """Languages in which some translation has a quality."""
    machine = pc.equal(captions.values.field("origin"), MACHINE).to_numpy(zero_copy_only=False)
    quality = captions.values.field("quality").to_numpy(zero_copy_only=False)
    used = np.unique(codes.indices.to_numpy()[~machine | (quality > 0)])
    return {codes.dictionary[int(code)].as_py() for code in used}


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(row["values"]): row["counts"] for row in pc.value_counts(column).to_pylist()}


def named(shards: Shards) -> str:
    return ", ".join(str(table.corpus) for table in shards.tables)


def no_such_split(shards: Shards, split: str, splits: dict[str, int]) -> UsageError:
    has = ", ".join(f"{name} ({count:,})" for name, count in sorted(splits.items())) or "none: the table is empty"
    return UsageError(f"{named(shards)}: got no item in split {split!r}, wanted some; there are (items): {has}")


def _check(
    shards: Shards,
    split: str,
    splits: dict[str, int],
    source_language: str,
    extra_views: Sequence[str],
    views: set[str],
    samples: int,
) -> None:
    if not splits.get(split):
        raise no_such_split(shards, split, splits)
    unknown = sorted(set(extra_views) - {ALL} - views)
    if unknown:
        has = ", ".join(sorted(views)) or "no descriptions"
        raise UsageError(f"extra_views: got {', '.join(unknown)}, {named(shards)} has {has}")
    if not samples:
        raise UsageError(
            f"{named(shards)}: got no text in {source_language!r} in split {split!r}, wanted captions: let "
            "descriptions serve (extra_views=all), name another source_language, or add captions with --stage ingest"
        )


def _languages(shards: Shards, wanted: Sequence[str], found: set[str], split: str) -> tuple[str, ...]:
    has = ", ".join(sorted(found)) or "none"
    missing = sorted(set(wanted) - found)
    if missing:
        raise UsageError(
            f"languages: got {', '.join(missing)}, split {split!r} of {named(shards)} has {has}: run --stage translate "
            "--languages with them, then --stage pack"
        )
    if not found:
        raise UsageError(
            f"{named(shards)}: got texts in one language alone, wanted translations too: run --stage translate, then "
            "--stage pack"
        )
    return tuple(wanted) or tuple(sorted(found))


def sources(row: dict[str, Any], text: int) -> tuple[str, str]:
    """(id, text) of the English side of a sample, as translations name it."""
    if text < 0:
        view = row["descriptions"][-1 - text]
        return f"{row['item_id']}#{view['view']}", view["text"]
    caption = row["captions"][text]
    return caption["caption_id"], caption["text"]


def target(
    row: dict[str, Any], source_id: str, languages: Sequence[str], random: np.random.Generator
) -> dict[str, Any] | None:
    """The caption that is this English text in one of the languages: a translation of it, else any text of the item.

    First a language is drawn, then one of its texts.
    """
    linked, others = dict[str, list](), dict[str, list]()
    for caption in row["captions"]:
        language = caption["language"]
        if language in languages:
            its_own = caption["caption_id"] == f"{source_id}>{language}"
            (linked if its_own else others).setdefault(language, []).append(caption)
    has = sorted({*linked, *others})
    if not has:
        return None
    language = has[int(random.integers(len(has)))]
    texts = linked.get(language) or others[language]
    return texts[int(random.integers(len(texts)))]


def weight(caption: dict[str, Any] | None, by_quality: bool, unmeasured: frozenset[str]) -> float:
    """Of a pair in the losses, in [0, 1]; 0 where there is no pair."""
    if caption is None:
        return 0.0
    if not by_quality or caption["origin"] != MACHINE or caption["language"] in unmeasured:
        return 1.0
    return float(min(1.0, max(0.0, caption["quality"])))


def rows_of(shards: Shards, split: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(shard, row, row without its media) of a split, in order."""
    for number in range(len(shards)):
        shard = shards.shard(number)
        light = shard.select(["item_id", "split", "sha256", "captions"])
        start = 0
        for batch in light.to_batches():
            for place, row in enumerate(batch.to_pylist()):
                if row["split"] == split:
                    yield number, start + place, row
            start += len(batch)
