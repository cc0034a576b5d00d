"""Leak check: no content of a held-out split in another split, of one corpus or of several packed together.

Every split except `train` is held out.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.corpus.table import Table
from pipeline.errors import UsageError
from pipeline.packing.contents import PLACE, sorted_contents

TRAIN = "train"
MAX_EXAMPLES = 3


def refuse_leaks(corpora: Sequence[Path], folder: Path | None = None) -> None:
    """Raise UsageError if items of different splits have the same content; it names a few and their number.

    The first held-out item with a content decides its split. Every item with that content in another split is a leak.

    Args:
        corpora: The corpora.
        folder: Where there is room to sort their contents, see `sorted_contents`.
    """
    leaks = _leaks(corpora, folder)
    examples = [
        f"{_locate(corpora, leak)} is the same as {_locate(corpora, twin)}"
        for leak, twin in itertools.islice(leaks, MAX_EXAMPLES)
    ]
    if examples:
        num_others = sum(1 for _ in leaks)
        raise UsageError(
            f"{len(examples) + num_others:,} item(s) have the content of an item that is held out in another split: "
            f"{'; '.join(examples)}{'; …' if num_others else ''}. Remove one of them (or put both in one split), then "
            "run --stage ingest --overwrite"
        )


def _leaks(corpora: Sequence[Path], folder: Path | None) -> Iterator[tuple[Any, Any]]:
    """Records of the items that have the content of a held-out item of another split, and of that item."""
    splits = {TRAIN: 0}
    for records in sorted_contents(corpora, folder, splits):
        _, starts, counts = np.unique(records["content"], return_index=True, return_counts=True)
        lowest, highest = (extreme.reduceat(records["split"], starts) for extreme in (np.minimum, np.maximum))
        for group in np.flatnonzero(lowest != highest):
            same = records[starts[group] : starts[group] + counts[group]]
            first = same[same["split"] != splits[TRAIN]][0]
            yield from ((record, first) for record in same[same["split"] != first["split"]])


def _locate(corpora: Sequence[Path], record: Any) -> str:
    corpus, shard, row = (int(record[name]) for name in PLACE)
    item = Table(corpora[corpus], "items").shard(shard).slice(row, 1).to_pylist()[0]
    place = f"{corpora[corpus].name}/" if len(corpora) > 1 else ""
    return f"{item['split']} item {place}{item['item_id']} at {item['uri']}"
