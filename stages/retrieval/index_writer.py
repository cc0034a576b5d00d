"""A vector index on disk: the side that writes it.

    with index_writer(folder, origin={"space": …}, width=256, dtype="float16", kind="auto") as writer:
        writer.publish(items.blocks)

`publish` builds a new generation, renames it into place, and deletes the old files. It reads the blocks several times
and holds one of them at a time, so that it takes little more memory than the index.
"""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import MANIFEST, write_json
from pipeline.engine.run_state import locked
from pipeline.errors import UsageError
from pipeline.hashing import canonical_json, file_hash, short_hash
from pipeline.storage.files import flush, write_file
from stages.retrieval.facts import FACTS, read_facts
from stages.retrieval.index_reader import ITEMS, ITEMS_FILE, RECORD, VECTORS_FILE, VERSION, Generation
from stages.retrieval.vectors import PARTS, build_vectors, save_vectors

BUILDING = ".building"
# names that earlier versions wrote are included
OWN_FILES = re.compile(r"generation-\d{8}|segment-\d{8}|removed-\d{8}\.npy|manifest\.json|\.parts|\.building")
FITTING = 75  # percentile of the best scores of unrelated queries from which on an item fits, see docs/search.md


class Block(NamedTuple):
    """Some items of an index.

    Attributes:
        records: What is kept of them, rows of RECORD.
        counts: By part, how many vectors each has [N].
        rows: By part, their vectors [R,E], in this order.
    """

    records: pa.Table
    counts: Mapping[str, np.ndarray]
    rows: Mapping[str, np.ndarray]


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
        overwrite: Do not even look at the index that is there.

    Raises:
        UsageError: Another writer is at work (with its host and pid), the folder holds something else, or its index is
            damaged or of another version.
    """
    if folder.is_dir():
        foreign = sorted(path.name for path in folder.iterdir() if not (path.name[0] == "." or _is_own(path)))
        if foreign:
            raise UsageError(f"{folder} holds {foreign[0]} and is not an index. Give another --output")
    with locked(folder):
        old = Generation.open(folder) if (folder / MANIFEST).exists() and not overwrite else None
        shutil.rmtree(folder / BUILDING, ignore_errors=True)
        settings = {"origin": origin, "width": width, "dtype": dtype, "requested_kind": kind}
        yield IndexWriter(folder, settings, old)


class IndexWriter:
    """Makes the next generation of an index; made by `index_writer`."""

    def __init__(self, folder: Path, settings: dict[str, Any], old: Generation | None):
        self.folder, self.settings, self.old = folder, settings, old

    def publish(self, blocks: Callable[[], Iterable[Block]], unrelated_QE: np.ndarray | None = None) -> Generation:
        """Make and publish a generation.

        Args:
            blocks: Gives the items that it holds, several times.
            unrelated_QE: Queries that hardly any item fits: the best scores that they reach show what does not fit.
                Without them that is not known.

        Returns:
            The generation, open.
        """
        numbers = [int(path.name[-8:]) for path in self.folder.glob("generation-*")]
        name = f"generation-{max(numbers, default=0) + 1:08d}"
        home = self.folder / BUILDING
        home.mkdir()
        counts = _write_items(home / ITEMS_FILE, blocks(), self.old)
        vectors = build_vectors(
            lambda part: (block.rows[part] for block in blocks()),
            counts,
            kind=self.settings["requested_kind"],
            dtype=self.settings["dtype"],
            width=self.settings["width"],
        )
        save_vectors(vectors, home / VECTORS_FILE)
        manifest = {
            **self.settings,
            "vector_index_version": VERSION,
            "generation": name,
            "items": len(counts["media"]),
            "kind": vectors.kind,
            "effort": vectors.effort,
            "files": {
                path.name: {"bytes": path.stat().st_size, "sha256": file_hash(path)} for path in sorted(home.iterdir())
            },
        }
        if unrelated_QE is not None and vectors.parts["media"].rows:
            manifest["fits"] = float(np.percentile(vectors.search(unrelated_QE, 1)[0], FITTING))
        del vectors
        flush(home)
        home.replace(self.folder / name)
        flush(self.folder)
        write_json(self.folder / MANIFEST, {**manifest, "checksum": short_hash(canonical_json(manifest))})
        _sweep(self.folder, keep=(MANIFEST, name))
        return Generation.open(self.folder)


def _write_items(path: Path, blocks: Iterable[Block], old: Generation | None) -> dict[str, np.ndarray]:
    """Write ITEMS, whose facts are those of the old generation where it has them; returns the rows of items by part."""
    counts: dict[str, list[np.ndarray]] = {part: [np.empty(0, np.int32)] for part in PARTS}
    with write_file(path) as stream, pa.ipc.new_stream(stream, ITEMS) as file:
        for block in blocks:
            items = block.records.select(RECORD.names)
            facts = _facts(items, old)
            for name in FACTS.names:
                items = items.append_column(name, facts[name])
            for part in PARTS:
                counts[part].append(block.counts[part].astype(np.int32))
                items = items.append_column(f"{part}_rows", pa.array(counts[part][-1]))
            file.write_table(items.cast(ITEMS))
    return {part: np.concatenate(of_part) for part, of_part in counts.items()}


def _facts(items: pa.Table, old: Generation | None) -> pa.Table:
    before = old.items["sha256"].combine_chunks() if old else pa.array([], pa.string())
    places = pc.index_in(items["sha256"], value_set=before)
    new = read_facts(items.filter(pc.is_null(places)).to_pylist())
    known = pa.concat_tables([old.items.select(FACTS.names), new]) if old else new
    numbers_N = places.fill_null(-1).to_numpy().copy()
    numbers_N[numbers_N < 0] = len(before) + np.arange(len(new))
    return known.take(pa.array(numbers_N))


def _sweep(folder: Path, keep: tuple[str, str]) -> None:
    """Delete all other files. A process that has one open can still read it: the system keeps it until then."""
    for path in folder.iterdir():
        if _is_own(path) and path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_own(path: Path) -> bool:
    return OWN_FILES.fullmatch(path.name) is not None
