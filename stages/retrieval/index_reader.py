"""A vector index on disk: its format, and the side that reads it.

    INDEX/manifest.json                      the current generation, sizes and checksums of its files, how it was made
    INDEX/generation-00000003/items.arrow    one row per item, with how many vectors it has in each part
                              vectors.faiss  the media rows of all items in this order, then their other rows

A writer makes a new generation in a temporary folder, renames it and then replaces the manifest. An index that is open
keeps answering from its generation: its files are mapped, and what is mapped stays readable after it is deleted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.schema import fields_of
from pipeline.corpus.table import MANIFEST, read_json, read_shard, shard_problem
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import canonical_json, short_hash
from stages.retrieval.facts import FACTS, FactsRow
from stages.retrieval.vectors import DTYPES, KINDS, PARTS, load_vectors

VERSION = 2
REBUILD = "Make it anew: run stages/index.py as before with --overwrite"
ITEMS_FILE, VECTORS_FILE = "items.arrow", "vectors.faiss"


class ItemText(TypedDict):
    """One description of an item, or one of its captions, whose view is `caption`."""

    view: str
    text: str


class OwnRow(TypedDict):
    """What an index keeps of an item from its corpora, besides its vectors."""

    item_id: str
    corpus: str
    uri: str
    sha256: str  # hex, of the media's bytes
    split: str
    media_type: str
    texts: list[ItemText]


class ItemRecord(OwnRow, FactsRow):
    """All that an index keeps of an item besides its vectors."""


RECORD = pa.schema(fields_of(OwnRow))
ITEMS = pa.schema([*RECORD, *FACTS, *(pa.field(f"{part}_rows", pa.int32(), nullable=False) for part in PARTS)])


class Generation:
    """One generation of an index, open. It never changes and may be used from several threads.

    Attributes:
        folder: The index folder.
        manifest: What its writer recorded, see `stages.retrieval.index_writer`.
        items: One row per item, in the order of their numbers.
        vectors: The rows of the items.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder, self.manifest = folder, manifest
        home = folder / manifest["generation"]
        for name, entry in manifest["files"].items():
            if problem := shard_problem(home / name, entry):
                raise UsageError(f"{home / name} {problem}. {REBUILD}")
        self.items = read_shard(home / ITEMS_FILE)
        for field in ITEMS:
            if field.name not in self.items.column_names:  # an index made before there was such a column
                nothing = pa.scalar(0 if pa.types.is_integer(field.type) else None, field.type)
                self.items = self.items.append_column(field, pa.repeat(nothing, len(self.items)))
        counts = {part: self.items.column(f"{part}_rows").to_numpy() for part in PARTS}
        self.vectors = load_vectors(home / VECTORS_FILE, manifest["kind"], manifest["effort"], counts)

    @classmethod
    def open(cls, folder: Path) -> "Generation":
        """Open what is published in a folder.

        Raises:
            UsageError: There is no index, it is of another version, or its files are not those of its manifest.
        """
        manifest = read_manifest(folder)
        while manifest is not None:
            try:
                return cls(folder, manifest)
            except (UsageError, EnvironmentTrouble, FileNotFoundError):
                # a writer may publish the next generation, and delete this one's files, before they are all open
                manifest, tried = read_manifest(folder), manifest
                if manifest == tried:
                    raise
        state = "is not complete" if folder.is_dir() else "does not exist"
        raise UsageError(f"{folder} {state} (no {MANIFEST}). Make an index there with stages/index.py")

    @property
    def origin(self) -> dict[str, Any]:
        """What the vectors were made from: space, corpora, split, views."""
        origin: dict[str, Any] = self.manifest["origin"]
        return origin

    def __len__(self) -> int:
        rows: int = self.items.num_rows
        return rows

    def is_current(self) -> bool:
        """Whether this is still the published generation. Raises UsageError as `open` does."""
        return read_manifest(self.folder) == self.manifest

    def number(self, corpus: str, item_id: str) -> int | None:
        """The row of an item, None if it is not in the index."""
        matches = pc.and_(pc.equal(self.items["item_id"], item_id), pc.equal(self.items["corpus"], corpus))
        number = pc.index(matches, True).as_py()
        return number if number >= 0 else None

    def records(self, numbers: Sequence[int] | np.ndarray) -> list[ItemRecord]:
        """The records of these rows."""
        items = self.items.select([*RECORD.names, *FACTS.names])
        records: list[ItemRecord] = items.take(pa.array(numbers, pa.int64())).to_pylist()
        return records


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an index folder, None if there is none.

    Raises:
        UsageError: It is not a manifest of this version, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] | None = read_json(path)
    except (EnvironmentTrouble, NotADirectoryError) as error:
        raise UsageError(f"{path} cannot be read ({error}). Make the index anew with --overwrite") from error
    if manifest is None:
        return None
    if not isinstance(manifest, dict) or "vector_index_version" not in manifest:
        raise UsageError(f"{path} is not the manifest of a vector index. Give the folder that stages/index.py wrote")
    version, kind, dtype = (manifest.get(name) for name in ("vector_index_version", "kind", "dtype"))
    if version != VERSION or kind not in KINDS or dtype not in DTYPES:
        raise UsageError(f"{folder} is an index of another version ({version}, {kind}, {dtype}). {REBUILD}")
    checksum = manifest.pop("checksum", None)
    if checksum != short_hash(canonical_json(manifest)):
        raise UsageError(f"{path} was changed or is damaged: its checksum differs. {REBUILD}")
    return manifest
