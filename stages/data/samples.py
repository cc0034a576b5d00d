"""Training samples in the shards of one or more corpora, indexed in one pass over their columns. Needs no torch.

A sample is an item and one English text of it. When it is read, a text of the item in another language is drawn: first
the language, then a translation of this English text if there is one, else any text of the item in that language.
"""

import collections
import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import Table
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import short_hash
from pipeline.packing.near_duplicates import copies_among
from pipeline.storage.files import fetch_ahead, location
from pipeline.storage.object_path import ObjectPath

ALL = "all"
COLUMNS = ("item_id", "media_type", "media", "num_frames", "uri", "sha256", "captions", "descriptions")
HUMAN, MACHINE, MLLM = "human", "mt", "mllm"  # origins of texts: people, translations, views in a target language
TRAIN, VAL = "train", "val"
PARTS = ("item", "slot", "view", "caption", "frame")  # of an item, in the table `vectors`
HASHES = 1 << 32  # values of the first eight digits of a content hash


def human_captions(captions: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The different captions that people wrote of an item, with their languages."""
    return {caption["text"]: caption["language"] for caption in captions if caption["origin"] == HUMAN}


class Shards:
    """The `training` shards of corpora, one after another; each is memory-mapped when it is first read.

    Args:
        corpora: Corpus folders.
        val_fraction: Share of split train that is split val instead, by the hash of the content: the same in every
            run, and never one of two copies or near-duplicates of a corpus. 0 leaves the splits as they are.

    Raises:
        UsageError: A corpus has no complete `training` table, or a split val already.
    """

    def __init__(self, corpora: Sequence[Path], val_fraction: float = 0.0):
        self.val_fraction = val_fraction
        self.tables = [Table(location(str(corpus)), "training") for corpus in corpora]
        self._first = _group(pair for table in self.tables for pair in copies_among(table)) if val_fraction else {}
        self.places = [(table, index) for table in self.tables for index in range(table.num_shards)]
        self._open: dict[int, pa.Table] = {}
        self._columns: dict[int, dict[str, pa.ChunkedArray]] = {}
        self._files: dict[int, tuple[int, int, int]] = {}  # what each shard's file was when it was first opened

    def __len__(self) -> int:
        return len(self.places)

    def __getstate__(self) -> dict[str, Any]:
        """Pickled for a worker process, which opens the shards itself."""
        return {**self.__dict__, "_open": {}, "_columns": {}}

    @property
    def names(self) -> str:
        """The corpora, for messages."""
        return ", ".join(str(table.corpus) for table in self.tables)

    def shard(self, number: int) -> pa.Table:
        """A shard as an Arrow table."""
        if number not in self._open:
            table, index = self.places[number]
            self._open[number] = self._with_val(table.shard(index)) if self.val_fraction else table.shard(index)
            self._files.setdefault(number, self._file(number))
        return self._open[number]

    def _with_val(self, shard: pa.Table) -> pa.Table:
        """The shard with a share of split train as split val."""
        splits = shard.column("split").to_pylist()
        if VAL in splits:
            raise UsageError(
                f"val_fraction={self.val_fraction:g}: {self.names} has a split val: leave val_fraction out"
            )
        limit = int(self.val_fraction * HASHES)
        items = zip(shard.column("item_id").to_pylist(), shard.column("sha256").to_pylist(), strict=True)
        hashes = [short_hash(self._first[item_id]) if item_id in self._first else sha256 for item_id, sha256 in items]
        held_out = [int(digits[:8], 16) < limit for digits in hashes]
        splits = [VAL if own == TRAIN and held else own for own, held in zip(splits, held_out, strict=True)]
        return shard.set_column(shard.schema.get_field_index("split"), "split", pa.array(splits, pa.string()))

    def fetch_ahead(self) -> None:
        """Download all shards in the background, see `storage.files.fetch_ahead`."""
        fetch_ahead((table.shard_path(index), table.manifest["shards"][index]) for table, index in self.places)

    def _file(self, number: int) -> tuple[int, int, int]:
        table, index = self.places[number]
        if isinstance(table.corpus, ObjectPath):
            return (0, 0, 0)  # its copy has the bytes that the manifest names
        status = table.shard_path(index).stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    def check_unchanged(self, number: int) -> None:
        """Raise EnvironmentTrouble if a shard was replaced since it was first opened, by this process or its parent."""
        try:
            file = self._file(number)
        except OSError:
            file = None
        if file != self._files[number]:
            table, index = self.places[number]
            raise EnvironmentTrouble(
                f"{table.shard_path(index)} was replaced or removed while it was read. Leave a corpus alone until "
                "training ends: put the old one back and --resume, or train on the new one with --overwrite"
            )

    def row(self, number: int, row: int, media: bool = True) -> dict[str, Any]:
        """One row with the columns that training reads, with or without its media."""
        if number not in self._columns:
            self._columns[number] = {name: self.shard(number).column(name) for name in COLUMNS}
        columns = self._columns[number].items()
        return {name: column[row].as_py() for name, column in columns if media or name != "media"}

    def damaged(self, number: int, item_id: str, reason: object) -> EnvironmentTrouble:
        """The error for media that cannot be read."""
        table, index = self.places[number]
        return EnvironmentTrouble(
            f"{table.shard_path(index)}: the media of {item_id} cannot be read ({reason}): run --stage verify on the "
            "corpus, then --stage pack again"
        )


def _group(pairs: Iterable[Sequence[str]]) -> dict[str, str]:
    """The smallest id of the items that pairs connect, for each of them."""
    groups: dict[str, set[str]] = {}
    for pair in pairs:
        group = set().union(*(groups.get(item_id, {item_id}) for item_id in pair))
        groups.update(dict.fromkeys(group, group))
    return {item_id: min(group) for item_id, group in groups.items()}


def check_views(shards: Shards, option: str, views: Sequence[str], available: Collection[str]) -> None:
    """Raise UsageError for a view that does not exist; `option` is the setting that names the views."""
    if unknown := sorted(set(views) - {ALL, ""} - set(available)):
        has = ", ".join(sorted(available)) or "no descriptions: run --stage captions, then --stage pack"
        raise UsageError(f"{option}={','.join(unknown)}: {shards.names} has {has}")


def all_views(shards: Shards) -> set[str]:
    """Names of the views that any item has, in any split."""
    views: set[str] = set()
    for number in range(len(shards)):
        for chunk in shards.shard(number).column("descriptions").chunks:
            views |= set(pc.unique(chunk.flatten().field("view")).to_pylist())
    return views


def resolve_views(shards: Shards, views: Sequence[str]) -> tuple[str, ...]:
    """These views, or for "all" or none the names of every view, in alphabetical order."""
    return tuple(views) if views and ALL not in views else tuple(sorted(all_views(shards)))


def select_views(descriptions: Sequence[dict[str, str]], views: Sequence[str]) -> list[str]:
    """Texts of the named views, in the order of the names, "" for one that is absent; "all" selects every view."""
    if ALL in views:
        return [row["text"] for row in descriptions]
    texts = {row["view"]: row["text"] for row in descriptions}
    return [texts.get(view, "") for view in views]


@dataclasses.dataclass(frozen=True)
class SampleIndex:
    """Where the samples are, in 10 bytes each.

    Attributes:
        shards: [S] int32, shard of each sample.
        rows: [S] int32, row in the shard.
        texts: [S] int16, position of the caption in its row; below zero, the description at position −1 − texts[i].
        languages: Target languages to train.
        notes: Messages for the user.
        undescribed: Number of items without a description for the slots.
    """

    shards: np.ndarray
    rows: np.ndarray
    texts: np.ndarray
    languages: tuple[str, ...]
    notes: tuple[str, ...]
    undescribed: int

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
) -> SampleIndex:
    """Index the samples of a split.

    Reads the language and origin of captions, not their texts: two million captions took a second and 12 MiB.

    Args:
        shards: The corpora.
        split: The split.
        languages: Target languages; empty for all that the split has.
        source_language: Language of the captions that were translated.
        extra_views: Views that also serve as source captions.
        slot_views: Views that the slots read.
        human_targets: Whether human texts count as target texts, or only those of models.

    Raises:
        UsageError: The split has no items or source texts, or languages or views are missing.
    """
    spoken, translated, views = set[str](), set[str](), set[str]()
    parts = [(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int16))]
    items_in_split = without_text = undescribed = 0
    for number in range(len(shards)):
        start = 0
        for batch in shards.shard(number).select(["split", "captions", "descriptions"]).to_batches():
            in_split = pc.equal(batch.column("split"), split).to_numpy(zero_copy_only=False)
            captions, descriptions = (_Lists(batch.column(name), in_split) for name in ("captions", "descriptions"))
            human, machine = (captions.where("origin", [origin]) for origin in (HUMAN, MACHINE))
            spoken |= captions.names("language")
            translated |= captions.names("language", ~human)
            views |= descriptions.names("view")
            own = captions.where("language", [source_language]) & ~machine
            extra = descriptions.where("view", None if ALL in extra_views else extra_views)
            owners = np.concatenate([captions.owners[own], descriptions.owners[extra]])
            texts = np.concatenate([captions.places[own], -1 - descriptions.places[extra]])
            order = np.argsort(owners, kind="stable")
            shard_of = np.full(len(owners), number, np.int32)
            parts.append((shard_of, (start + owners[order]).astype(np.int32), texts[order].astype(np.int16)))
            items = int(np.count_nonzero(in_split))
            items_in_split += items
            without_text += items - len(np.unique(owners))
            for_slots = descriptions.where("view", None if ALL in slot_views else slot_views)
            undescribed += items - len(np.unique(descriptions.owners[for_slots]))
            start += len(batch)
    shard_of, row_of, text_of = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not items_in_split:
        raise no_such_split(shards, split)
    check_views(shards, "extra_views", extra_views, views)
    check_views(shards, "slot_views", slot_views, views)
    if not len(row_of):
        raise UsageError(
            f"{shards.names}: split {split!r} has no caption in {source_language!r}. Train on the descriptions "
            "(extra_views=all), set another source_language, or add captions with --stage ingest"
        )
    available = (spoken if human_targets else translated) - {source_language}
    missing = sorted(set(languages) - available)
    if missing or not available:
        raise UsageError(
            f"languages={','.join(missing)}: split {split!r} of {shards.names} has captions in {source_language}, the "
            f"source language, and texts to train in {', '.join(sorted(available)) or 'no other'}. Run "
            "--stage translate --languages with the missing ones, then --stage pack"
        )
    notes = [f"{without_text:,} items of {split} have no text in {source_language} and are left out"]
    targets = tuple(languages) or tuple(sorted(available))
    return SampleIndex(shard_of, row_of, text_of, targets, tuple(notes if without_text else ()), undescribed)


class _Lists:
    """The elements of a column of lists of structs in the rows of a split, with the row and position of each."""

    def __init__(self, lists: pa.ListArray, in_split: np.ndarray):
        offsets = lists.offsets.to_numpy()
        owners = np.repeat(np.arange(len(lists), dtype=np.int32), np.diff(offsets))
        self._selected = in_split[owners]
        self._elements = lists.values[offsets[0] : offsets[-1]]
        self.owners = owners[self._selected]
        self.places = (np.arange(len(owners)) + offsets[0] - offsets[owners])[self._selected]

    def where(self, name: str, values: Sequence[str] | None) -> np.ndarray:
        """Which elements have one of the values in a field; None allows any."""
        if values is None:
            return np.ones(len(self.owners), bool)
        allowed = pc.is_in(self._elements.field(name), value_set=pa.array(values, pa.string()))
        return allowed.to_numpy(zero_copy_only=False)[self._selected]

    def names(self, name: str, among: np.ndarray | None = None) -> set[str]:
        """The values of a field, of all elements or those `among`."""
        coded = self._elements.field(name).dictionary_encode()
        codes = coded.indices.to_numpy()[self._selected]
        used = np.unique(codes if among is None else codes[among])
        return {coded.dictionary[int(code)].as_py() for code in used}


def no_such_split(shards: Shards, split: str) -> UsageError:
    """The error for a split without items."""
    splits = collections.Counter[str]()
    for number in range(len(shards)):
        splits.update(shards.shard(number).column("split").to_pylist())
    has = ", ".join(f"{name} ({count:,} items)" for name, count in sorted(splits.items()))
    return UsageError(f"{shards.names} has no item in split {split!r}. It has {has or 'no items at all'}")


def source_text(row: dict[str, Any], text: int) -> tuple[str, str]:
    """Id and text of a sample's English side, the id as translations refer to it; `text` as in `SampleIndex.texts`."""
    if text < 0:
        view = row["descriptions"][-1 - text]
        return f"{row['item_id']}#{view['view']}", view["text"]
    caption = row["captions"][text]
    return caption["caption_id"], caption["text"]


def draw_target(
    row: dict[str, Any],
    source_id: str,
    languages: Sequence[str],
    random: np.random.Generator,
    human_targets: bool = True,
) -> dict[str, Any] | None:
    """Draw the target caption of a sample: first a language, then one of its texts.

    Translations of this source text, and views that a model wrote in the language, are preferred to other texts of the
    item. Returns None if the item has no text in these languages.
    """
    own, others = dict[str, list[Any]](), dict[str, list[Any]]()
    item, *place = source_id.rsplit("#", 2)  # of a caption: its language and number
    for caption in row["captions"]:
        language, machine = caption["language"], caption["origin"] != HUMAN
        if language in languages and (machine or human_targets):
            given = machine and len(place) == 2 and caption["caption_id"] == f"{item}#{language}#{place[1]}"
            is_own = given or caption["caption_id"] == f"{source_id}>{language}" or caption["origin"] == MLLM
            (own if is_own else others).setdefault(language, []).append(caption)
    available = sorted({*own, *others})
    if not available:
        return None
    language = available[int(random.integers(len(available)))]
    texts = own.get(language) or others[language]
    return texts[int(random.integers(len(texts)))]


def pair_weight(caption: dict[str, Any] | None, by_quality: bool) -> float:
    """Weight of a pair in the losses, in [0, 1]: 0 without a target text; a quality of 0 means not measured."""
    if caption is None:
        return 0.0
    if not by_quality or caption["origin"] != MACHINE or caption["quality"] == 0:
        return 1.0
    return float(min(1.0, max(0.0, caption["quality"])))


def split_rows(shards: Shards, split: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Shard, row number, and row without its media, for the rows of a split in order."""
    for number in range(len(shards)):
        start = 0
        for batch in shards.shard(number).select(["item_id", "split", "sha256", "captions"]).to_batches():
            in_split = pc.equal(batch.column("split"), split)
            rows = np.flatnonzero(in_split.to_numpy(zero_copy_only=False))
            yield from zip(itertools.repeat(number), (start + rows).tolist(), batch.filter(in_split).to_pylist())
            start += len(batch)
