"""What has changed in a collection since it was planned, and the plan that takes the changes in.

An item keeps its shard for as long as it exists, also under another name. New items fill the last shard, then further
ones. So a change costs the shards that it touches, and the rows that were made of an item are found where they were.
"""

import itertools
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.corpus import shards
from pipeline.corpus.table import Table, read_json, read_shard, state_folder
from pipeline.errors import MediaError
from pipeline.hashing import canonical_json, short_hash, stream_hash
from pipeline.media.uri import open_media
from pipeline.storage.files import in_parallel

SCHEMA = """
CREATE TABLE new (number INTEGER PRIMARY KEY, id TEXT UNIQUE, uri TEXT, stamp TEXT, texts TEXT, row TEXT);
CREATE TABLE old (id TEXT PRIMARY KEY, shard INTEGER, place INTEGER, stamp TEXT, texts TEXT, sha256 TEXT,
                  now TEXT, changed INTEGER DEFAULT 0);
CREATE INDEX by_shard ON old (shard, place);
"""
HASHED_AT_ONCE = 1_000  # files whose hashes are in memory


class Changes:
    """The present input, compared with the plan of a corpus.

    It is kept in a temporary file, because neither has to fit into memory.

    Args:
        corpus: The corpus.
        rows: The rows that a new plan would have, with their `stamp`.
        by_content: Whether files that may have changed are read. Otherwise size and time of change decide.
    """

    def __init__(self, corpus: Path, rows: Iterable[dict[str, Any]], by_content: bool):
        self._database = sqlite3.connect("")
        self._database.executescript(SCHEMA)
        new = ((row["item_id"], row["uri"], row["stamp"], _texts(row), json.dumps(row)) for row in rows)
        self._execute_many("INSERT OR IGNORE INTO new (id, uri, stamp, texts, row) VALUES (?, ?, ?, ?, ?)", new)
        self.num_shards, old = _planned_items(corpus, by_content)
        self._execute_many("INSERT INTO old (shard, place, id, stamp, texts, sha256) VALUES (?, ?, ?, ?, ?, ?)", old)
        self._database.execute("UPDATE old SET now = id WHERE id IN (SELECT id FROM new)")
        self._mark_changed(by_content)
        self._mark_renamed(by_content)

    def _execute_many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self._database:
            self._database.executemany(statement, rows)

    def _mark_changed(self, by_content: bool) -> None:
        unlike = "FROM old JOIN new ON new.id = old.id WHERE new.stamp != '' AND new.stamp != old.stamp"
        if by_content:
            rows = _hashed(self._database.execute(f"SELECT new.id, new.uri, old.sha256 {unlike}"))
            changed = [(item_id,) for item_id, content, before in rows if content != before]
        else:
            changed = self._database.execute(f"SELECT old.id {unlike} AND old.stamp != ''").fetchall()
        self._execute_many("UPDATE old SET changed = 1 WHERE id = ?", changed)

    def _mark_renamed(self, by_content: bool) -> None:
        gone: dict[str, list[str]] = defaultdict(list)  # by what identifies their content
        sizes = set()
        for item_id, content, stamp in self._database.execute("SELECT id, sha256, stamp FROM old WHERE now IS NULL"):
            gone[content if by_content else stamp].append(item_id)
            sizes.add(_size(stamp))
        added = self._database.execute("SELECT id, uri, stamp FROM new WHERE id NOT IN (SELECT id FROM old)")
        alike = (row for row in added if gone and row[2] and (_size(row[2]) in sizes or "" in sizes))
        pairs = [
            (item_id, gone[content].pop(0))
            for item_id, content, stamp in (_hashed(alike) if by_content else ((i, s, s) for i, _, s in alike))
            if content and gone.get(content)
        ]
        self._execute_many("UPDATE old SET now = ? WHERE id = ?", pairs)

    def _count(self, what: str) -> int:
        return int(self._database.execute(f"SELECT COUNT(*) FROM {what}").fetchone()[0])  # noqa: S608

    def __str__(self) -> str:
        """The changes in words, "" if there are none: `+12 new, 3 changed, 2 renamed, 1 gone`."""
        with_texts = "old JOIN new ON new.id = old.now WHERE NOT changed AND old.texts != ''"
        counts = {
            "+{:,} new": self._count("new") - self._count("old WHERE now IS NOT NULL"),
            "{:,} changed": self._count("old WHERE changed"),
            "{:,} renamed": self._count("old WHERE now != id"),
            "{:,} gone": self._count("old WHERE now IS NULL"),
            "{:,} with other captions": self._count(f"{with_texts} AND old.texts != new.texts"),
        }
        return ", ".join(words.format(count) for words, count in counts.items() if count)

    def parts(self, shard_size: int) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
        """The shards of the new plan.

        Yields:
            The rows of a shard, and what its old rows must go through to be used again: `renamed`, the new ids by the
            old ones, and `changed`, the ids whose content is another. Both are left out where there are none.
        """
        added = self._database.execute(
            "SELECT row FROM new WHERE id NOT IN (SELECT now FROM old WHERE now IS NOT NULL) ORDER BY number"
        )
        for shard in range(self.num_shards):
            kept = self._database.execute(
                "SELECT row, old.id, now, changed FROM old JOIN new ON new.id = now WHERE shard = ? ORDER BY place",
                (shard,),
            ).fetchall()
            rows = [json.loads(row) for row, *_ in kept]
            if shard == self.num_shards - 1:
                rows += [json.loads(row) for (row,) in added.fetchmany(max(0, shard_size - len(rows)))]
            renamed = {before: now for _, before, now, _ in kept if before != now}
            changed = [now for _, _, now, is_changed in kept if is_changed]
            yield rows, {name: value for name, value in (("renamed", renamed), ("changed", changed)) if value}
        while more := added.fetchmany(shard_size):
            yield [json.loads(row) for (row,) in more], {}


def _texts(row: dict[str, Any]) -> str:
    return short_hash(canonical_json([row["captions"], row["split"], row["license"]]))


def _size(stamp: str) -> str:
    return stamp.partition(" ")[0]


def _hashed(rows: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, str, str]]:
    """Each row with the hash of its file, "" if it cannot be read, in place of the URI."""
    rows = iter(rows)
    while part := list(itertools.islice(rows, HASHED_AT_ONCE)):
        for (item_id, _, last), content in zip(part, in_parallel(content_hash, (row[1] for row in part)), strict=True):
            yield item_id, content, last


def content_hash(uri: str) -> str:
    """SHA-256 of the bytes behind a URI, "" if they cannot be read."""
    try:
        with open_media(uri) as stream:
            return stream_hash(stream)
    except MediaError:
        return ""


def _planned_items(corpus: Path, with_hashes: bool) -> tuple[int, Iterator[tuple[Any, ...]]]:
    """The number of shards, and of each item shard, place, id, stamp, texts and hash; "" is unknown.

    A corpus that came without its `.state` has only what its table says.
    """
    folder = state_folder(corpus) / shards.PLAN
    plan = read_json(folder / "plan.json")
    num_shards = len(plan["shards"]) if plan else Table(corpus, "items").num_shards

    def rows() -> Iterator[tuple[Any, ...]]:
        for index in range(num_shards):
            made = shards.parent_entry(corpus, "items", index) if with_hashes or not plan else None
            items = read_shard(made[0]).select(["item_id", "sha256"]).to_pylist() if made else []
            hashes = {item["item_id"]: item["sha256"] for item in items}
            entry = shards.parent_entry(corpus, shards.PLAN, index)
            planned = read_shard(entry[0], remedy="run --stage ingest with --overwrite").to_pylist() if entry else items
            stamps = read_json(shards.stamps_path(corpus, index)) or [""] * len(planned)
            for place, (row, stamp) in enumerate(zip(planned, stamps, strict=True)):
                texts = _texts(row) if entry else ""
                yield index, place, row["item_id"], stamp, texts, hashes.get(row["item_id"], "")

    return num_shards, rows()
