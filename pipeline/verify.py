"""`--stage verify`: recompute every checksum and count of a corpus, and say what is wrong with which shard."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import corpus as corpora
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.records import SCHEMAS

# What must be unique within a table, and so within a shard: shards hold rows of disjoint items.
KEYS = {"items": ["item_id"], "captions": ["caption_id"], "descriptions": ["item_id", "view"]}


def verify(corpus: Path) -> tuple[list[str], list[str]]:
    """(what was found right, what was found wrong), a line each."""
    names = corpora.tables(corpus)
    if not names:
        raise UsageError(f"{corpus} holds no table: wanted a corpus folder with {', '.join(SCHEMAS)}")
    good, wrong = [], []
    for name in names:
        problems = list(_table_problems(corpus, name))
        wrong += problems
        if not problems:
            table = corpora.Table(corpus, name)
            good.append(f"{name}: {table.num_rows:,} rows in {table.num_shards:,} shards, {_failed(table)}")
    return good, wrong


def _failed(table: corpora.Table) -> str:
    return f"{table.manifest['failures']:,} failures" if table.manifest["failures"] else "no failures"


def _table_problems(corpus: Path, name: str) -> Iterator[str]:
    try:
        table = corpora.Table(corpus, name)
    except (UsageError, EnvironmentTrouble) as error:
        yield str(error)
        return
    remedy = f"run --stage {table.manifest['stage']} again"
    for parent, expected in table.manifest["parents"].items():
        if not corpora.complete(corpus, parent):
            yield f"{name} was made from {parent}, which is not complete: run its stage again"
        elif corpora.manifest_hash(corpus, parent) != expected:
            yield f"{name} was made from another {parent} than lies here now: {remedy}"
    listed = {corpora.shard_name(index, table.num_shards) for index in range(table.num_shards)}
    for path in sorted(table.folder.glob("*.arrow")):
        if path.name not in listed:
            yield f"{name}/{path.name} is not in the manifest: delete it"
    for index, entry in enumerate(table.manifest["shards"]):
        path = table.shard_path(index)
        problem = corpora.shard_problem(path, entry) or _content_problem(table, index)
        if problem:
            yield f"{name}/{path.name} {problem}: {corpora.mending(problem, remedy)}"
    try:
        failures = len(table.failures())
    except EnvironmentTrouble as error:
        yield str(error)
        return
    if failures != table.manifest["failures"]:
        yield (
            f"{name}/{corpora.FAILURES} has {failures:,} lines, its manifest says {table.manifest['failures']:,}: "
            f"delete {name}/{corpora.MANIFEST} and {remedy}"
        )


def _content_problem(table: corpora.Table, index: int) -> str | None:
    try:
        shard = table.shard(index)
    except EnvironmentTrouble as error:
        return str(error)
    entry = table.manifest["shards"][index]
    if not shard.schema.equals(SCHEMAS[table.name]):
        return f"has other columns than version {table.manifest['schema_version']} of the table"
    if shard.num_rows != entry["rows"]:
        return f"has {shard.num_rows:,} rows, its manifest says {entry['rows']:,}"
    keys = KEYS.get(table.name)
    if keys and shard.group_by(keys).aggregate([]).num_rows != shard.num_rows:
        return f"holds rows with the same {' and '.join(keys)}"
    return None if table.name == "items" else _strangers(table, shard, index)


def _strangers(table: corpora.Table, shard: pa.Table, index: int) -> str | None:
    """Co-partitioning: shard i of every table holds rows of the items in shard i of `items`."""
    try:
        known = corpora.Table(table.corpus, "items").shard(index).column("item_id")
    except (UsageError, EnvironmentTrouble, IndexError):
        return None  # told of where `items` is checked
    strange = pc.sum(pc.invert(pc.is_in(shard.column("item_id"), value_set=known))).as_py() or 0
    return f"holds {strange:,} rows of items that items shard {index} does not have" if strange else None
