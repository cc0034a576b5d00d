"""Leak check: no content of a held-out split in another split, of one corpus or of several packed together.

Every split except `train` is held out. Only held-out items are kept in memory, some 400 bytes each; training items are
read shard by shard.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import Table
from pipeline.errors import UsageError

TRAIN = "train"
MAX_EXAMPLES = 3


def refuse_leaks(corpora: Sequence[Path]) -> None:
    """Raise UsageError if items of different splits have the same content; it names the first few and their number.

    The first held-out item with a content decides its split. Every item with that content in another split is a leak.
    """
    leaks = _leaks(corpora)
    examples = list(itertools.islice(leaks, MAX_EXAMPLES))
    if examples:
        num_others = sum(1 for _ in leaks)
        raise UsageError(
            f"{len(examples) + num_others:,} item(s) have the content of an item that is held out in another split: "
            f"{'; '.join(examples)}{'; …' if num_others else ''}. Remove one of them (or put both in one split), then "
            "run --stage ingest --overwrite"
        )


def _leaks(corpora: Sequence[Path]) -> Iterator[str]:
    """Describe each item that has the content of a held-out item of another split."""
    held_out: dict[str, tuple[str, str]] = {}  # split and description of the first item with each content
    for place, items in _item_shards(corpora):
        for item in items.filter(pc.not_equal(items["split"], TRAIN)).to_pylist():
            split, twin = held_out.setdefault(item["sha256"], (item["split"], _locate(place, item)))
            if split != item["split"]:
                yield f"{_locate(place, item)} is the same as {twin}"
    contents = pa.array(held_out, pa.string())
    for place, items in _item_shards(corpora):
        is_leak = pc.and_(pc.equal(items["split"], TRAIN), pc.is_in(items["sha256"], contents))
        for item in items.filter(is_leak).to_pylist():
            yield f"{_locate(place, item)} is the same as {held_out[item['sha256']][1]}"


def _item_shards(corpora: Sequence[Path]) -> Iterator[tuple[str, pa.Table]]:
    """The prefix of a corpus's ids, and its items with media: items without media have no content to compare."""
    for corpus in corpora:
        table = Table(corpus, "items")
        for index in range(table.num_shards):
            items = table.shard(index).select(["item_id", "uri", "sha256", "split"])
            yield f"{corpus.name}/" if len(corpora) > 1 else "", items.filter(pc.not_equal(items["sha256"], ""))


def _locate(place: str, item: dict[str, Any]) -> str:
    return f"{item['split']} item {place}{item['item_id']} at {item['uri']}"
