"""The unit of work and of commit: one shard of one stage, its plan, its sidecar, its state.

`CORPUS/.state/STAGE/part-00017.json` (the sidecar) is written after the stage's shards: it tells their size and
checksum, the checksum of the parent shard they were made from, and the records that failed. A shard is current when
its sidecar says that it was made from the parent shard that lies there now, with these settings.
"""

import dataclasses
import functools
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import corpus as corpora
from pipeline.errors import EnvironmentTrouble
from pipeline.records import SCHEMAS
from pipeline.runstate import state_folder

PLAN = "plan"
MADE_BY = {"items": "ingest", "captions": "ingest", "descriptions": "captions"}


@dataclasses.dataclass(frozen=True)
class Failure:
    """A record that could not be made. `kind` is the error's type; `attempts` counts the tries of this run."""

    id: str
    kind: str
    message: str
    attempts: int = 1
    view: str = ""

    def line(self, stage: str, shard: int) -> dict[str, Any]:
        line = {"id": self.id, "stage": stage, "error": self.kind, "message": self.message, "attempts": self.attempts}
        return {**line, "shard": shard, **({"view": self.view} if self.view else {})}


@dataclasses.dataclass
class Outcome:
    """What became of one item in one stage: rows by table, and the records that failed."""

    rows: dict[str, list[dict[str, Any]]]
    failures: list[Failure] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to be made: its parent's rows, the checksum of the parent shard, and what an earlier run made."""

    rows: list[dict[str, Any]]
    parent_sha256: str
    kept: dict[str, dict[str, list[dict[str, Any]]]]  # item_id → table → rows
    retrying: bool  # an earlier run finished this shard, with failures


def write_plan(
    corpus: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema, shard_rows: int
) -> list[dict[str, Any]]:
    """Write the plan: fixed membership of every shard, `shard_rows` records each. Returns the shards' entries."""
    folder = state_folder(corpus) / PLAN
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    entries = []
    for index, part in enumerate(_parts(rows, shard_rows)):
        entries.append(corpora.write_shard(folder / f"part-{index:05d}.arrow", pa.Table.from_pylist(part, schema)))
    return entries


def _parts(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    for row in rows:
        part.append(row)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def sidecar_path(corpus: Path, stage: str, index: int) -> Path:
    return state_folder(corpus) / stage / f"part-{index:05d}.json"


def read_sidecar(corpus: Path, stage: str, index: int) -> dict[str, Any] | None:
    return corpora.read_json(sidecar_path(corpus, stage, index))


def sidecar(corpus: Path, stage: str, index: int) -> dict[str, Any]:
    """The sidecar of a shard that must be made by now."""
    found = read_sidecar(corpus, stage, index)
    if found is None:
        raise EnvironmentTrouble(
            f"{sidecar_path(corpus, stage, index)} is missing although its shard was made: run the same command again"
        )
    return found


def parent_entry(corpus: Path, parent: str, index: int) -> tuple[Path, dict[str, Any]] | None:
    """File and entry of shard `index` of a parent table or of the plan; None where it is not made yet."""
    if parent == PLAN:
        folder = state_folder(corpus) / PLAN
        if not (folder / "plan.json").exists():
            return None
        entries = _plan_entries(folder / "plan.json", (folder / "plan.json").stat().st_mtime_ns)
        return folder / f"part-{index:05d}.arrow", entries[index]
    if made := read_sidecar(corpus, MADE_BY[parent], index):
        return corpus / parent / corpora.shard_name(index, made["count"]), made["tables"][parent]
    if corpora.complete(corpus, parent):
        table = corpora.Table(corpus, parent)
        return table.shard_path(index), table.manifest["shards"][index]
    return None


@functools.lru_cache(maxsize=2)
def _plan_entries(path: Path, _mtime_ns: int) -> list[dict[str, Any]]:
    """Read once a process, not once a shard: a plan of ten million items has ten thousand entries."""
    entries: list[dict[str, Any]] = corpora.read_json(path)["shards"]
    return entries


def is_current(corpus: Path, stage: str, fingerprint: str, parent: str, index: int) -> bool:
    """Whether shard `index` of `stage` lies there whole, made with these settings from the parent of now."""
    sidecar = read_sidecar(corpus, stage, index)
    made_from = parent_entry(corpus, parent, index)
    if sidecar is None or sidecar["fingerprint"] != fingerprint or not _in_place(corpus, sidecar, index):
        return False
    if made_from is None:
        return parent == PLAN  # a corpus that came without its .state
    return bool(sidecar["parent"] == made_from[1]["sha256"])


def _in_place(corpus: Path, sidecar: dict[str, Any], index: int) -> bool:
    for table, entry in sidecar["tables"].items():
        path = corpus / table / corpora.shard_name(index, sidecar["count"])
        if not path.exists() or path.stat().st_size != entry["bytes"]:
            return False
    return True


def load(corpus: Path, stage: str, tables: Sequence[str], parent: str, index: int) -> ShardTask:
    """Read what is needed to make a shard: its parent's rows, checked, and the rows that an earlier run made."""
    remedy = "run --stage ingest with --overwrite" if parent == PLAN else f"run --stage {MADE_BY[parent]} again"
    made_from = parent_entry(corpus, parent, index)
    if made_from is None:
        raise EnvironmentTrouble(f"shard {index} of {stage} cannot be made: its {parent} is not here: {remedy}")
    path, entry = made_from
    rows = corpora.read_shard(path, entry, remedy).to_pylist()
    kept: dict[str, dict[str, list[dict[str, Any]]]] = {}
    sidecar = read_sidecar(corpus, stage, index)
    retrying = bool(sidecar and _in_place(corpus, sidecar, index))
    if sidecar and retrying:
        for table in tables:
            old = corpora.read_shard(
                corpus / table / corpora.shard_name(index, sidecar["count"]), sidecar["tables"][table]
            )
            for row in old.to_pylist():
                kept.setdefault(row["item_id"], {name: [] for name in tables})[table].append(row)
    return ShardTask(rows, entry["sha256"], kept, retrying)


def commit(
    corpus: Path,
    stage: str,
    tables: Sequence[str],
    fingerprint: str,
    index: int,
    count: int,
    task: ShardTask,
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:
    """Write a shard's tables, then its sidecar, which makes them count. Returns the sidecar."""
    sidecar_path(corpus, stage, index).unlink(missing_ok=True)
    entries = {}
    for table in tables:
        rows = [row for outcome in outcomes for row in outcome.rows.get(table, ())]
        folder = corpus / table
        folder.mkdir(parents=True, exist_ok=True)
        arrow = pa.Table.from_pylist(rows, SCHEMAS[table])
        entries[table] = corpora.write_shard(folder / corpora.shard_name(index, count), arrow)
    sidecar = {
        "parent": task.parent_sha256,
        "fingerprint": fingerprint,
        "count": count,
        "items": len(task.rows),
        "tables": entries,
        "failures": [failure.line(stage, index) for outcome in outcomes for failure in outcome.failures],
    }
    path = sidecar_path(corpus, stage, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    corpora.write_json(path, sidecar)
    return sidecar


def restore_sidecars(corpus: Path, stage: str, tables: Sequence[str]) -> None:
    """Write the sidecars of a complete stage anew from its manifests: a corpus may come without its `.state`."""
    opened = [corpora.Table(corpus, table) for table in tables]
    failures: dict[int, list[dict[str, Any]]] = {}
    for failure in opened[0].failures():
        failures.setdefault(failure["shard"], []).append(failure)
    sidecar_path(corpus, stage, 0).parent.mkdir(parents=True, exist_ok=True)
    for index in range(opened[0].num_shards):
        if sidecar_path(corpus, stage, index).exists():
            continue
        first = opened[0].manifest["shards"][index]
        sidecar = {
            "parent": first["parent"],
            "fingerprint": opened[0].manifest["fingerprint"],
            "count": opened[0].num_shards,
            "items": first["items"],
            "tables": {
                table.name: {key: table.manifest["shards"][index][key] for key in ("rows", "bytes", "sha256")}
                for table in opened
            },
            "failures": failures.get(index, []),
        }
        corpora.write_json(sidecar_path(corpus, stage, index), sidecar)
