"""Which items of several corpora have the same content: an index on disk, made and read in memory that stays flat.

    items of all corpora → 256 buckets by the first byte of sha256 → each sorted → what two corpora or more have

`keys` has the hashes, sorted, 32 bytes each; `places` says beside each of them where its item lies. Both are
memory-mapped, so that worker processes share them. Splits need no telling apart: one content lies in one split only,
see `packing.leaks`.
"""

import contextlib
import fcntl
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.corpus.table import Table, atomic_writer, read_json, write_json
from pipeline.packing.leaks import PLACE, hashes, with_content

BUCKETS = 256
RECORD = np.dtype([("key", "S32"), ("place", PLACE)])
INDEX = "index.json"


class SharedContents:
    """The index, opened for reading."""

    def __init__(self, folder: Path):
        index = read_json(folder / INDEX)
        self.merged: int = index["merged"]  # items that become part of another corpus' item
        self.keys, self.places = np.empty(0, "S32"), np.empty(0, PLACE)
        if index["rows"]:
            self.keys = np.memmap(folder / "keys", "S32", "r")
            self.places = np.memmap(folder / "places", PLACE, "r")

    def find(self, wanted: np.ndarray) -> list[np.ndarray]:
        """For each hash, the places of all items with that content, in order; none where one corpus alone has it."""
        left, right = (np.searchsorted(self.keys, wanted, side) for side in ("left", "right"))
        return [self.places[start:end] for start, end in zip(left, right, strict=True)]


def shared_contents(corpora: Sequence[Path], folder: Path, stamp: str) -> SharedContents:
    """The index of these corpora in `folder`, made if it is not there with this stamp. Processes take turns: the
    first one makes it, the others find it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (read_json(folder / INDEX) or {}).get("stamp") != stamp:
            (folder / INDEX).unlink(missing_ok=True)
            rows, merged = _build(corpora, folder)
            write_json(folder / INDEX, {"stamp": stamp, "rows": rows, "merged": merged})
    return SharedContents(folder)


def _build(corpora: Sequence[Path], folder: Path) -> tuple[int, int]:
    """(rows of the index, items merged into those of an earlier corpus)."""
    buckets = folder / "buckets"
    shutil.rmtree(buckets, ignore_errors=True)
    buckets.mkdir()
    _scatter(corpora, buckets)
    rows = merged = 0
    with atomic_writer(folder / "keys") as keys, atomic_writer(folder / "places") as places:
        for bucket in range(BUCKETS):
            found, more = _shared(np.fromfile(buckets / f"{bucket:02x}", RECORD))
            keys.write(found["key"].tobytes())
            places.write(found["place"].tobytes())
            rows, merged = rows + len(found), merged + more
    shutil.rmtree(buckets)
    return rows, merged


def _scatter(corpora: Sequence[Path], folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context((folder / f"{bucket:02x}").open("wb")) for bucket in range(BUCKETS)]
        for number, corpus in enumerate(corpora):
            table = Table(corpus, "items")
            for index in range(table.num_shards):
                items = table.shard(index).select(["sha256"])
                rows = np.flatnonzero(with_content(items))
                keys = hashes(items.take(rows))
                records = np.zeros(len(keys), RECORD)
                records["key"], records["place"]["row"] = keys, rows
                records["place"]["corpus"], records["place"]["shard"] = number, index
                first_bytes = keys.view(np.uint8)[::32] if len(keys) else np.empty(0, np.uint8)
                order = np.argsort(first_bytes, kind="stable")
                found, starts = np.unique(first_bytes[order], return_index=True)
                for bucket, part in zip(found, np.split(records[order], starts[1:]), strict=False):
                    files[bucket].write(part.tobytes())


def _shared(records: np.ndarray) -> tuple[np.ndarray, int]:
    """Of one bucket, sorted by content and place, what several corpora have; how many lie not in the first of them."""
    if not len(records):
        return records, 0
    records = records[np.argsort(records["key"], kind="stable")]
    keys, corpus = records["key"], records["place"]["corpus"]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    lengths = np.diff(np.append(starts, len(records)))
    first = np.repeat(corpus[starts], lengths)
    shared = np.repeat(corpus[starts + lengths - 1] != corpus[starts], lengths)
    return records[shared], int(np.count_nonzero(corpus != first))
