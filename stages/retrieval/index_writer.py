"""A vector index on disk: the side that writes it.

    with index_writer(folder, origin={"space": …}, width=256, dtype="float16", kind="auto") as writer:
        writer.add(with_vectors(…))          # items that are not in writer.known_contents(), part by part
        writer.publish(contents)             # all items with these contents

What is added is written to `INDEX/.parts`, so that a killed run resumes from there. `publish` builds a new generation
from the items of the old one and of the parts, renames it into place, and deletes the old files.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import MANIFEST, read_shard, write_json, write_shard
from pipeline.engine.run_state import locked
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import canonical_json, file_hash, short_hash
from pipeline.storage.files import flush
from stages.retrieval.index_reader import ITEMS, ITEMS_FILE, RECORD, VECTORS_FILE, VERSION, Index, ItemRecord
from stages.retrieval.vectors import PARTS, build_vectors, save_vectors

PARTS_FOLDER, BUILDING = ".parts", ".building"
# names that earlier versions wrote are included
OWN_FILES = re.compile(r"generation-\d{8}|segment-\d{8}|removed-\d{8}\.npy|manifest\.json|\.parts|\.building")
MAX_LENGTH = 1e4  # longest valid vector: far longer than an encoder's, and within float16


def with_vectors(records: list[ItemRecord], media_NRE: np.ndarray, text_ME: np.ndarray) -> pa.Table:
    """New items with their vectors, as `IndexWriter.add` takes them: rows of ITEMS, and a list of values for each part.

    Args:
        records: What is kept of the items.
        media_NRE: Rows that queries are compared with.
        text_ME: A row for each of `texts` in the records, in their order.

    Raises:
        UsageError: A vector is not finite.
    """
    counts = {"media": [media_NRE.shape[1]] * len(records), "text": [len(record["texts"]) for record in records]}
    rows = {"media": media_NRE.reshape(-1, media_NRE.shape[2]), "text": text_ME}
    table = pa.Table.from_pylist(records, RECORD)
    for part in PARTS:
        table = table.append_column(ITEMS.field(f"{part}_rows"), pa.array(counts[part], pa.int32()))
        lengths = np.linalg.norm(rows[part], axis=1)
        if not (lengths <= MAX_LENGTH).all():  # so that NaN is wrong as well
            row = int(np.flatnonzero(~(lengths <= MAX_LENGTH))[0])
            record = records[int(np.repeat(np.arange(len(records)), counts[part])[row])]
            raise UsageError(
                f"item {record['item_id']} of {record['corpus']} has a vector of length {lengths[row]:g}, and "
                "lengths of about 1 are expected. Check whether the model's training diverged"
            )
    return _append_vectors(table, rows)


def _filtered(table: pa.Table, keep: pa.ChunkedArray) -> pa.Table:
    """The rows to keep. Where that is all of them nothing is copied, so that vectors stay in their mapped files."""
    return table if pc.all(keep).as_py() in (True, None) else table.filter(keep)


def _append_vectors(table: pa.Table, rows: dict[str, np.ndarray]) -> pa.Table:
    for part, rows_RE in rows.items():
        ends = np.cumsum(table[f"{part}_rows"].to_numpy(), dtype=np.int64) * rows_RE.shape[1]
        values = pa.array(np.ascontiguousarray(rows_RE, np.float32).ravel())
        table = table.append_column(part, pa.LargeListArray.from_arrays(np.append(0, ends), values))
    return table


@contextlib.contextmanager
def index_writer(
    folder: Path, *, origin: dict[str, Any], width: int, dtype: str, kind: str, overwrite: bool = False
) -> Iterator["IndexWriter"]:
    """Change the index in a folder, or begin one. Readers see nothing of it before `publish`.

    Args:
        folder: The index folder.
        origin: How the vectors come to be, as JSON.
        width: E of the vectors.
        dtype: How values are stored, of `vectors.DTYPES`.
        kind: Of `vectors.KINDS`, or `auto`.
        overwrite: Take nothing over from the index that is there, nor from a killed run.

    Raises:
        UsageError: Another writer is at work (with its host and pid), the folder holds something else, or its index is
            damaged or of another version.
    """
    if folder.is_dir():
        foreign = sorted(path.name for path in folder.iterdir() if not (path.name[0] == "." or _is_own(path)))
        if foreign:
            raise UsageError(f"{folder} holds {foreign[0]} and is not an index. Give another --output")
    with locked(folder):
        old = Index.open(folder) if (folder / MANIFEST).exists() and not overwrite else None
        shutil.rmtree(folder / BUILDING, ignore_errors=True)
        if overwrite:
            shutil.rmtree(folder / PARTS_FOLDER, ignore_errors=True)
        settings = {"origin": origin, "width": width, "dtype": dtype, "requested_kind": kind}
        yield IndexWriter(folder, settings, old)


class IndexWriter:
    """Makes the next generation of an index; made by `index_writer`."""

    def __init__(self, folder: Path, settings: dict[str, Any], old: Index | None):
        self.folder, self.settings, self.old = folder, settings, old
        # parts of a killed run are used again if the same space made them
        self._parts = folder / PARTS_FOLDER / short_hash(canonical_json(settings["origin"].get("space")))
        self._parts.mkdir(parents=True, exist_ok=True)

    def known_contents(self) -> pa.ChunkedArray:
        """The contents of all items that need not be added again."""
        tables = [self._read_part(path) for path in self._part_paths()] + ([self.old.items] if self.old else [])
        return pa.chunked_array([chunk for table in tables for chunk in table["content"].chunks], pa.string())

    def add(self, items: pa.Table) -> None:
        """Keep new items, see `with_vectors`, on disk until `publish`."""
        write_shard(self._parts / f"part-{len(self._part_paths()):05d}.arrow", items)

    def publish(self, contents: pa.Array | pa.ChunkedArray) -> Index:
        """Make and publish the generation that holds the items with these contents; returns it, open."""
        numbers = [int(path.name[-8:]) for path in self.folder.glob("generation-*")]
        name = f"generation-{max(numbers, default=0) + 1:08d}"
        kind, dtype, width = (self.settings[name] for name in ("requested_kind", "dtype", "width"))
        table = self._all_items()
        table = _filtered(table, pc.is_in(table["content"], value_set=contents))
        items = pa.concat_tables([ITEMS.empty_table(), table.select(ITEMS.names).cast(ITEMS)])
        rows = {part: table[part].combine_chunks().flatten().to_numpy().reshape(-1, width) for part in PARTS}
        items = items.take(pa.array(np.arange(items.num_rows)))  # a copy: the files of the vectors need not stay open
        del table
        counts = {part: items[f"{part}_rows"].to_numpy() for part in PARTS}
        vectors = build_vectors(rows, counts, kind=kind, dtype=dtype, width=width)
        home = self.folder / BUILDING
        home.mkdir()
        write_shard(home / ITEMS_FILE, items)
        save_vectors(vectors, home / VECTORS_FILE)
        manifest = {
            **self.settings,
            "vector_index_version": VERSION,
            "generation": name,
            "items": items.num_rows,
            "kind": vectors.kind,
            "effort": vectors.effort,
            "files": {
                path.name: {"bytes": path.stat().st_size, "sha256": file_hash(path)} for path in sorted(home.iterdir())
            },
        }
        flush(home)
        home.replace(self.folder / name)
        flush(self.folder)
        write_json(self.folder / MANIFEST, {**manifest, "checksum": short_hash(canonical_json(manifest))})
        _sweep(self.folder, keep=(MANIFEST, name))
        return Index.open(self.folder)

    def _all_items(self) -> pa.Table:
        """Every item that is at hand, once, with its vectors: those of the old generation, then those of the parts."""
        width = self.settings["width"]
        tables = [with_vectors([], np.empty((0, 1, width), np.float32), np.empty((0, width), np.float32))]
        if self.old:
            rows = {part: self.old.vectors.rows(slice(None), part=part) for part in PARTS}
            tables.append(_append_vectors(self.old.items, rows))
        # a run that was killed after it published left parts whose items are in the old generation, too
        known = tables[-1]["content"]
        for path in self._part_paths():
            part = self._read_part(path)
            tables.append(_filtered(part, pc.invert(pc.is_in(part["content"], value_set=known))))
        return pa.concat_tables(tables)

    def _part_paths(self) -> list[Path]:
        return sorted(self._parts.glob("part-*.arrow"))

    def _read_part(self, path: Path) -> pa.Table:
        try:
            return read_shard(path)
        except EnvironmentTrouble as error:
            raise UsageError(f"{path} is damaged ({error}). Delete it and run the same command again") from error


def _sweep(folder: Path, keep: tuple[str, str]) -> None:
    """Delete all other files. A process that has one open can still read it: the system keeps it until then."""
    for path in folder.iterdir():
        if _is_own(path) and path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_own(path: Path) -> bool:
    return OWN_FILES.fullmatch(path.name) is not None
