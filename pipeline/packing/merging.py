"""Merging of corpora: items with the same content become one item, found in an index on disk.

    items of all corpora → records sorted by content → those whose content several corpora have

The index is memory-mapped, so worker processes share it; building it takes some 150 bytes of memory an item. Splits
play no role: a content lies in one split only, see `packing.leaks`. Arrays end in their shape: R records.
"""

import fcntl
import functools
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import Table, atomic_writer, complete
from pipeline.engine.stage import Grouped, Rows
from pipeline.packing.manifest import JOINED
from pipeline.packing.rows import Source

OPEN_SHARDS = 64  # memory-mapped at once
CONTENTS, PLACES = "contents.npy", "places.npy"


class SharedContents:
    """The contents that two corpora or more have, opened for reading."""

    def __init__(self, folder: Path):
        self._contents_R = np.load(folder / CONTENTS, mmap_mode="r")
        self._places_R3 = np.load(folder / PLACES, mmap_mode="r")

    def find(self, hashes: np.ndarray) -> list[list[list[int]]]:
        """For each hash (`S32`), the sorted [corpus, shard, row] of all items with it; [] where one corpus has it."""
        starts, ends = (np.searchsorted(self._contents_R, hashes, side) for side in ("left", "right"))
        return [self._places_R3[start:end].tolist() for start, end in zip(starts, ends, strict=True)]

    @property
    def merged(self) -> int:
        """Number of items that become part of another corpus's item."""
        corpora_R = self._places_R3[:, 0]
        first_R, _ = _outer_corpora(self._contents_R, corpora_R)
        return int(np.count_nonzero(corpora_R != first_R))


def _outer_corpora(contents_R: np.ndarray, corpora_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of these sorted records, the first and the last corpus that has its content."""
    _, starts, counts = np.unique(contents_R, return_index=True, return_counts=True)
    return np.repeat(corpora_R[starts], counts), np.repeat(corpora_R[starts + counts - 1], counts)


def shared_contents(corpora: Sequence[Path], folder: Path, stamp: str) -> SharedContents:
    """Open the index of these corpora in `folder`, building it where none with this stamp is there.

    Processes take turns: the first one builds it, the others find it complete.
    """
    index = folder / stamp
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (index / CONTENTS).exists():  # the file that is written last
            for outdated in folder.glob("*/"):
                shutil.rmtree(outdated)
            index.mkdir()
            contents_R, places_R3 = _shared_records(corpora)
            for name, records in ((PLACES, places_R3), (CONTENTS, contents_R)):
                with atomic_writer(index / name) as stream:
                    np.save(stream, records)
    return SharedContents(index)


def _shared_records(corpora: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and places (corpus, shard, row) of the items whose content several corpora have, sorted."""
    contents = [np.empty(0, "S32")]
    places = [np.empty((0, 3), np.uint32)]
    for number, corpus in enumerate(corpora):
        table = Table(corpus, "items")
        for shard in range(table.num_shards):
            hashes = table.shard(shard)["sha256"]
            rows = np.flatnonzero(hashes.to_numpy() != "")  # an item without media is like no other
            contents.append(np.frombuffer(bytes.fromhex("".join(hashes.to_pylist())), "S32"))
            places.append(np.array([(number, shard, row) for row in rows], np.uint32).reshape(-1, 3))
    contents_R, places_R3 = np.concatenate(contents), np.concatenate(places)
    order = np.argsort(contents_R, kind="stable")  # within a content, places stay sorted
    contents_R, places_R3 = contents_R[order], places_R3[order]
    first_R, last_R = _outer_corpora(contents_R, places_R3[:, 0])
    return contents_R[first_R != last_R], places_R3[first_R != last_R]


class Merge:
    """Finds, for the items of a shard, the items of all corpora that they are made from. Safe to call from threads."""

    def __init__(self, corpora: Sequence[Path], shared: SharedContents):
        self._names = [corpus.name for corpus in corpora]
        self._shared = shared
        self._tables = [{name: Table(corpus, name) for name in JOINED if complete(corpus, name)} for corpus in corpora]
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
            first = places[0] if places else [corpus, shard, number]
            parts = []
            if first[0] == corpus:
                parts.append(Source(f"{self._names[corpus]}/", row, joined.get(row["item_id"], {})))
            if first == [corpus, shard, number]:
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
