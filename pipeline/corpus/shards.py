"""The unit of work and of commit: one shard of one stage, its plan, its sidecar, its state.

`CORPUS/.state/STAGE/part-00017.json` (the sidecar) is written after the stage's shards. It records their sizes and
checksums, the checksum of the parent shards they were made from, the records that failed, and the run that tried them.
A shard is current if its sidecar says that it was made from the present parent shards, with the present settings, and
no failures are left for this run to try again.
"""

import collections
import functools
import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.corpus import table as tables
from pipeline.corpus.schema import schema_of
from pipeline.engine.stage import Grouped, Outcome, Row, Rows, Run, ShardTask, Stage
from pipeline.errors import EnvironmentTrouble
from pipeline.hashing import canonical_json, short_hash
from pipeline.storage.files import in_parallel, list_files, read_ahead, remove_tree, version
from pipeline.storage.folders import Folders, SmallFiles
from pipeline.storage.object_path import FileChanged

PLAN = "plan"
RETIRED = "retired"  # the one key of a sidecar whose shard is being made again
CHANGES = "changes"  # in the sidecar of a shard that was made before its plan changed
SINGLE = SmallFiles()  # how workers read sidecars, who take up a shard now and then; the driver asks for all of them


def write_plan(corpus: Path, parts: Iterable[Rows], schema: pa.Schema) -> list[dict[str, Any]]:
    """Write the plan: the fixed membership of every shard. Returns the shards' entries.

    The `stamp` of each row goes into a file of its own, so that tables do not depend on the times of files.
    """
    folder = tables.state_folder(corpus) / PLAN
    remove_tree(folder)
    folder.mkdir(parents=True)

    def write_part(numbered: tuple[int, Rows]) -> dict[str, Any]:
        index, part = numbered
        write_stamps(corpus, index, part)
        return tables.write_shard(folder / f"part-{index:05d}.arrow", pa.Table.from_pylist(part, schema))

    return list(read_ahead(write_part, enumerate(parts)))


def stamps_path(corpus: Path, index: int) -> Path:
    """The file with the `stamp` of each row of a shard of the plan, in their order."""
    return tables.state_folder(corpus) / PLAN / f"stamps-{index:05d}.json"


def write_stamps(corpus: Path, index: int, rows: Rows) -> None:
    """Write the `stamp` of each row of a shard of the plan, unless they are known."""
    path, stamps = stamps_path(corpus, index), [row.get("stamp", "") for row in rows]
    if tables.read_json(path) != stamps:
        tables.write_json(path, stamps)


def in_parts(rows: Iterable[Row], size: int) -> Iterator[Rows]:
    """The rows in lists of `size`; the last may be shorter."""
    rows = iter(rows)
    while part := list(itertools.islice(rows, size)):
        yield part


def sidecar_path(corpus: Path, stage: str, index: int) -> Path:
    """Path of a shard's sidecar."""
    return tables.state_folder(corpus) / stage / f"part-{index:05d}.json"


def thumbnails_path(corpus: Path, index: int) -> Path:
    """The file with a thumbnail of each row of a shard of `training`, see `pipeline.packing.near_duplicates`."""
    return tables.state_folder(corpus) / tables.MADE_BY["training"] / "looks" / f"part-{index:05d}.npy"


def read_sidecar(corpus: Path, stage: str, index: int, files: SmallFiles = SINGLE) -> dict[str, Any] | None:
    """A shard's sidecar, or None if the shard is not made yet, or is being made again."""
    path = sidecar_path(corpus, stage, index)
    data = files.read(path)
    sidecar: dict[str, Any] | None = tables.parse_json(data, path) if data else None
    return None if sidecar and RETIRED in sidecar else sidecar


def read_sidecars(corpus: Path, stage: str, num_shards: int, files: Folders) -> list[dict[str, Any]]:
    """The sidecars of a stage whose shards are all made.

    Raises:
        EnvironmentTrouble: One is missing.
    """
    sidecars = [read_sidecar(corpus, stage, index, files) for index in range(num_shards)]
    if None in sidecars:
        path = sidecar_path(corpus, stage, sidecars.index(None))
        raise EnvironmentTrouble(f"{path} is missing although its shard was made. Run the same command again")
    return [sidecar for sidecar in sidecars if sidecar]


def parent_entry(
    corpus: Path, parent: str, index: int, files: SmallFiles = SINGLE
) -> tuple[Path, dict[str, Any]] | None:
    """File and entry of shard `index` of a parent table or of the plan, or None if it is not made yet."""
    if parent == PLAN:
        folder = tables.state_folder(corpus) / PLAN
        entries = _listed_shards(folder / "plan.json", files)
        return (folder / f"part-{index:05d}.arrow", entries[index]) if entries else None
    folder = corpus / parent
    if sidecar := read_sidecar(corpus, tables.MADE_BY[parent], index, files):
        return folder / tables.shard_name(index, sidecar["count"]), sidecar["tables"][parent]
    entries = _listed_shards(folder / tables.MANIFEST, files)
    return (folder / tables.shard_name(index, len(entries)), entries[index]) if entries else None


def _listed_shards(path: Path, files: SmallFiles) -> list[dict[str, Any]]:
    """The entries of a plan or of a manifest; none if it is not written yet."""
    seen = files.version(path)
    return _read_entries(path, seen) if seen else []


# Read once per process, not once per shard: a plan of ten million items has ten thousand entries.
@functools.lru_cache(maxsize=64)
def _read_entries(path: Path, _version: str) -> list[dict[str, Any]]:
    return tables.read_json(path)["shards"]


def _parents_checksum(files: SmallFiles, corpus: Path, parents: Sequence[str], index: int) -> str | None:
    """Checksum of the present parent shards, or None if one is not made yet."""
    entries = [parent_entry(corpus, parent, index, files) for parent in parents]
    checksums = [entry["sha256"] for _, entry in filter(None, entries)]
    return _joint(checksums) if len(checksums) == len(parents) else None


def _joint(checksums: Sequence[str]) -> str:
    return checksums[0] if len(checksums) == 1 else short_hash(canonical_json(list(checksums)))


def is_current(run: Run, stage: Stage, index: int, files: SmallFiles = SINGLE) -> bool:
    """Whether a shard is complete, made with these settings from the present parents, and its failures were retried."""
    sidecar = read_sidecar(run.corpus, stage.name, index, files)
    if sidecar is None or sidecar["fingerprint"] != stage.fingerprint or sidecar["count"] != run.num_shards:
        return False
    if not _in_place(run.corpus, sidecar, index, files) or "changed" in sidecar.get(CHANGES, {}):
        return False
    checksum = _parents_checksum(files, *stage.origin(run.corpus, index))
    if checksum is None:
        return stage.parents == (PLAN,)  # a corpus that came without its .state
    was_tried = not sidecar["failures"] or sidecar.get("run") == run.token
    return was_tried and bool(sidecar["parent"] == checksum)


def _in_place(corpus: Path, sidecar: dict[str, Any], index: int, files: SmallFiles = SINGLE) -> bool:
    name = tables.shard_name(index, sidecar["count"])
    states = {table: files.state(corpus / table / name) for table in sidecar["tables"]}
    return all(state and state.size == sidecar["tables"][table]["bytes"] for table, state in states.items())


def load(corpus: Path, stage: Stage, index: int, num_shards: int) -> ShardTask:
    """Read what is needed to make a shard: its parents' rows, and the rows that an earlier run made.

    Raises:
        EnvironmentTrouble: A parent shard is missing or damaged.
    """
    home, parents, at = stage.origin(corpus, index)
    rows, checksums = {}, []
    for parent in parents:
        maker = tables.MADE_BY.get(parent)
        remedy = f"run --stage {maker} again" if maker else "run --stage ingest with --overwrite"
        present = parent_entry(home, parent, at)
        if present is None:
            raise EnvironmentTrouble(
                f"shard {index} of {stage.name} cannot be made: {home / parent} has no shard {at}. To fix it, {remedy}"
            )
        path, entry = present
        rows[parent] = tables.read_shard(path, entry, remedy).to_pylist()
        checksums.append(entry["sha256"])
    items, previous = rows.pop(parents[0]), {}
    seen = {table: version(corpus / table / tables.shard_name(index, num_shards)) for table in stage.tables}
    seen[""] = version(sidecar_path(corpus, stage.name, index))
    sidecar = read_sidecar(corpus, stage.name, index)
    if sidecar and _in_place(corpus, sidecar, index):
        for table, entry in sidecar["tables"].items():
            path = corpus / table / tables.shard_name(index, sidecar["count"])
            previous[table] = list(
                _carried_over(tables.table_rows(tables.read_shard(path, entry)), sidecar.get(CHANGES, {}))
            )
    return ShardTask(index, items, _by_item(rows), _joint(checksums), _by_item(previous), bool(previous), seen)


def _carried_over(rows: Rows, changes: dict[str, Any]) -> Iterator[Row]:
    """The rows of a shard whose plan has changed, under the new ids of their items; see `Changes.parts`."""
    renamed, changed = changes.get("renamed", {}), set(changes.get("changed", ()))
    for row in rows:
        before = row["item_id"]
        if before in renamed:
            row["item_id"] = renamed[before]
            if "caption_id" in row:
                row["caption_id"] = renamed[before] + row["caption_id"].removeprefix(before)
        if before not in changed:
            yield row


def _by_item(tables: Mapping[str, Rows]) -> Grouped:
    grouped: Grouped = {}
    for table, rows in tables.items():
        for row in rows:
            grouped.setdefault(row["item_id"], {}).setdefault(table, []).append(row)
    return grouped


def commit(run: Run, stage: Stage, task: ShardTask, outcomes: Sequence[Outcome]) -> bool:
    """Write a shard's tables, then its sidecar, which makes them count.

    Returns:
        False if somebody else has written any of it since the task was loaded, such as a worker that was given up for
        dead. Nothing of theirs is replaced, and the shard has to be looked at again.
    """
    path = sidecar_path(run.corpus, stage.name, task.index)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        before = _retire(path, task.seen[""])
        entries = {}
        for table in stage.tables:
            rows = [row for outcome in outcomes for row in outcome.rows.get(table, ())]
            folder = run.corpus / table
            folder.mkdir(parents=True, exist_ok=True)
            arrow = pa.Table.from_pylist(rows, schema_of(table, stage.settings()))
            entries[table] = tables.write_shard(
                folder / tables.shard_name(task.index, run.num_shards), arrow, task.seen[table]
            )
        sidecar = {
            "run": run.token,
            "parent": task.parent_sha256,
            "fingerprint": stage.fingerprint,
            "count": run.num_shards,
            "items": len(task.rows),
            "tables": entries,
            "failures": [failure.line(stage.name, task.index) for outcome in outcomes for failure in outcome.failures],
        }
        tables.write_json(path, sidecar, before)
    except FileChanged:
        return False
    return True


def _retire(path: Path, seen: str | None) -> str | None:
    """Let a sidecar no longer count, as its shard is about to be written; returns its version then."""
    if seen is None:
        return None
    mark = {RETIRED: uuid.uuid4().hex}
    tables.write_json(path, mark, seen)
    seen = version(path)
    if tables.read_json(path) != mark:
        raise FileChanged(path)
    return seen


def restore_sidecars(corpus: Path, stage: str) -> None:
    """Write missing sidecars of a complete stage from its manifests: a corpus may come without its `.state`."""
    names = [table for table, maker in tables.MADE_BY.items() if maker == stage]
    if not all(tables.complete(corpus, name) for name in names):
        return
    opened = {name: tables.Table(corpus, name) for name in names}
    first = opened[names[0]]
    failures = collections.defaultdict(list)
    for failure in first.failures():
        failures[failure["shard"]].append(failure)
    folder = sidecar_path(corpus, stage, 0).parent
    folder.mkdir(parents=True, exist_ok=True)
    present = list_files(folder)

    def restore(index: int) -> None:
        entry = first.manifest["shards"][index]
        sidecar = {
            "parent": entry["parent"],
            "fingerprint": first.manifest["fingerprint"],
            "count": first.num_shards,
            "items": entry["items"],
            "tables": {name: table.manifest["shards"][index] for name, table in opened.items()},
            "failures": failures[index],
        }
        tables.write_json(sidecar_path(corpus, stage, index), sidecar)

    indices = range(first.num_shards)
    in_parallel(restore, [i for i in indices if sidecar_path(corpus, stage, i).name not in present])
