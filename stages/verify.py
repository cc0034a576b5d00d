"""`--stage verify`: recompute every checksum and count of a corpus, and report what is wrong with which shard."""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import table as corpora
from pipeline.corpus.schema import SCHEMAS
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.options import read_options
from pipeline.packing.manifest import split_sizes
from stages.driver import RunOptions, say

# What must be unique within a table, and so within a shard: shards hold rows of disjoint items.
KEYS = {
    "items": ["item_id"],
    "captions": ["caption_id"],
    "descriptions": ["item_id", "view"],
    "translations": ["caption_id", "target_language"],
    "training": ["item_id"],
}

# The ids of texts that are translated, by the table they stand in.
SOURCES: dict[str, Callable[[pa.Table], pa.ChunkedArray]] = {
    "captions": lambda shard: shard["caption_id"],
    "descriptions": lambda shard: pc.binary_join_element_wise(shard["item_id"], shard["view"], "#"),
}


def main(parsed: argparse.Namespace, beam_arguments: list[str]) -> int:
    """Run the stage; returns the exit status."""
    output = read_options(RunOptions, parsed).output
    good, wrong = verify(output)
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
    names = [name for name in SCHEMAS if (corpus / name).is_dir()]
    if not names:
        raise UsageError(f"{corpus} holds no table. Expected a corpus folder with {', '.join(SCHEMAS)}")
    good, wrong = [], []
    for name in names:
        problems = list(_problems(corpus, name))
        wrong += problems
        if not problems:
            table = corpora.Table(corpus, name)
            failures = f"{table.manifest['failures']:,}" if table.manifest["failures"] else "no"
            good.append(f"{name}: {table.num_rows:,} rows in {table.num_shards:,} shards, {failures} failures")
    return good, wrong


def _problems(corpus: Path, name: str) -> Iterator[str]:
    try:
        yield from _table_problems(corpora.Table(corpus, name))
    except (UsageError, EnvironmentTrouble) as error:  # its manifest or failures cannot be read
        yield str(error)


def _table_problems(table: corpora.Table) -> Iterator[str]:
    corpus, name = table.corpus, table.name
    remedy = f"run --stage {table.manifest['stage']} again"
    for parent, expected in table.manifest["parents"].items():
        if "/" in parent:
            continue  # a table of another corpus, which may have moved
        if not corpora.complete(corpus, parent):
            yield f"{name} was made from {parent}, which is not complete. Run its stage again"
        elif corpora.manifest_hash(corpus, parent) != expected:
            yield f"{name} was made from another version of {parent}: {remedy}"
    listed = {corpora.shard_name(index, table.num_shards) for index in range(table.num_shards)}
    for path in sorted(table.folder.glob("*.arrow")):
        if path.name not in listed:
            yield f"{name}/{path.name} is not in the manifest. Delete it"
    damaged = False
    for index, entry in enumerate(table.manifest["shards"]):
        path = table.shard_path(index)
        problem = corpora.shard_problem(path, entry) or _content_problem(table, index)
        if problem:
            damaged = True
            yield f"{name}/{path.name} {problem}: {corpora.mending(problem, remedy)}"
    if not damaged and "splits" in table.manifest:
        yield from _split_problems(table, f"delete {name}/{corpora.MANIFEST} and {remedy}")
    failures = len(table.failures())
    if failures != table.manifest["failures"]:
        yield (
            f"{name}/{corpora.FAILURES} has {failures:,} lines, its manifest says {table.manifest['failures']:,}: "
            f"delete {name}/{corpora.MANIFEST} and {remedy}"
        )


def _split_problems(table: corpora.Table, remedy: str) -> Iterator[str]:
    """Compare the sizes of splits in the manifest of `training` with its rows."""
    recorded, actual = table.manifest["splits"], split_sizes(table.shard_paths())
    for split in sorted({*recorded, *actual}):
        for kind in ("items", "captions", "descriptions"):
            expected, count = (sizes.get(split, {}).get(kind, 0) for sizes in (recorded, actual))
            if expected != count:
                yield f"{table.name} has {count:,} {kind} in split {split}, its manifest says {expected:,}: {remedy}"


def _content_problem(table: corpora.Table, index: int) -> str | None:
    try:
        shard = table.shard(index)
    except EnvironmentTrouble as error:
        return str(error)
    entry = table.manifest["shards"][index]
    if not shard.schema.equals(SCHEMAS[table.name]):
        return f"has columns that differ from version {table.manifest['schema_version']} of the table"
    if shard.num_rows != entry["rows"]:
        return f"has {shard.num_rows:,} rows, its manifest says {entry['rows']:,}"
    keys = KEYS.get(table.name)
    if keys and shard.select(keys).group_by(keys).aggregate([]).num_rows != shard.num_rows:
        return f"holds rows with the same {' and '.join(keys)}"
    if table.name == "items" or (table.name == "training" and "items" not in table.manifest["parents"]):
        return None  # what is packed from other corpora has shards of its own
    return _unknown_items(table, shard, index) or (
        _unknown_texts(table, shard, index) if table.name == "translations" else None
    )


def _unknown_items(table: corpora.Table, shard: pa.Table, index: int) -> str | None:
    """Co-partitioning: shard i of every table holds rows of the items in shard i of `items`."""
    known = _shard_of(table.corpus, "items", index)
    num_unknown = _missing(shard["item_id"], known["item_id"]) if known is not None else 0
    return f"holds {num_unknown:,} rows of items that items shard {index} does not have" if num_unknown else None


def _unknown_texts(table: corpora.Table, shard: pa.Table, index: int) -> str | None:
    """Shard i of `translations` is of texts in shard i of the table that each row names as its source."""
    for name in sorted(pc.unique(shard["source_table"]).to_pylist()):
        if name not in SOURCES:
            return f"names {name} as a source of texts, expected {' or '.join(SOURCES)}"
        rows, source = shard.filter(pc.equal(shard["source_table"], name)), _shard_of(table.corpus, name, index)
        num_unknown = _missing(rows["caption_id"], SOURCES[name](source)) if source is not None else 0
        if num_unknown:
            return f"holds {num_unknown:,} translations of texts that {name} shard {index} does not have"
    return None


def _missing(ids: pa.ChunkedArray, known: pa.ChunkedArray) -> int:
    return pc.sum(pc.invert(pc.is_in(ids, value_set=known))).as_py() or 0


def _shard_of(corpus: Path, name: str, index: int) -> pa.Table | None:
    """Shard `index` of another table; None if it cannot be read, which the check of that table reports."""
    try:
        shard = corpora.Table(corpus, name).shard(index)
    except (UsageError, EnvironmentTrouble, IndexError):
        return None
    return shard if shard.schema.equals(SCHEMAS[name]) else None
