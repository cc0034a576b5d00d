"""Merging of corpora: items with the same content become one item, found in an index on disk.

    items of all corpora → one file of records, sorted in place → those whose content several corpora have

The files are memory-mapped, so memory stays flat and worker processes share them. Splits play no role: a content lies
in one split only, see `packing.leaks`.
"""

import fcntl
import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.corpus.table import Table, atomic_writer, complete, read_json, write_json
from pipeline.engine.stage import Grouped, Rows
from pipeline.packing.leaks import AS_BYTES, RECORD, content_records
from pipeline.packing.rows import Source

INDEX = "index.json"
STEP = 1 << 20  # records that are compared at a time
OPEN_SHARDS = 64  # memory-mapped, with the row numbers of each item
TEXTS = ("captions", "descriptions", "translations")
PLACE = ["corpus", "shard", "row"]


class SharedContents:
    """The contents that two corpora or more have, opened for reading.

    Attributes:
        merged: Number of items that become part of another corpus's item.
    """

    def __init__(self, folder: Path):
        index = read_json(folder / INDEX)
        self.merged: int = index["merged"]
        self._records = np.memmap(folder / "shared", AS_BYTES, "r") if index["rows"] else np.empty(0, AS_BYTES)

    def find(self, hashes: np.ndarray) -> list[list[tuple[int, int, int]]]:
        """For each hash (`S32`), the sorted (corpus, shard, row) of all items with it; [] where one corpus has it."""
        starts = np.searchsorted(self._records, hashes.astype(AS_BYTES))
        ends = np.searchsorted(self._records, _upper_bounds(hashes))
        return [self._records[start:end].view(RECORD)[PLACE].tolist() for start, end in zip(starts, ends, strict=True)]


def _upper_bounds(hashes: np.ndarray) -> np.ndarray:
    """What comes after all records of each hash."""
    bounds = np.full((len(hashes), RECORD.itemsize), 255, np.uint8)
    bounds[:, :32] = np.ascontiguousarray(hashes).view(np.uint8).reshape(len(hashes), 32)
    return bounds.reshape(-1).view(AS_BYTES)


def shared_contents(corpora: Sequence[Path], folder: Path, stamp: str) -> SharedContents:
    """Open the index of these corpora in `folder`, building it where none with this stamp is there.

    Processes take turns: the first one builds it, the others find it complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (read_json(folder / INDEX) or {}).get("stamp") != stamp:
            (folder / INDEX).unlink(missing_ok=True)
            rows, merged = _build_index(corpora, folder)
            write_json(folder / INDEX, {"stamp": stamp, "rows": rows, "merged": merged})
    return SharedContents(folder)


def _build_index(corpora: Sequence[Path], folder: Path) -> tuple[int, int]:
    """Write the file `shared`; returns its number of records, and of items merged into those of an earlier corpus."""
    path = folder / "all"
    with path.open("wb") as stream:
        for records in content_records(corpora):
            records["split"] = 0  # the order within a content is that of the corpora
            stream.write(records.tobytes())
    rows = merged = 0
    with atomic_writer(folder / "shared") as stream:
        if path.stat().st_size:
            everything = np.memmap(path, AS_BYTES, "r+")
            everything.sort()
            start = 0
            while start < len(everything):
                last = everything[start : start + STEP][-1:].view(RECORD)["content"]
                end = int(np.searchsorted(everything, _upper_bounds(last))[0])  # a content stays in one part
                shared, later = _shared(everything[start:end].view(RECORD))
                stream.write(shared.tobytes())
                rows, merged, start = rows + len(shared), merged + later, end
    path.unlink()
    return rows, merged


def _shared(records: np.ndarray) -> tuple[np.ndarray, int]:
    """Of sorted records, those whose content several corpora have, and how many are not of the first such corpus."""
    contents, corpus = records["content"], records["corpus"]
    starts = np.flatnonzero(np.concatenate([[True], contents[1:] != contents[:-1]]))
    lengths = np.diff(np.append(starts, len(records)))
    first, last = (np.repeat(corpus[rows], lengths) for rows in (starts, starts + lengths - 1))
    return records[first != last], int(np.count_nonzero(corpus != first))


class Merge:
    """Finds, for the items of a shard, the items of all corpora that they are made from. Safe to call from threads."""

    def __init__(self, corpora: Sequence[Path], shared: SharedContents):
        self._names = [corpus.name for corpus in corpora]
        self._shared = shared
        self._lock = threading.Lock()
        self._tables = [
            {name: Table(corpus, name) for name in ("items", *TEXTS) if complete(corpus, name)} for corpus in corpora
        ]
        self._checked: set[tuple[int, int]] = set()
        self._shard = functools.lru_cache(OPEN_SHARDS)(self._open_shard)

    def sources(self, corpus: int, shard: int, rows: Rows, joined: Grouped) -> list[list[Source]]:
        """For each item of a shard: itself and the items of later corpora with its content.

        Of several items of one corpus with the same content, the first takes all; within a corpus nothing is merged.

        Args:
            corpus: Position of the corpus that the shard is of.
            shard: Number of the shard.
            rows: The shard's items.
            joined: Their rows of other tables, by item id.

        Returns:
            A list for each item, empty where the item of an earlier corpus takes it.
        """
        hashes = np.array([bytes.fromhex(row["sha256"]) for row in rows], "S32")
        sources: list[list[Source]] = []
        others: list[tuple[int, int, int, int]] = []  # corpus, shard, row; the position of the item that takes it
        for at, (row, places) in enumerate(zip(rows, self._shared.find(hashes), strict=True)):
            first = places[0] if places else (corpus, shard, at)
            if first[0] != corpus:
                sources.append([])
                continue
            sources.append([Source(self._prefix(corpus), row, joined.get(row["item_id"], {}))])
            if first == (corpus, shard, at):
                others += [(*place, at) for place in places if place[0] != corpus]
        with self._lock:
            for other, number, row_number, at in sorted(others):  # so that each shard is opened once
                item, texts = self._shard(other, number).item(row_number)
                sources[at].append(Source(self._prefix(other), item, texts))
        return sources

    def _prefix(self, corpus: int) -> str:
        return f"{self._names[corpus]}/"

    def _open_shard(self, corpus: int, shard: int) -> "_Shard":
        check = (corpus, shard) not in self._checked  # the checksum once a process
        tables = {name: table.shard(shard, check) for name, table in self._tables[corpus].items()}
        self._checked.add((corpus, shard))
        return _Shard(tables)


class _Shard:
    """A shard of another corpus: its tables memory-mapped, and by table the numbers of each item's rows."""

    def __init__(self, tables: Mapping[str, pa.Table]):
        self._items = tables["items"]
        self._texts = {name: table for name, table in tables.items() if name != "items"}
        self._rows: dict[str, dict[str, list[int]]] = {}
        for name, table in self._texts.items():
            numbers = self._rows[name] = {}
            for row, item_id in enumerate(table["item_id"].to_pylist()):
                numbers.setdefault(item_id, []).append(row)

    def item(self, row: int) -> tuple[dict[str, Any], dict[str, Rows]]:
        """A row of `items`, and its rows of the other tables."""
        item: dict[str, Any] = self._items.slice(row, 1).to_pylist()[0]
        texts = {
            name: table.take(self._rows[name][item["item_id"]]).to_pylist()
            for name, table in self._texts.items()
            if item["item_id"] in self._rows[name]
        }
        return item, texts
