"""Merging of corpora: items with the same content become one item, found in an index on disk.

    items of all corpora → those whose content several corpora have, in an SQLite file that worker processes share

Splits play no role: a content lies in one split only, see `packing.leaks`.
"""

import contextlib
import fcntl
import functools
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import Table, complete
from pipeline.engine.stage import Grouped, Rows
from pipeline.packing.contents import read_contents
from pipeline.packing.manifest import JOINED
from pipeline.packing.rows import Source

OPEN_SHARDS = 64  # memory-mapped at once
WRITE = """
CREATE TABLE index_file.places AS SELECT content, corpus, shard, row FROM items
    WHERE content IN (SELECT content FROM items GROUP BY content HAVING MIN(corpus) != MAX(corpus));
CREATE INDEX index_file.by_content ON places (content, corpus, shard, row);
"""
FIND = "SELECT corpus, shard, row FROM places WHERE content = ? ORDER BY corpus, shard, row"
COUNT_MERGED = """
SELECT COUNT(*) FROM places AS place
WHERE corpus > (SELECT MIN(corpus) FROM places WHERE content = place.content)
"""

Place = tuple[int, int, int]  # numbers of the corpus, the shard and the row


class SharedContents:
    """The contents that two corpora or more have, opened for reading."""

    def __init__(self, index: Path):
        self._database = sqlite3.connect(index, check_same_thread=False)

    @property
    def merged(self) -> int:
        """How many items become part of another corpus's item."""
        return int(self._database.execute(COUNT_MERGED).fetchone()[0])

    def find(self, content: bytes) -> list[Place]:
        """The sorted places of all items with this content; [] where one corpus has it."""
        return self._database.execute(FIND, (content,)).fetchall()


def shared_contents(corpora: Sequence[Path], folder: Path, stamp: str) -> SharedContents:
    """Open the index of these corpora in `folder`, building it where none with this stamp is there.

    Processes take turns: the first one builds it, the others find it complete.
    """
    index, unfinished = folder / f"{stamp}.sqlite", folder / "unfinished"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not index.exists():
            for outdated in (*folder.glob("*.sqlite"), *folder.glob("unfinished*")):
                outdated.unlink()
            with contextlib.closing(read_contents(corpora)) as database:
                database.commit()
                database.execute("ATTACH ? AS index_file", (str(unfinished),))
                database.executescript(WRITE)
            unfinished.rename(index)
    return SharedContents(index)


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
        sources: list[list[Source]] = []
        for number, row in enumerate(rows):
            places = self._shared.find(bytes.fromhex(row["sha256"]))
            first = places[0] if places else (corpus, shard, number)
            parts = []
            if first[0] == corpus:
                parts.append(Source(f"{self._names[corpus]}/", row, joined.get(row["item_id"], {})))
            if first == (corpus, shard, number):
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
