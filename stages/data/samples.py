"""What there is to train on: samples over the shards of one or more corpora, found in one pass over their columns.

A sample is an item and one English text of it. Its text in another language is drawn when it is read, among the
languages that this English text was translated into.
"""

import collections
import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import Table
from pipeline.errors import EnvironmentTrouble, UsageError

ALL = "all"
READ = ("item_id", "media_type", "media", "num_frames", "uri", "sha256", "captions", "descriptions")
HUMAN, MACHINE = "human", "mt"  # origins of texts


class Shards:
    """The `training` shards of corpora, one after the other; each is opened, memory-mapped, when it is first read."""

    def __init__(self, corpora: Sequence[Path]):
        self.tables = [Table(Path(corpus), "training") for corpus in corpora]
        self.places = [(table, index) for table in self.tables for index in range(table.num_shards)]
        self.corpus_of = [number for number, table in enumerate(self.tables) for _ in range(table.num_shards)]
        self._open: dict[int, pa.Table] = {}
        self._columns: dict[int, dict[str, pa.ChunkedArray]] = {}

    def __len__(self) -> int:
        return len(self.places)

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process, which opens its own."""
        return {**self.__dict__, "_open": {}, "_columns": {}}

    def shard(self, number: int) -> pa.Table:
        if number not in self._open:
            table, index = self.places[number]
            self._open[number] = table.shard(index)
        return self._open[number]

    def row(self, number: int, row: int) -> dict[str, Any]:
        """The columns READ of a row."""
        if number not in self._columns:
            self._columns[number] = {name: self.shard(number).column(name) for name in READ}
        return {name: column[row].as_py() for name, column in self._columns[number].items()}

    def name(self, number: int) -> str:
        table, index = self.places[number]
        return str(table.shard_path(index))

    def damaged(self, number: int, item_id: str, reason: object) -> EnvironmentTrouble:
        return EnvironmentTrouble(
            f"{self.name(number)}: {item_id}: got media that cannot be read ({reason}): run --stage verify on the "
            "corpus, then --stage pack again"
        )


def check_views(shards: Shards, option: str, asked: Sequence[str], views: Collection[str]) -> None:
    """Raises UsageError for a view that is none of those that there are."""
    if unknown := sorted(set(asked) - {ALL} - set(views)):
        has = ", ".join(sorted(views)) or "no descriptions: run --stage captions, then --stage pack"
        raise UsageError(f"{option}: got {', '.join(unknown)}, {named(shards)} has {has}")


def all_views(shards: Shards) -> set[str]:
    """Names of the views that any item has, of whatever split."""
    found: set[str] = set()
    for number in range(len(shards)):
        for chunk in shards.shard(number).column("descriptions").chunks:
            found |= set(pc.unique(chunk.flatten().field("view")).to_pylist())
    return found


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
    notes: tuple[str, ...]  # what the user should know
    undescribed: int  # items without a description for the slots

    def __len__(self) -> int:
        return len(self.rows)


def build_index(
    shards: Shards,
    split: str,
    languages: Sequence[str],
    source_language: str,
    extra_views: Sequence[str],
    slot_views: Sequence[str] = (ALL,),
    human_targets: bool = True,
) -> Index:
    """Samples of a split. `languages`: none given, all that the split has. Raises UsageError as the messages say.
    Without `human_targets` only translations count as texts in these languages.

    Of captions their language, origin and quality are read, the texts themselves are not: two million captions took a
    second and 12 MiB.
    """
    survey = _Survey(shards, split)
    parts = [(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int16))]
    without = undescribed = 0
    for number in range(len(shards)):
        start = 0
        for batch in shards.shard(number).select(["split", "captions", "descriptions"]).to_batches():
            wanted = pc.equal(batch.column("split"), split).to_numpy(zero_copy_only=False)
            captions, described = (_Lists(batch.column(name), wanted) for name in ("captions", "descriptions"))
            survey.add(number, batch.column("split"), captions, described)
            own = captions.where("language", [source_language]) & ~captions.where("origin", [MACHINE])
            extra = described.where("view", None if ALL in extra_views else extra_views)
            owners = np.concatenate([captions.owners[own], described.owners[extra]])
            texts = np.concatenate([captions.places[own], -1 - described.places[extra]])
            order = np.argsort(owners, kind="stable")
            shard_of = np.full(len(owners), number, np.int32)
            parts.append((shard_of, (start + owners[order]).astype(np.int32), texts[order].astype(np.int16)))
            without += int(np.count_nonzero(wanted)) - len(np.unique(owners))
            read = described.where("view", None if ALL in slot_views else slot_views)
            undescribed += int(np.count_nonzero(wanted)) - len(np.unique(described.owners[read]))
            start += len(batch)
    shard_of, row_of, text_of = (np.concatenate(column) for column in zip(*parts, strict=True))
    survey.check(source_language, {"extra_views": extra_views, "slot_views": slot_views}, len(row_of))
    chosen = survey.choose(languages, source_language, human_targets)
    notes = [f"{without:,} items of {split} have no text in {source_language} and are left out"] if without else []
    for table, translated, measured in zip(shards.tables, survey.translated, survey.measured, strict=True):
        if unmeasured := (translated - measured) & set(chosen):
            told = ", ".join(sorted(unmeasured))
            notes.append(f"{table.corpus.name}: the quality of {told} was not measured: every pair weighs 1")
    return Index(shard_of, row_of, text_of, chosen, tuple(notes), undescribed)


class _Lists:
    """The elements of a column of lists of structs that are in `wanted` rows: row and place in it of each."""

    def __init__(self, lists: pa.ListArray, wanted: np.ndarray):
        offsets = lists.offsets.to_numpy()
        owners = np.repeat(np.arange(len(lists), dtype=np.int32), np.diff(offsets))
        self._kept = wanted[owners]
        self._elements = lists.values[offsets[0] : offsets[-1]]
        self.owners = owners[self._kept]
        self.places = (np.arange(len(owners)) + offsets[0] - offsets[owners])[self._kept]

    def where(self, name: str, values: Sequence[str] | None) -> np.ndarray:
        """Of which elements a field has one of the values; None: any."""
        if values is None:
            return np.ones(len(self.owners), bool)
        allowed = pc.is_in(self._elements.field(name), value_set=pa.array(values, pa.string()))
        return allowed.to_numpy(zero_copy_only=False)[self._kept]

    def numbers(self, name: str) -> np.ndarray:
        return self._elements.field(name).to_numpy(zero_copy_only=False)[self._kept]

    def names(self, name: str, among: np.ndarray | None = None) -> set[str]:
        """The values of a field, of those elements alone."""
        coded = self._elements.field(name).dictionary_encode()
        codes = coded.indices.to_numpy()[self._kept]
        used = np.unique(codes if among is None else codes[among])
        return {coded.dictionary[int(code)].as_py() for code in used}


class _Survey:
    """What a split has, and whether that is what was asked for."""

    def __init__(self, shards: Shards, split: str):
        self.shards, self.split = shards, split
        self.splits = collections.Counter[str]()
        self.languages, self.views = set[str](), set[str]()
        self.translated = [set[str]() for _ in shards.tables]  # languages, by corpus
        self.measured = [set[str]() for _ in shards.tables]

    def add(self, number: int, splits: pa.StringArray, captions: _Lists, described: _Lists) -> None:
        corpus = self.shards.corpus_of[number]
        self.splits.update({row["values"]: row["counts"] for row in pc.value_counts(splits).to_pylist()})
        self.languages |= captions.names("language")
        self.views |= described.names("view")
        machine = captions.where("origin", [MACHINE])
        self.translated[corpus] |= captions.names("language", machine)
        self.measured[corpus] |= captions.names("language", machine & (captions.numbers("quality") > 0))

    def check(self, source_language: str, asked_views: Mapping[str, Sequence[str]], samples: int) -> None:
        if not self.splits[self.split]:
            raise no_such_split(self.shards, self.split, self.splits)
        for option, asked in asked_views.items():
            check_views(self.shards, option, asked, self.views)
        if not samples:
            raise UsageError(
                f"{named(self.shards)}: got no text in {source_language!r} in split {self.split!r}, wanted captions: "
                "let descriptions serve (extra_views=all), name another source_language, or add captions with "
                "--stage ingest"
            )

    def choose(self, wanted: Sequence[str], source_language: str, human_targets: bool) -> tuple[str, ...]:
        """The languages to be trained."""
        usable = self.languages if human_targets else set[str]().union(*self.translated)
        found = usable - {source_language}
        has = ", ".join(sorted(found)) or "none"
        if source_language in wanted:
            raise UsageError(
                f"languages: got {source_language}, the source language, which is trained anyway: name the languages "
                f"that it was translated into (there are {has})"
            )
        missing = sorted(set(wanted) - found)
        if missing:
            raise UsageError(
                f"languages: got {', '.join(missing)}, split {self.split!r} of {named(self.shards)} has {has}: run "
                "--stage translate --languages with them, then --stage pack"
            )
        if not found:
            raise UsageError(
                f"{named(self.shards)}: got texts in one language alone, wanted translations too: run "
                "--stage translate, then --stage pack"
            )
        return tuple(wanted) or tuple(sorted(found))


def named(shards: Shards) -> str:
    return ", ".join(str(table.corpus) for table in shards.tables)


def no_such_split(shards: Shards, split: str, splits: Mapping[str, int]) -> UsageError:
    has = ", ".join(f"{name} ({count:,})" for name, count in sorted(splits.items()) if count)
    return UsageError(
        f"{named(shards)}: got no item in split {split!r}, wanted some; there are (items): "
        f"{has or 'none, the table is empty'}"
    )


def sources(row: dict[str, Any], text: int) -> tuple[str, str]:
    """(id, text) of the English side of a sample, as translations name it."""
    if text < 0:
        view = row["descriptions"][-1 - text]
        return f"{row['item_id']}#{view['view']}", view["text"]
    caption = row["captions"][text]
    return caption["caption_id"], caption["text"]


def target(
    row: dict[str, Any],
    source_id: str,
    languages: Sequence[str],
    random: np.random.Generator,
    human_targets: bool = True,
) -> dict[str, Any] | None:
    """The caption that is this English text in one of the languages: a translation of it, else any text of the item,
    of translations alone without `human_targets`.

    First a language is drawn, then one of its texts.
    """
    linked, others = dict[str, list](), dict[str, list]()
    item, *place = source_id.rsplit("#", 2)  # of a caption: its language and number
    for caption in row["captions"]:
        language, machine = caption["language"], caption["origin"] == MACHINE
        if language in languages and (machine or human_targets):
            given = machine and len(place) == 2 and caption["caption_id"] == f"{item}#{language}#{place[1]}"
            its_own = given or caption["caption_id"] == f"{source_id}>{language}"
            (linked if its_own else others).setdefault(language, []).append(caption)
    has = sorted({*linked, *others})
    if not has:
        return None
    language = has[int(random.integers(len(has)))]
    texts = linked.get(language) or others[language]
    return texts[int(random.integers(len(texts)))]


def weight(caption: dict[str, Any] | None, by_quality: bool) -> float:
    """Of a pair in the losses, in [0, 1]; 0 where there is no pair. A quality of 0 says that nobody measured it."""
    if caption is None:
        return 0.0
    if not by_quality or caption["origin"] != MACHINE or caption["quality"] == 0:
        return 1.0
    return float(min(1.0, max(0.0, caption["quality"])))


def rows_of(shards: Shards, split: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(shard, row, row without its media) of a split, in order; rows of other splits are not made into objects."""
    for number in range(len(shards)):
        start = 0
        for batch in shards.shard(number).select(["item_id", "split", "sha256", "captions"]).to_batches():
            wanted = pc.equal(batch.column("split"), split)
            rows = np.flatnonzero(wanted.to_numpy(zero_copy_only=False))
            yield from zip(itertools.repeat(number), (start + rows).tolist(), batch.filter(wanted).to_pylist())
            start += len(batch)
