"""`--stage verify`: recompute every checksum and count of a corpus, and report what is wrong with which shard."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.changes import content_hash
from pipeline.corpus.schema import schema_of
from pipeline.corpus.table import (
    FAILURES,
    MADE_BY,
    MANIFEST,
    Table,
    complete,
    manifest_hash,
    mending,
    shard_name,
    shard_problem,
)
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.options import option, read_options
from pipeline.packing.manifest import split_sizes
from pipeline.storage.files import in_parallel, read_ahead
from stages.driver import RunOptions, say

# What must be unique within a table, and so within a shard: shards hold rows of disjoint items.
KEYS = {
    "items": ["item_id"],
    "captions": ["caption_id"],
    "descriptions": ["item_id", "view"],
    "translations": ["caption_id", "target_language"],
    "training": ["item_id"],
    "vectors": ["item_id", "part", "view", "content"],
}

# The ids of texts that are translated, by the table they stand in.
TEXT_IDS: dict[str, Callable[[pa.Table], pa.ChunkedArray]] = {
    "captions": lambda shard: shard["caption_id"],
    "descriptions": lambda shard: pc.binary_join_element_wise(shard["item_id"], shard["view"], "#"),
}


@dataclasses.dataclass(frozen=True)
class VerifyOptions:
    """What is verified, apart from the tables."""

    originals: bool = option(False, "read every original too, and report what is missing or has changed since ingest")


def main(parsed: argparse.Namespace, beam_arguments: list[str]) -> int:
    """Run the stage; returns the exit status."""
    output = read_options(RunOptions, parsed).output
    good, wrong = verify(output)
    if read_options(VerifyOptions, parsed).originals:
        problems = list(original_problems(Table(output, "items")))
        wrong += problems
        good += [] if problems else ["originals: as they were ingested"]
    for line in good:
        say(f"ok: {line}")
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    say(f"{output}: " + (f"{len(wrong)} problem(s)" if wrong else "every checksum and count is right"))
    return 1 if wrong else 0


def verify(corpus: Path) -> tuple[list[str], list[str]]:
    """Recompute every checksum and count of a corpus.

    Returns:
        What is right and what is wrong, a line each.
    """
    names = [name for name in MADE_BY if (corpus / name).is_dir()]
    if not names:
        raise UsageError(f"{corpus} holds no table. Expected a corpus folder with {', '.join(MADE_BY)}")
    good: list[str] = []
    wrong: list[str] = []
    tables: dict[str, Table] = {}  # opened once: a manifest is as long as its table has shards
    for name in names:
        try:
            tables[name] = Table(corpus, name)
        except (UsageError, EnvironmentTrouble) as error:  # its manifest cannot be read
            wrong.append(str(error))
    for name, table in tables.items():
        problems = list(_problems(table, tables))
        wrong += problems
        if not problems:
            failures = f"{table.manifest['failures']:,}" if table.manifest["failures"] else "no"
            good.append(f"{name}: {table.num_rows:,} rows in {table.num_shards:,} shards, {failures} failures")
    return good, wrong


def original_problems(items: Table) -> Iterator[str]:
    """The originals that cannot be read, or are not what was ingested."""
    for index in range(items.num_shards):
        rows = [row for row in items.shard(index).select(["uri", "sha256"]).to_pylist() if row["uri"]]
        for row, content in zip(rows, in_parallel(content_hash, (row["uri"] for row in rows)), strict=True):
            if content != row["sha256"]:
                problem = "has changed since it was ingested" if content else "is missing or cannot be read"
                yield f"{row['uri']} {problem}. --stage update takes in what is there now"


def _problems(table: Table, tables: Mapping[str, Table]) -> Iterator[str]:
    try:
        yield from _table_problems(table, tables)
    except EnvironmentTrouble as error:  # a shard or the failures cannot be read
        yield str(error)


def _table_problems(table: Table, tables: Mapping[str, Table]) -> Iterator[str]:
    corpus, name = table.corpus, table.name
    remedy = f"run --stage {table.manifest['stage']} again"
    remake = f"delete {name}/{MANIFEST} and {remedy}"
    for parent, made_from in table.manifest["parents"].items():
        if "/" in parent:
            continue  # a table of another corpus, which may have moved
        if not complete(corpus, parent):
            yield f"{name} was made from {parent}, which is not complete. Run its stage again"
        elif manifest_hash(corpus, parent) != made_from:
            yield f"{name} was made from another version of {parent}: {remedy}"
    listed = {shard_name(index, table.num_shards) for index in range(table.num_shards)}
    for path in sorted(table.folder.glob("*.arrow")):
        if path.name not in listed:
            yield f"{name}/{path.name} is not in the manifest. Delete it"
    damaged = False

    def check(index: int) -> str | None:
        entry = table.manifest["shards"][index]
        return shard_problem(table.shard_path(index), entry) or _content_problem(table, index, tables)

    for index, problem in enumerate(read_ahead(check, range(table.num_shards))):
        if problem:
            damaged = True
            yield f"{name}/{table.shard_path(index).name} {problem}: {mending(problem, remedy)}"
    splits = table.manifest.get("splits")
    if splits is not None and not damaged and splits != (sizes := split_sizes(table.shard_paths())):
        yield f"{name} has the splits {sizes}, its manifest says {splits}: {remake}"
    failures, expected = len(table.failures()), table.manifest["failures"]
    if failures != expected:
        yield f"{name}/{FAILURES} has {failures:,} lines, its manifest says {expected:,}: {remake}"


def _content_problem(table: Table, index: int, tables: Mapping[str, Table]) -> str | None:
    shard = table.shard(index)
    entry = table.manifest["shards"][index]
    if not shard.schema.equals(schema_of(table.name, table.manifest["settings"])):
        return f"has columns that differ from version {table.manifest['schema_version']} of the table"
    if shard.num_rows != entry["rows"]:
        return f"has {shard.num_rows:,} rows, its manifest says {entry['rows']:,}"
    keys = KEYS[table.name]
    if shard.select(keys).group_by(keys).aggregate([]).num_rows != shard.num_rows:
        return f"holds rows with the same {' and '.join(keys)}"
    if table.name == "items" or (table.name == "training" and "items" not in table.manifest["parents"]):
        return None  # what is packed from other corpora has shards of its own
    return _foreign_rows(tables, table.name, index, shard)


def _foreign_rows(tables: Mapping[str, Table], name: str, index: int, shard: pa.Table) -> str | None:
    """Shard i of every table is of the items in shard i of `items`, and of `translations` of the texts in shard i."""
    ids = {"training" if name == "vectors" else "items": shard["item_id"]}
    if name == "translations":
        for source in TEXT_IDS:
            ids[source] = shard.filter(pc.equal(shard["source_table"], source))["caption_id"]
    for parent, named in ids.items():
        try:
            known = tables[parent].shard(index)
            known_ids = TEXT_IDS[parent](known) if parent in TEXT_IDS else known["item_id"]
        except (EnvironmentTrouble, LookupError):
            continue  # the check of that table reports it
        if num_foreign := pc.sum(pc.invert(pc.is_in(named, value_set=known_ids))).as_py():
            return f"holds {num_foreign:,} rows of {parent} that {parent} shard {index} does not have"
    return None
