"""Items by their content, of one corpus or of several packed together: leaks between splits, and what is merged.

    contents of all items, in a temporary SQLite table → refused where a held-out one is in another split
    → those that several corpora have, in an SQLite file that worker processes share → items of one content are one item

Every split except `train` is held out.
"""

import contextlib
import fcntl
import functools
import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import Table, complete
from pipeline.engine.stage import Grouped, Rows
from pipeline.errors import UsageError
from pipeline.packing.manifest import JOINED
from pipeline.packing.rows import Source

TRAIN = "train"
MAX_EXAMPLES = 3
MIXED = """
SELECT content, corpus, shard, row, split FROM items
WHERE content IN (SELECT content FROM items GROUP BY content HAVING MIN(split) != MAX(split))
ORDER BY content, corpus, shard, row
"""

Record = tuple[bytes, int, int, int, str]
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
