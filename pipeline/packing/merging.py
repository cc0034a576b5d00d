"""Merging of corpora: items with the same content become one item, found in an index on disk.

    items of all corpora → records sorted by content → those whose content several corpora have

The index is memory-mapped, so worker processes share it; building it takes some 150 bytes of memory an item. Splits
play no role: a content lies in one split only, see `packing.leaks`.
"""

import fcntl
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import Table, atomic_writer, complete
from pipeline.engine.stage import Grouped, Rows
from pipeline.packing.rows import Source

OPEN_SHARDS = 64  # memory-mapped at once
TEXTS = ("captions", "descriptions", "translations")
# Numbers are big-endian and come after the content, so that records sort as bytes: by content, then by place.
PLACE = ["corpus", "shard", "row"]
RECORD = np.dtype([("content", "S32"), *((name, ">u4") for name in PLACE)])
AS_BYTES = f"S{RECORD.itemsize}"


class SharedContents:
    """The contents that two corpora or more have, opened for reading."""

    def __init__(self, path: Path):
        self._records = np.load(path, mmap_mode="r")

    def find(self, hashes: np.ndarray) -> list[list[tuple[int, int, int]]]:
        """For each hash (`S32`), the sorted (corpus, shard, row) of all items with it; [] where one corpus has it."""
        last = np.empty(len(hashes), RECORD)
        last["content"] = hashes
        for name in PLACE:
            last[name] = np.iinfo(np.uint32).max
        starts = np.searchsorted(self._records, hashes.astype(AS_BYTES))
        ends = np.searchsorted(self._records, last.view(AS_BYTES))
        return [self._records[start:end].view(RECORD)[PLACE].tolist() for start, end in zip(starts, ends, strict=True)]

    @property
    def merged(self) -> int:
        """Number of items that become part of another corpus's item."""
        records = self._records.view(RECORD)
        first, _ = _outer_corpora(records)
        return int(np.count_nonzero(records["corpus"] != first))


def _outer_corpora(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of these sorted records, the first and the last corpus that has its content."""
    _, starts, counts = np.unique(records["content"], return_index=True, return_counts=True)
    first, last = (np.repeat(records["corpus"][rows], counts) for rows in (starts, starts + counts - 1))
    return first, last


def shared_contents(corpora: Sequence[Path], folder: Path, stamp: str) -> SharedContents:
    """Open the index of these corpora in `folder`, building it where none with this stamp is there.

    Processes take turns: the first one builds it, the others find it complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stamp}.npy"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            for outdated in folder.glob("*.npy"):
                outdated.unlink()
            with atomic_writer(path) as stream:
                np.save(stream, _shared_records(corpora).view(AS_BYTES))
    return SharedContents(path)


def _shared_records(corpora: Sequence[Path]) -> np.ndarray:
    """Sorted records of the items whose content several corpora have."""
    parts = [np.empty(0, AS_BYTES)]
    for number, corpus in enumerate(corpora):
        table = Table(corpus, "items")
        for shard in range(table.num_shards):
            hashes = table.shard(shard)["sha256"]
            rows = np.flatnonzero(hashes.to_numpy() != "")  # an item without media is like no other
            records = np.empty(len(rows), RECORD)
            records["content"] = np.frombuffer(bytes.fromhex("".join(hashes.to_pylist())), "S32")
            records["corpus"], records["shard"], records["row"] = number, shard, rows
            parts.append(records.view(AS_BYTES))
    everything = np.sort(np.concatenate(parts)).view(RECORD)
    first, last = _outer_corpora(everything)
    shared: np.ndarray = everything[first != last]
    return shared


class Merge:
    """Finds, for the items of a shard, the items of all corpora that they are made from. Safe to call from threads."""

    def __init__(self, corpora: Sequence[Path], shared: SharedContents):
        self._names = [corpus.name for corpus in corpora]
        self._shared = shared
        self._tables = [
            {name: Table(corpus, name) for name in ("items", *TEXTS) if complete(corpus, name)} for corpus in corpora
        ]
        self._shards = functools.lru_cache(OPEN_SHARDS)(self._open_shards)

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
        for number, (row, places) in enumerate(zip(rows, self._shared.find(hashes), strict=True)):
            first = places[0] if places else (corpus, shard, number)
            parts = []
            if first[0] == corpus:
                parts.append(Source(f"{self._names[corpus]}/", row, joined.get(row["item_id"], {})))
            if first == (corpus, shard, number):
                parts += [self._source(*place) for place in places if place[0] != corpus]
            sources.append(parts)
        return sources

    def _source(self, corpus: int, shard: int, row: int) -> Source:
        """An item of another corpus with its texts."""
        tables = self._shards(corpus, shard)
        item = tables["items"].slice(row, 1).to_pylist()[0]
        texts = {
            name: table.filter(pc.equal(table["item_id"], item["item_id"])).to_pylist()
            for name, table in tables.items()
            if name != "items"
        }
        return Source(f"{self._names[corpus]}/", item, texts)

    def _open_shards(self, corpus: int, shard: int) -> dict[str, pa.Table]:
        # Without a checksum: each is compared when the shard itself is packed, in this run or in one before.
        return {name: table.shard(shard) for name, table in self._tables[corpus].items()}
