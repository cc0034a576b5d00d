"""Merging of corpora: items with the same content become one item, found in an index on disk.

    items of all corpora → records sorted by content → those whose content several corpora have

The index is memory-mapped, so worker processes share it. Splits play no role: a content lies in one split only, see
`packing.leaks`. Arrays end in their shape: R records.
"""

import fcntl
import functools
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import Table, complete, read_json, write_json
from pipeline.engine.stage import Grouped, Rows
from pipeline.packing.contents import PLACE, sorted_contents
from pipeline.packing.manifest import JOINED
from pipeline.packing.rows import Source
from pipeline.storage.files import write_file

OPEN_SHARDS = 64  # memory-mapped at once
CONTENTS, PLACES = "contents.bin", "places.bin"
MERGED = "merged.json"


class SharedContents:
    """The contents that two corpora or more have, opened for reading."""

    def __init__(self, folder: Path):
        self._contents_R = _mapped(folder / CONTENTS, "S32")
        self._places_R3 = _mapped(folder / PLACES, "u4").reshape(-1, 3)
        self.merged: int = read_json(folder / MERGED)  # items that become part of another corpus's item

    def find(self, hashes: np.ndarray) -> list[list[list[int]]]:
        """For each hash (`S32`), the sorted [corpus, shard, row] of all items with it; [] where one corpus has it."""
        starts, ends = (np.searchsorted(self._contents_R, hashes, side) for side in ("left", "right"))
        return [self._places_R3[start:end].tolist() for start, end in zip(starts, ends, strict=True)]


def _mapped(path: Path, dtype: str) -> np.ndarray:
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.empty(0, dtype)  # an empty file cannot be mapped


def shared_contents(corpora: Sequence[Path], folder: Path, stamp: str) -> SharedContents:
    """Open the index of these corpora in `folder`, building it where none with this stamp is there.

    Processes take turns: the first one builds it, the others find it complete.
    """
    index = folder / stamp
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (index / MERGED).exists():  # the file that is written last
            for outdated in folder.glob("*/"):
                shutil.rmtree(outdated)
            index.mkdir()
            merged = 0
            with write_file(index / CONTENTS) as contents, write_file(index / PLACES) as places:
                for records in sorted_contents(corpora, index, {}):
                    shared, first_R = _shared_records(records)
                    contents.write(shared["content"].tobytes())
                    places.write(np.stack([shared[name] for name in PLACE], axis=1).tobytes())
                    merged += int(np.count_nonzero(shared["corpus"] != first_R))
            write_json(index / MERGED, merged)
    return SharedContents(index)


def _shared_records(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of sorted records, those whose content several corpora have, and for each the first corpus that has it."""
    _, starts, counts = np.unique(records["content"], return_index=True, return_counts=True)
    corpora_R = records["corpus"]
    first_R, last_R = (np.repeat(corpora_R[at], counts) for at in (starts, starts + counts - 1))
    return records[first_R != last_R], first_R[first_R != last_R]


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
