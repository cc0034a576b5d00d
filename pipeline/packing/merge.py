"""Items of several corpora with the same content as one: found in the index, read from the shards they lie in."""

import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.corpus.table import Table, complete
from pipeline.engine.stage import Grouped, Rows
from pipeline.packing.merging import SharedContents
from pipeline.packing.rows import Source

OPEN_SHARDS = 64  # memory-mapped, with the numbers of their rows by item
TEXTS = ("captions", "descriptions", "translations")


class Merge:
    """Says for the items of a shard from which items of all corpora they are made. Called from several threads."""

    def __init__(self, corpora: Sequence[Path], shared: SharedContents):
        self._corpora, self._shared = corpora, shared
        self._lock = threading.Lock()
        self._tables = [
            {name: Table(corpus, name) for name in ("items", *TEXTS) if complete(corpus, name)} for corpus in corpora
        ]
        self._checked: set[tuple[int, int]] = set()
        self._open = functools.lru_cache(OPEN_SHARDS)(self._opened)

    def sources(self, number: int, shard: int, rows: Rows, joined: Grouped) -> list[list[Source]]:
        """For each item of shard `shard` of corpus `number`: itself and the items of later corpora that it takes in;
        none where an item of an earlier corpus takes in this one.

        Of several items of one corpus with the content, the first one takes in all; within a corpus nothing is merged.
        """
        digests = np.array([bytes.fromhex(row["sha256"]) for row in rows], "S32")
        found: list[list[Source]] = []
        wanted: list[tuple[int, int, int, int]] = []  # corpus, shard, row; the item that takes it in
        for at, (row, places) in enumerate(zip(rows, self._shared.find(digests), strict=True)):
            first = tuple(places[0].tolist()) if len(places) else (number, shard, at)
            if first[0] != number:
                found.append([])
                continue
            found.append([Source(self._prefix(number), row, joined.get(row["item_id"], {}))])
            if first == (number, shard, at):
                wanted += [(*place, at) for place in places.tolist() if place[0] != number]
        with self._lock:
            for corpus, other, row_number, at in sorted(wanted):  # so each shard is opened once
                found[at].append(self._open(corpus, other).source(row_number))
        return found

    def _prefix(self, number: int) -> str:
        return f"{self._corpora[number].name}/"

    def _opened(self, number: int, shard: int) -> "_Shard":
        check = (number, shard) not in self._checked  # the checksum once a process
        tables = {name: table.shard(shard, check) for name, table in self._tables[number].items()}
        self._checked.add((number, shard))
        return _Shard(self._prefix(number), tables)


class _Shard:
    """A shard of another corpus: its tables mapped into memory, and by table the numbers of each item's rows."""

    def __init__(self, prefix: str, tables: Mapping[str, pa.Table]):
        self._prefix = prefix
        self._items = tables["items"]
        self._texts = {name: table for name, table in tables.items() if name != "items"}
        self._rows: dict[str, dict[str, list[int]]] = {}
        for name, table in self._texts.items():
            numbers = self._rows[name] = {}
            for row, item_id in enumerate(table["item_id"].to_pylist()):
                numbers.setdefault(item_id, []).append(row)

    def source(self, row: int) -> Source:
        item: dict[str, Any] = self._items.slice(row, 1).to_pylist()[0]
        texts = {
            name: table.take(self._rows[name].get(item["item_id"], [])).to_pylist()
            for name, table in self._texts.items()
            if item["item_id"] in self._rows[name]
        }
        return Source(self._prefix, item, texts)
