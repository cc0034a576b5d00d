"""A vector index on disk, the side that changes it: add and remove items, then publish all of it at once.

    with writer(folder, origin={"encoder": …, "corpora": {…}}, width=256, dtype="float16", kind="auto") as index:
        index.add(records, media_NRE, text_ME, text_owner_M)
        index.commit()

N items · R rows of each · M rows of texts · E width

What is added becomes a new segment; what is removed is written down and skipped. Where that has become too much, a
segment is copied into the new one without what was removed. Nothing is overwritten: the manifest, renamed into place at
the end, says which files count, and the others are deleted, by this writer or, if it is killed, by the next.
"""

import contextlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.corpus.table import MANIFEST, atomic_writer, flush
from pipeline.engine.run_state import locked
from pipeline.errors import UsageError
from pipeline.hashing import differences
from stages.retrieval.index_reader import Generation
from stages.retrieval.keys import Key, Keys
from stages.retrieval.rows import KINDS, QUANTISERS
from stages.retrieval.segments import (
    GROUPS,
    RECORD,
    SCHEMA_VERSION,
    Segment,
    Spool,
    check,
    read_manifest,
    told,
    write_manifest,
)

WRITING = ".writing"
OURS = re.compile(r"segment-\d{8}|removed-\d{8}\.npy|manifest\.json")
GROWS = "corpora"  # the one part of an index's origin that may change when items are added to it
MAX_SEGMENTS, MAX_REMOVED = 8, 1 / 3
MAX_LENGTH = 1e4  # of a vector; far beyond what an encoder gives, and within float16
COPIED_ITEMS = 4_096  # at once


@contextlib.contextmanager
def writer(
    folder: Path,
    *,
    origin: Mapping[str, Any],
    width: int,
    dtype: str = "float32",
    kind: str = "auto",
    overwrite: bool = False,
) -> Iterator["IndexWriter"]:
    """Change the index in `folder`, or begin one; with `overwrite`, what it holds is replaced. Nothing shows, and
    nothing stays, without `commit`.

    `origin`: how the vectors come to be, as JSON: encoder, its fingerprint, corpora, settings. Of an index that is
    there, all but `corpora` must be the same. `kind`: `flat`, `ivf`, `hnsw`, or `auto`, which goes by size.

    Raises UsageError where another writer is at work, with its host and pid; where the folder holds something else;
    and where the index that is there was made otherwise, naming what differs.
    """
    if dtype not in QUANTISERS or kind not in (*KINDS, "auto"):
        raise UsageError(f"got dtype {dtype!r} and kind {kind!r}, wanted of {[*QUANTISERS]} and {[*KINDS, 'auto']}")
    if width < 1:
        raise UsageError(f"got vectors of width {width}, wanted 1 or more")
    _check_folder(folder)
    with locked(folder):
        published = read_manifest(folder)
        _sweep(folder, published)
        made = {"origin": dict(origin), "width": width, "dtype": dtype, "kind": kind}
        if published and not overwrite:
            _check_same(folder, published, made)
        index = IndexWriter(folder, made, published, keep=not overwrite)
        try:
            yield index
        finally:
            index.close()
            shutil.rmtree(folder / WRITING, ignore_errors=True)


class IndexWriter:
    """Items to add and to remove; made by `writer`."""

    def __init__(self, folder: Path, made: dict[str, Any], published: dict[str, Any] | None, keep: bool):
        self._folder, self._made = folder, made
        self._generation = published["generation"] if published else 0
        self._old: Generation | None = None
        self._begin(published if keep else None)

    def _begin(self, published: dict[str, Any] | None) -> None:
        self._old = Generation(self._folder, published, self._old) if published else None
        self._first = len(self._old.present_N) if self._old else 0  # number of the first item that is added
        self._keys = Keys(self._old.items, self._old.present_N) if self._old else None
        self._added: dict[Key, int] = {}  # and `_removed`: numbers, since the last commit
        self._removed: set[int] = set()
        (self._folder / WRITING).mkdir(exist_ok=True)
        self._name = f"segment-{self._generation + 1:08d}"
        self._spool = Spool(self._folder / WRITING / self._name, self._made["width"])

    def _number(self, key: Key) -> int | None:
        number = self._keys.get(key) if self._keys else None
        return self._added.get(key) if number is None or number in self._removed else number

    def __contains__(self, key: Key) -> bool:
        """Whether an item, (corpus, item_id), will be there."""
        return self._number(key) is not None

    def add(
        self,
        records: Sequence[Mapping[str, Any]],
        media_NRE: np.ndarray,
        text_ME: np.ndarray,
        text_owner_M: np.ndarray,
    ) -> None:
        """Add items. `records`: item_id, corpus, uri, sha256, content, split, media_type, texts (of view and text);
        `text_owner_M`: the place in `records` that each row of texts belongs to. All of them are added, or none.

        Raises UsageError for an item that is there or comes twice, and for vectors that are not finite.
        """
        media_NRE, text_ME = (np.asarray(part, np.float32) for part in (media_NRE, text_ME))
        owner_M, width = np.asarray(text_owner_M, np.int64), self._made["width"]
        if media_NRE.ndim != 3 or media_NRE.shape[::2] != (len(records), width):
            raise UsageError(f"got media vectors {media_NRE.shape}, wanted [{len(records)} items, rows, {width}]")
        if text_ME.shape != (len(owner_M), width):
            raise UsageError(f"got text vectors {text_ME.shape}, wanted [{len(owner_M)}, {width}]")
        if len(owner_M) and not 0 <= owner_M.min() <= owner_M.max() < len(records):
            raise UsageError(f"got texts of item {owner_M.min()} to {owner_M.max()}, wanted 0 to {len(records) - 1}")
        table = _table(records)
        keys = [(record["corpus"], record["item_id"]) for record in records]
        self._check_new(keys)
        media_RE = media_NRE.reshape(-1, width)
        _check_values(media_RE, np.repeat(np.arange(len(records)), media_NRE.shape[1]), keys)
        _check_values(text_ME, owner_M, keys)
        table = table.append_column("media_rows", pa.array(np.full(len(records), media_NRE.shape[1], np.int32)))
        texts_N = np.bincount(owner_M, minlength=len(records)).astype(np.int32)
        table = table.append_column("text_rows", pa.array(texts_N))
        by_item_M = np.argsort(owner_M, kind="stable")
        first = self._first + self._spool.items
        self._spool.add(table, {"media": media_RE, "text": text_ME[by_item_M]})
        self._added.update(zip(keys, range(first, first + len(keys)), strict=True))

    def _check_new(self, keys: Sequence[Key]) -> None:
        seen: set[Key] = set()
        for key in keys:
            if key in self or key in seen:
                where = "comes twice" if key in seen else "is in the index"
                raise UsageError(f"item {key[1]} of {key[0]} {where}, wanted a new one: remove it first")
            seen.add(key)

    def remove(self, keys: Iterable[Key]) -> None:
        """Remove items by (corpus, item_id), all of them or none. Raises UsageError for one that is not there."""
        keys = list(keys)
        unknown = [key for key in keys if key not in self]
        if unknown or len(set(keys)) < len(keys):
            corpus, item = unknown[0] if unknown else next(key for key in keys if keys.count(key) > 1)
            what = "is not in the index" if unknown else "is named twice"
            raise UsageError(f"item {item} of {corpus} {what}: nothing was removed; name items that are there, once")
        for key in keys:
            number = self._number(key)
            assert number is not None
            self._removed.add(number)
            if self._added.get(key) == number:
                del self._added[key]

    def commit(self) -> None:
        """Publish what was added and removed since the last commit; then more may follow."""
        self._generation += 1
        old = self._old.segments if self._old else []
        present_N = np.ones(self._first + self._spool.items, bool)
        if self._old:
            present_N[: self._first] = self._old.present_N
        present_N[list(self._removed)] = False
        starts = self._old.starts if self._old else np.zeros(1, np.int64)
        parts = [present_N[start:end] for start, end in zip(starts, [*starts[1:], len(present_N)], strict=True)]
        copied = _to_copy([int(part_N.sum()) for part_N in parts], [len(part_N) for part_N in parts])
        entries, kept = [], []
        for index, segment in enumerate(old):
            if index in copied:
                _copy(segment, parts[index], self._spool)
            else:
                entries.append(segment.entry)
                kept.append(parts[index])
        if parts[-1].any() or self._spool.items > len(parts[-1]):
            entries.append({**self._spool.finish(self._made["kind"], self._made["dtype"]), "name": self._name})
            (self._folder / WRITING / self._name).replace(self._folder / self._name)
            kept.append(np.concatenate([parts[-1], np.ones(entries[-1]["items"] - len(parts[-1]), bool)]))
        gone = np.flatnonzero(~np.concatenate([*kept, np.empty(0, bool)]))
        manifest = {
            **self._made,
            "vector_index_version": SCHEMA_VERSION,
            "generation": self._generation,
            "items": sum(int(part_N.sum()) for part_N in kept),
            "segments": entries,
            "removed": self._write_removed(gone) if len(gone) else None,
        }
        flush(self._folder)
        Generation(self._folder, manifest, self._old)  # what cannot be opened must not replace what can
        write_manifest(self._folder, manifest)
        self.close()
        _sweep(self._folder, manifest)
        self._begin(read_manifest(self._folder))

    def _write_removed(self, gone: np.ndarray) -> dict[str, Any]:
        path = self._folder / f"removed-{self._generation:08d}.npy"
        with atomic_writer(path) as stream:
            np.save(stream, gone, allow_pickle=False)
        return {"name": path.name, **told(path)}

    def close(self) -> None:
        self._spool.close()


def _to_copy(present: Sequence[int], items: Sequence[int]) -> set[int]:
    """Which segments are to be copied into the new one, the last of `present` (items that are there) and `items`.

    Those of which too much was removed; and where there are too many, the small ones, each not larger than what they
    come to together: so an item is copied a number of times that grows with the logarithm of the index.
    """
    last = len(items) - 1
    copied = {index for index in range(last) if items[index] - present[index] > MAX_REMOVED * items[index]}
    if last + 1 - len(copied) > MAX_SEGMENTS:
        size = present[last] + sum(present[index] for index in copied)
        for index in sorted(set(range(last)) - copied, key=lambda index: (present[index], index)):
            if present[index] > size and last + 1 - len(copied) <= MAX_SEGMENTS // 2:
                break
            copied.add(index)
            size += present[index]
    return copied


def _copy(segment: Segment, present_N: np.ndarray, spool: Spool) -> None:
    """Add a segment's items that are there to the spool. int8 is quantised again, from the values that it stood for."""
    for name, entry in segment.entry["files"].items():  # damage must not be copied under a checksum of its own
        check(segment.folder / name, entry, hashes=True)
    counts = {group: segment.counts(group) for group in GROUPS}
    for start in range(0, len(segment), COPIED_ITEMS):
        part_N = present_N[start : start + COPIED_ITEMS]
        vectors = {}
        for group, counts_N in counts.items():
            first = int(counts_N[:start].sum())
            part = counts_N[start : start + COPIED_ITEMS]
            vectors[group] = segment.groups[group].block(first, int(part.sum()))[np.repeat(part_N, part)]
        spool.add(segment.items.slice(start, COPIED_ITEMS).filter(pa.array(part_N)), vectors)


def _table(records: Sequence[Mapping[str, Any]]) -> pa.Table:
    for record in records:
        if record.keys() != set(RECORD.names):
            raise UsageError(f"got a record of {sorted(record)}, wanted {sorted(RECORD.names)}")
    return pa.Table.from_pylist([dict(record) for record in records], RECORD)


def _check_values(vectors: np.ndarray, owners: np.ndarray, keys: Sequence[Key]) -> None:
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(lengths <= MAX_LENGTH))  # so that NaN is wrong as well
    if len(wrong):
        corpus, item = keys[owners[wrong[0]]]
        raise UsageError(
            f"item {item} of {corpus} has a vector of length {lengths[wrong[0]]:g}, wanted finite ones of about 1: "
            "is the model's training gone wrong?"
        )


def _check_folder(folder: Path) -> None:
    """Raises UsageError where a folder holds what is not an index's: a writer deletes what it does not know."""
    if not folder.is_dir():
        return  # `locked` makes it, or says that it is a file
    strange = sorted(path.name for path in folder.iterdir() if path.name[0] != "." and not OURS.fullmatch(path.name))
    if strange:
        raise UsageError(f"{folder} holds {strange[0]}, wanted an index or an empty folder: give another --output")


def _check_same(folder: Path, published: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    before, now = ({**side, "origin": {**side["origin"], GROWS: None}} for side in (published, made))
    told = differences({name: before[name] for name in made}, now)
    if told:
        name, got, wanted = told[0]
        raise UsageError(
            f"{folder} was made with another {name.removeprefix('origin.')}: has {got!r}, got {wanted!r}: "
            "add with what it was made with, or make it anew with --overwrite"
        )


def _sweep(folder: Path, manifest: Mapping[str, Any] | None) -> None:
    """Delete what no manifest speaks of. Who has it open reads on: the system keeps it until then."""
    shutil.rmtree(folder / WRITING, ignore_errors=True)
    known = {MANIFEST}
    if manifest:
        known |= {segment["name"] for segment in manifest["segments"]}
        known |= {manifest["removed"]["name"]} if manifest["removed"] else set()
    for path in folder.iterdir():
        if OURS.fullmatch(path.name) and path.name not in known:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
