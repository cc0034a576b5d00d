"""The items of several corpora by their content, in a temporary SQLite table, so that memory stays flat."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from pipeline.corpus.table import Table


def read_contents(corpora: Sequence[Path]) -> sqlite3.Connection:
    """The table `items` (content, corpus, shard, row, split) of all items that have media; corpora are numbered."""
    database = sqlite3.connect("")
    database.execute("CREATE TABLE items (content BLOB, corpus INTEGER, shard INTEGER, row INTEGER, split TEXT)")
    for number, corpus in enumerate(corpora):
        table = Table(corpus, "items")
        for shard in range(table.num_shards):
            items = table.shard(shard).select(["sha256", "split"]).to_pylist()
            rows = (
                (bytes.fromhex(item["sha256"]), number, shard, row, item["split"])
                for row, item in enumerate(items)
                if item["sha256"]  # an item without media is like no other
            )
            database.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?)", rows)
    return database
