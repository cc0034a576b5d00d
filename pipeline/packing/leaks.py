"""Leak check: no content of a held-out split in another split, of one corpus or of several packed together.

Held out is every split but `train`. Only the records of held-out items are kept in memory, 46 bytes each; training
items are read shard by shard.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.corpus.table import Table
from pipeline.errors import UsageError

TRAIN = "train"
MAX_EXAMPLES = 3
# Numbers are big-endian and come after the content, so that records sort as bytes: by content, then split, then place.
RECORD = np.dtype([("content", "S32"), ("split", ">u2"), ("corpus", ">u4"), ("shard", ">u4"), ("row", ">u4")])
AS_BYTES = f"S{RECORD.itemsize}"


def content_hashes(items: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers and 32-byte hashes of the items that have media; an item without media is like no other."""
    rows = np.flatnonzero(items["sha256"].to_numpy() != "")
    return rows, np.frombuffer(bytes.fromhex("".join(items["sha256"].to_pylist())), "S32")


def content_records(corpora: Sequence[Path], held_out: bool | None = None) -> Iterator[np.ndarray]:
    """Yield one array of records for each `items` shard, corpus after corpus.

    Args:
        corpora: Corpus folders; a record holds a corpus by its position here.
        held_out: Restrict to items that are held out (True) or of the training split (False).
    """
    splits = {TRAIN: 0}
    for number, corpus in enumerate(corpora):
        table = Table(corpus, "items")
        for shard in range(table.num_shards):
            items = table.shard(shard).select(["sha256", "split"])
            rows, hashes = content_hashes(items)
            records = np.zeros(len(rows), RECORD)
            records["content"], records["row"] = hashes, rows
            records["corpus"], records["shard"] = number, shard
            names = items["split"].to_numpy()[rows]
            records["split"] = [splits.setdefault(name, len(splits)) for name in names]
            yield records if held_out is None else records[(records["split"] != 0) == held_out]


def refuse_leaks(corpora: Sequence[Path]) -> None:
    """Raise UsageError, with their number and the first few, if items of two splits share a content.

    Of a content, every training item counts, and every held-out item that is not in the split that comes first.
    """
    parts = [records.view(AS_BYTES) for records in content_records(corpora, held_out=True)]
    held_out = np.sort(np.concatenate([np.empty(0, AS_BYTES), *parts])).view(RECORD)
    if not len(held_out):
        return
    contents = np.ascontiguousarray(held_out["content"])
    starts = np.concatenate([[True], contents[1:] != contents[:-1]])
    first = np.maximum.accumulate(np.where(starts, np.arange(len(starts)), 0))  # of the same content
    leaks = np.flatnonzero(held_out["split"] != held_out["split"][first])
    total, examples = len(leaks), [(held_out[row], held_out[first[row]]) for row in leaks[:MAX_EXAMPLES]]
    for records in content_records(corpora, held_out=False):
        nearest = np.minimum(np.searchsorted(contents, records["content"]), len(contents) - 1)
        leaks = np.flatnonzero(contents[nearest] == records["content"])
        total += len(leaks)
        examples += [(records[row], held_out[nearest[row]]) for row in leaks[: MAX_EXAMPLES - len(examples)]]
    if total:
        listed = "; ".join(_describe(corpora, record, twin) for record, twin in examples)
        raise UsageError(
            f"{total:,} item(s) have the content of an item that is held out in another split: {listed}"
            f"{'; …' if total > len(examples) else ''}. Remove one of them (or put both in one split), then run "
            "--stage ingest --overwrite"
        )


def _describe(corpora: Sequence[Path], record: Any, twin: Any) -> str:
    kind = "picture" if _item(corpora, record)["media_type"] == "image" else "video"
    return f"{_locate(corpora, record)} is the same {kind} as {_locate(corpora, twin)}"


def _item(corpora: Sequence[Path], record: Any) -> dict[str, Any]:
    shard = Table(corpora[record["corpus"]], "items").shard(int(record["shard"]))
    item: dict[str, Any] = shard.slice(int(record["row"]), 1).to_pylist()[0]
    return item


def _locate(corpora: Sequence[Path], record: Any) -> str:
    item = _item(corpora, record)
    prefix = f"{corpora[record['corpus']].name}/" if len(corpora) > 1 else ""
    return f"{item['split']} item {prefix}{item['item_id']} at {item['uri']}"
