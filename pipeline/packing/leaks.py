"""Leak check: no content of a held-out split in another split, of one corpus or of several packed together.

Every split except `train` is held out.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from pipeline.corpus.table import Table
from pipeline.errors import UsageError
from pipeline.packing.contents import read_contents

TRAIN = "train"
MAX_EXAMPLES = 3
MIXED = """
SELECT content, corpus, shard, row, split FROM items
WHERE content IN (SELECT content FROM items GROUP BY content HAVING MIN(split) != MAX(split))
ORDER BY content, corpus, shard, row
"""

Record = tuple[bytes, int, int, int, str]


def refuse_leaks(corpora: Sequence[Path]) -> None:
    """Raise UsageError if items of different splits have the same content; it names a few and their number.

    The first held-out item with a content decides its split. Every item with that content in another split is a leak.
    """
    leaks = _leaks(corpora)
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


def _leaks(corpora: Sequence[Path]) -> Iterator[tuple[Record, Record]]:
    """Records of the items that have the content of a held-out item of another split, and of that item."""
    with contextlib.closing(read_contents(corpora)) as database:
        for _, same in itertools.groupby(database.execute(MIXED), itemgetter(0)):
            records = list(same)
            first = next(record for record in records if record[4] != TRAIN)
            yield from ((record, first) for record in records if record[4] != first[4])


def _locate(corpora: Sequence[Path], record: Record) -> str:
    _, corpus, shard, row, split = record
    item = Table(corpora[corpus], "items").shard(shard).slice(row, 1).to_pylist()[0]
    place = f"{corpora[corpus].name}/" if len(corpora) > 1 else ""
    return f"{split} item {place}{item['item_id']} at {item['uri']}"
