"""A table on disk: Arrow IPC stream shards plus a manifest. The one way to write a table and the one way to read it.

    CORPUS/TABLE/part-00000-of-00012.arrow … manifest.json failures.jsonl

A shard is written to a temporary name, fsynced and renamed. The manifest is written last, so its presence means that
the table is complete. Nothing here depends on the clock: the same rows give the same bytes.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.corpus.schema import SCHEMA_VERSION
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import HashingStream, file_hash
from pipeline.storage.files import file_state, local_folder, open_arrow, write_file
from pipeline.storage.object_path import ANY, ObjectPath

BATCH_ROWS = 1_000
MADE_BY = {  # which stage makes a table
    "items": "ingest",
    "captions": "ingest",
    "descriptions": "captions",
    "translations": "translate",
    "training": "pack",
    "vectors": "embed",
}
STATE = ".state"
MANIFEST = "manifest.json"
FAILURES = "failures.jsonl"
MISSING = "is missing"
INDEXES = "indexes.json"  # in the state: by their folders, how the indexes of the corpus were made


def state_folder(corpus: Path) -> Path:
    """What runs keep about a corpus: plan, sidecars, lock, response cache."""
    return corpus / STATE


def cache_folder(corpus: Path) -> Path:
    """Where the answers of servers are kept: with the corpus, or on this machine if that is in an object store."""
    return local_folder(state_folder(corpus)) / "cache"


def shard_name(index: int, count: int) -> str:
    """File name of shard `index` of `count`."""
    return f"part-{index:05d}-of-{count:05d}.arrow"


def write_json(path: Path, value: Any, seen: str | None = ANY, durable: bool = True) -> None:
    """Write a JSON file, complete or not at all, in place of the version `seen`."""
    with write_file(path, seen, durable) as stream:
        stream.write((json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8"))


def read_json(path: Path) -> Any:
    """The value in a JSON file, or None if there is no such file.

    Raises:
        EnvironmentTrouble: It cannot be parsed.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parse_json(data, path)


def parse_json(data: bytes, path: Path) -> Any:
    """The value in the bytes of a JSON file. Raises EnvironmentTrouble, with its path, if they cannot be parsed."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise EnvironmentTrouble(f"{path} is damaged ({error}). Delete it and run the same command again") from error


def write_shard(path: Path, table: pa.Table, seen: str | None = ANY) -> dict[str, Any]:
    """Write one shard; returns its manifest entry: `rows`, `bytes`, `sha256` (hex, of the file).

    Raises:
        FileChanged: The file is not in the version `seen`.
    """
    with write_file(path, seen) as stream:
        hashing = HashingStream(stream)
        with pa.ipc.new_stream(pa.PythonFile(hashing, "w"), table.schema) as shard:
            shard.write_table(table, max_chunksize=BATCH_ROWS)
    return {"rows": table.num_rows, "bytes": hashing.size, "sha256": hashing.digest.hexdigest()}


def read_shard(
    path: Path, entry: dict[str, Any] | None = None, remedy: str = "run the stage again", check: bool = True
) -> pa.Table:
    """Read a shard as a memory-mapped Arrow table.

    Args:
        path: The shard's file.
        entry: Its manifest entry, if there is one. What is downloaded from an object store is compared with it.
        remedy: What to do about a damaged shard, for the error message.
        check: Whether the size and checksum of a file on a disk are compared with the entry, too.

    Raises:
        EnvironmentTrouble: The shard is missing or damaged.
    """
    is_object = isinstance(path, ObjectPath)
    problem = shard_problem(path, entry) if entry and check and not is_object else None
    if problem is None:
        try:
            with open_arrow(path, entry["sha256"] if entry else "") as source:
                return pa.ipc.open_stream(source).read_all()
        except (pa.ArrowInvalid, OSError) as error:
            problem = MISSING if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
    raise EnvironmentTrouble(f"{path.parent.name}/{path.name} {problem}: {mending(problem, remedy)}")


def mending(problem: str, remedy: str) -> str:
    """What to do about a shard with this problem."""
    return remedy if problem == MISSING else f"delete it and {remedy}"


def table_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as dictionaries, with their vectors as NumPy arrays."""
    if "vector" not in table.column_names:
        return table.to_pylist()
    rows = table.drop_columns("vector").to_pylist()
    return [{**row, "vector": vector} for row, vector in zip(rows, vectors_of(table), strict=True)]


def vectors_of(table: pa.Table) -> np.ndarray:
    """The column `vector` as an array [rows, width]."""
    column = table["vector"].combine_chunks()
    return column.flatten().to_numpy().reshape(-1, column.type.list_size)


def shard_problem(path: Path, entry: dict[str, Any]) -> str | None:
    """How a shard's file differs from its manifest entry, or None."""
    state = file_state(path)
    if state is None:
        return MISSING
    if state.size != entry["bytes"]:
        return f"has {state.size:,} bytes, its manifest says {entry['bytes']:,}"
    if file_hash(path) != entry["sha256"]:
        return "has a checksum that differs from its manifest"
    return None


class Table:
    """A complete table, opened for reading. `corpus` is the corpus folder."""

    def __init__(self, corpus: Path, name: str):
        self.corpus, self.name, self.folder = corpus, name, corpus / name
        manifest = read_json(self.folder / MANIFEST)
        if manifest is None:
            state = "is not complete" if self.folder.is_dir() else "does not exist"
            raise UsageError(
                f"{self.folder} {state} (no {MANIFEST}). Run --stage {MADE_BY[name]}, or give the corpus folder itself"
            )
        version = manifest.get("schema_version") if isinstance(manifest, dict) else None
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{self.folder / MANIFEST} has schema version {version}, this program reads {SCHEMA_VERSION}. "
                "Make the corpus again, or read it with the version that made it"
            )
        self.manifest: dict[str, Any] = manifest

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return len(self.manifest["shards"])

    @property
    def num_rows(self) -> int:
        """Rows of all shards."""
        return sum(entry["rows"] for entry in self.manifest["shards"])

    def shard_path(self, index: int) -> Path:
        """The file of shard `index`."""
        return self.folder / shard_name(index, self.num_shards)

    def shard_paths(self) -> list[Path]:
        """The files of all shards, in order."""
        return [self.shard_path(index) for index in range(self.num_shards)]

    def shard(self, index: int, check: bool = False) -> pa.Table:
        """Shard `index` as an Arrow table; with `check`, its checksum is compared first, as always in a store."""
        remedy = f"run --stage {self.manifest['stage']} again"
        return read_shard(self.shard_path(index), self.manifest["shards"][index], remedy, check)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Every record batch in order, memory-mapped: memory stays at one shard's touched pages."""
        for index in range(self.num_shards):
            yield from self.shard(index).to_batches()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every row in order: a TypedDict of pipeline.corpus.schema."""
        for batch in self.batches():
            yield from batch.to_pylist()

    def failures(self) -> list[dict[str, Any]]:
        """The lines of failures.jsonl."""
        path = self.folder / FAILURES
        if not path.exists():
            return []
        try:
            with path.open(encoding="utf-8") as lines:
                return [json.loads(line) for line in lines]
        except ValueError as error:
            remedy = f"delete {self.name}/{MANIFEST} and run --stage {self.manifest['stage']} again"
            raise EnvironmentTrouble(f"{self.name}/{FAILURES} is damaged ({error}): {remedy}") from error


def refuse_others(folder: Path, option: str, known: Collection[str] = ()) -> None:
    """Raise UsageError if a folder that is to be written holds other things than these names and hidden ones."""
    names = sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []
    if others := [name for name in names if name not in known]:
        raise UsageError(f"{option} {folder} holds other files ({', '.join(others[:3])}). Give a new folder")


def complete(corpus: Path, name: str) -> bool:
    """Whether a table has its manifest."""
    return (corpus / name / MANIFEST).exists()


def manifest_hash(corpus: Path, name: str) -> str:
    """SHA-256 (hex) of a table's manifest."""
    return file_hash(corpus / name / MANIFEST)


def write_manifest(
    corpus: Path,
    name: str,
    *,
    parents: Mapping[str, Path],
    shards: list[dict[str, Any]],
    failures: list[dict[str, Any]],
    extra: Mapping[str, Any] | None = None,
    **made_with: Any,
) -> None:
    """Complete a table: write its failures, then its manifest, unless both are up to date.

    Args:
        corpus: The corpus folder.
        name: The table.
        parents: Folders of the tables that it was made from, by name.
        shards: Entries of its shards.
        failures: Lines of failures.jsonl.
        extra: Further entries.
        **made_with: The stage's `settings`, their `fingerprint`, and the versions of its `tools`.
    """
    manifest = {
        **(extra or {}),
        **made_with,
        "schema_version": SCHEMA_VERSION,
        "table": name,
        "stage": MADE_BY[name],
        "parents": {name: file_hash(parent / MANIFEST) for name, parent in parents.items()},
        "rows": sum(shard["rows"] for shard in shards),
        "failures": len(failures),
        "shards": shards,
    }
    folder = corpus / name
    if read_json(folder / MANIFEST) == manifest:
        return
    with write_file(folder / FAILURES) as stream:
        for failure in failures:
            stream.write((json.dumps(failure, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8"))
    write_json(folder / MANIFEST, manifest)
