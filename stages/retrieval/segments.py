"""A segment of a vector index on disk: items that were added together, and their vectors. It never changes.

    INDEX/manifest.json                     says which segments there are, with every file's size and checksum
    INDEX/segment-00000007/items.arrow      a row an item, with how many rows of vectors it has in each group
                           media.faiss      rows that queries are compared with, in the order of the items
                           text.faiss       rows of the items' descriptions
    INDEX/removed-00000009.npy              numbers of items that are no longer there, over all segments

N items · R rows · E width
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.corpus.table import MANIFEST, flush, read_json, read_shard, write_json
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import canonical_json, file_hash, short_hash
from stages.retrieval import rows as vector_rows
from stages.retrieval.rows import Facts, Rows

SCHEMA_VERSION = 1
GROUPS = ("media", "text")
ITEMS_FILE = "items.arrow"
AGAIN = "build the index again, with overwrite"
RECORD = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("corpus", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),  # hex, of the media's bytes
        pa.field("content", pa.string(), nullable=False),  # a hash of all that the item's vectors depend on
        pa.field("split", pa.string(), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),
        pa.field("texts", pa.list_(pa.struct([("view", pa.string()), ("text", pa.string())])), nullable=False),
    ]
)
ITEMS = pa.schema([*RECORD, *(pa.field(f"{group}_rows", pa.int32(), nullable=False) for group in GROUPS)])


class Segment:
    """An open segment. `entry`: what the manifest says of it. Raises UsageError where its files are not as it says."""

    def __init__(self, folder: Path, entry: dict[str, Any]):
        self.folder, self.entry = folder / entry["name"], entry
        for name, told in entry["files"].items():
            check(self.folder / name, told)
        try:
            self.items = read_shard(self.folder / ITEMS_FILE)
            self.items.validate(full=True)
        except (EnvironmentTrouble, pa.ArrowException, UnicodeDecodeError) as error:
            raise UsageError(f"{self.folder / ITEMS_FILE} cannot be read ({error}): {AGAIN}") from error
        if self.items.schema != ITEMS or len(self.items) != entry["items"]:
            raise UsageError(f"{self.folder / ITEMS_FILE} is no table of {entry['items']:,} items: {AGAIN}")
        self.groups: dict[str, Rows] = {
            group: vector_rows.load(self.folder / f"{group}.faiss", Facts(**entry[group]), self.counts(group))
            for group in GROUPS
        }

    def __len__(self) -> int:
        return self.items.num_rows

    def counts(self, group: str) -> np.ndarray:
        """Rows of each item [N]."""
        return self.items.column(f"{group}_rows").to_numpy().astype(np.int64)


class Spool:
    """A segment in the making: rows go to disk as they come, in `folder`; `finish` makes the segment of them."""

    def __init__(self, folder: Path, width: int):
        self.folder, self.width, self.items = folder, width, 0
        folder.mkdir()
        self._open = contextlib.ExitStack()
        items_file = self._open.enter_context(pa.OSFile(str(folder / ITEMS_FILE), "wb"))
        self._stream = self._open.enter_context(pa.ipc.new_stream(items_file, ITEMS))
        self._vectors = {group: self._open.enter_context((folder / f"{group}.f32").open("wb")) for group in GROUPS}

    def add(self, items: pa.Table, vectors: Mapping[str, np.ndarray]) -> None:
        """`vectors`: by group, float32 rows [R,E] in the order of the items."""
        self._stream.write_table(items.select(ITEMS.names).cast(ITEMS))
        for group, stream in self._vectors.items():
            stream.write(np.ascontiguousarray(vectors[group], "<f4").data)
        self.items += items.num_rows

    def close(self) -> None:
        self._open.close()

    def finish(self, kind: str, dtype: str) -> dict[str, Any]:
        """Build the rows, in this folder; the segment's manifest entry, but for its name. Spooled rows are deleted."""
        self.close()
        flush(self.folder / ITEMS_FILE)
        items = read_shard(self.folder / ITEMS_FILE)
        spooled = {group: self._mapped(group) for group in GROUPS}
        entry: dict[str, Any] = {"items": self.items}
        for group, vectors_RE in spooled.items():
            counts_N = items.column(f"{group}_rows").to_numpy().astype(np.int64)
            asked_QE = spooled["text"] if group == "media" else None  # a description is much like a query
            rows = vector_rows.build(vectors_RE, counts_N, kind=kind, dtype=dtype, asked_QE=asked_QE)
            vector_rows.save(rows, self.folder / f"{group}.faiss")
            entry[group] = dataclasses.asdict(rows.facts)
        spooled.clear()
        for group in GROUPS:
            (self.folder / f"{group}.f32").unlink()
        entry["files"] = {path.name: told(path) for path in sorted(self.folder.iterdir())}
        flush(self.folder)
        return entry

    def _mapped(self, group: str) -> np.ndarray:
        path = self.folder / f"{group}.f32"
        if not path.stat().st_size:  # what is empty cannot be mapped
            return np.empty((0, self.width), np.float32)
        return np.memmap(path, "<f4", "r").reshape(-1, self.width)


def told(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_hash(path)}


def check(path: Path, told: Mapping[str, Any], hashes: bool = False) -> None:
    """Raises UsageError where a file is missing or not of the size (and, with `hashes`, the bytes) that is told."""
    try:
        size = path.stat().st_size
        same = not hashes or size != told["bytes"] or file_hash(path) == told["sha256"]
    except FileNotFoundError:
        raise UsageError(f"{path} is missing: {AGAIN}") from None
    if size != told["bytes"]:
        raise UsageError(f"{path} has {size:,} bytes, its manifest says {told['bytes']:,}: {AGAIN}")
    if not same:
        raise UsageError(f"{path} has other bytes than its manifest says (checksum differs): {AGAIN}")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What is published in a folder, or None. Raises UsageError for what this program did not write."""
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
    except (EnvironmentTrouble, NotADirectoryError) as error:
        raise UsageError(f"{path} cannot be read ({error}): delete it and {AGAIN}") from error
    if manifest is None:
        return None
    version = manifest.get("vector_index_version") if isinstance(manifest, dict) else None
    if version is None:
        raise UsageError(f"{path} is no vector index's: give the folder that stages/index.py wrote")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"{folder} is an index of version {version}, this program reads {SCHEMA_VERSION}: delete {path} and {AGAIN}"
        )
    if manifest.pop("checksum", None) != short_hash(canonical_json(manifest)):
        raise UsageError(f"{path} was changed or is damaged (its checksum differs): delete it and {AGAIN}")
    return manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    write_json(folder / MANIFEST, {**manifest, "checksum": short_hash(canonical_json(manifest))})


def files(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every file of an index with its size and checksum, by its name within the folder."""
    found = {
        f"{segment['name']}/{name}": entry
        for segment in manifest["segments"]
        for name, entry in segment["files"].items()
    }
    removed = manifest["removed"]
    return {**found, removed["name"]: removed} if removed else found
