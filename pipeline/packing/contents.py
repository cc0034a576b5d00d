"""The items of several corpora in the order of their contents, sorted on disk, so that memory stays flat."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.corpus.table import Table

PLACE = ("corpus", "shard", "row")  # numbers
RECORD = np.dtype([("content", "S32"), *((name, "u4") for name in PLACE), ("split", "u4")])
PARTS = 64  # of all contents, by their first six bits; one part is in memory at a time


def sorted_contents(corpora: Sequence[Path], folder: Path | None, splits: dict[str, int]) -> Iterator[np.ndarray]:
    """Sort the items that have media by their content, and those of the same content by their place.

    Args:
        corpora: The corpora.
        folder: Where 48 bytes for each item are written while they are sorted; the system's folder if None.
        splits: Numbers of splits; those that are missing are added.

    Yields:
        Arrays of RECORD, never empty. All records of a content are in the same array.
    """
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(PARTS)]
        for number, corpus in enumerate(corpora):
            table = Table(corpus, "items")
            for shard in range(table.num_shards):
                items = table.shard(shard).select(["sha256", "split"])
                hashes = items["sha256"].to_pylist()
                rows = np.flatnonzero(np.array(hashes, object) != "")  # an item without media is like no other
                hashes_R32 = np.frombuffer(bytes.fromhex("".join(hashes)), "u1").reshape(-1, 32)
                numbers = [splits.setdefault(split, len(splits)) for split in items["split"].to_pylist()]
                records = np.empty(len(rows), RECORD)
                records["content"] = hashes_R32.view("S32")[:, 0]
                records["corpus"], records["shard"], records["row"] = number, shard, rows
                records["split"] = np.array(numbers, "u4")[rows]
                parts_R = hashes_R32[:, 0] // (256 // PARTS)
                for part in np.unique(parts_R):
                    files[part].write(records[parts_R == part].tobytes())
        for file in files:
            file.seek(0)
            records = np.frombuffer(file.read(), RECORD)
            if len(records):
                yield records[np.argsort(records["content"], kind="stable")]
