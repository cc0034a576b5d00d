"""A vector index on disk, the side that answers: which items have rows with the largest inner product with a query?

    with VectorIndex.open(folder, expect={"encoder": fingerprint}) as index:
        scores_Qk, numbers_Qk = index.search(queries_QE, 10, keep_N=pc.equal(index.column("split"), "test"))
        print(index.items(numbers_Qk[0]))

Q queries · E width · k items wanted · C candidates · N numbers of items, from 0 on, those of removed ones included

An index answers from the generation that it opened, however often others are published meanwhile: files are mapped or
read at once, and what is mapped stays readable when it is deleted. `refresh` goes on to the generation that is
published now, where an item may have another number: who needs numbers to hold while others refresh takes `pinned()`.
`stages.retrieval.index_writer` writes.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from pipeline.corpus.table import MANIFEST
from pipeline.errors import UsageError
from pipeline.hashing import differences
from stages.retrieval import rows as vector_rows
from stages.retrieval.rows import Kept
from stages.retrieval.segments import AGAIN, GROUPS, ITEMS, RECORD, Segment, check, files, read_manifest


class OtherOrigin(UsageError):
    """The index was made from something else than is expected."""


class Generation:
    """One published state of an index, open. Raises UsageError where a file is missing or damaged."""

    def __init__(self, folder: Path, manifest: dict[str, Any], before: "Generation | None" = None):
        self.folder, self.manifest = folder, manifest
        reused = {segment.entry["name"]: segment for segment in before.segments} if before else {}
        self.segments: list[Segment] = []
        for entry in manifest["segments"]:
            old = reused.get(entry["name"])
            self.segments.append(old if old and old.entry == entry else Segment(folder, entry))
        self.starts = np.concatenate([[0], np.cumsum([len(segment) for segment in self.segments], dtype=np.int64)])
        self.present_N = np.ones(self.starts[-1], bool)
        if manifest["removed"]:
            self.present_N[_removed(folder, manifest["removed"])] = False
        tables = [segment.items for segment in self.segments] or [ITEMS.empty_table()]
        self.items = pa.concat_tables(tables)
        self._kept = [self._part(index, self.present_N) for index in range(len(self.segments))]

    def _part(self, index: int, keep_N: np.ndarray, groups: Sequence[str] = GROUPS) -> dict[str, Kept] | None:
        """Which rows of a segment are kept, by group; None where all are."""
        part_N = keep_N[self.starts[index] : self.starts[index + 1]]
        if part_N.all():
            return None
        return {group: self.segments[index].groups[group].kept(part_N) for group in groups}

    def search(
        self, queries_QE: np.ndarray, k: int, group: str, keep_N: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        scores, numbers = [], []
        for index, segment in enumerate(self.segments):
            kept = self._kept[index] if keep_N is None else self._part(index, keep_N & self.present_N, [group])
            found = segment.groups[group].search(queries_QE, k, kept[group] if kept else None)
            scores.append(found[0])
            numbers.append(np.where(found[1] < 0, -1, found[1] + self.starts[index]))
        if len(scores) == 1 and scores[0].shape[1] == k:
            return scores[0], numbers[0]
        scores.append(np.full((len(queries_QE), k), -np.inf, np.float32))
        numbers.append(np.full((len(queries_QE), k), -1, np.int64))
        return vector_rows.best(np.concatenate(scores, 1), np.concatenate(numbers, 1), k, single=True)

    def scores(self, queries_QE: np.ndarray, numbers_C: np.ndarray, group: str) -> np.ndarray:
        scores_QC = np.full((len(queries_QE), len(numbers_C)), -np.inf, np.float32)
        place_C = np.searchsorted(self.starts, numbers_C, side="right") - 1
        for index in np.unique(place_C):
            mine_C = np.flatnonzero(place_C == index)
            local_C = numbers_C[mine_C] - self.starts[index]
            scores_QC[:, mine_C] = self.segments[index].groups[group].scores(queries_QE, local_C)
        return scores_QC


class VectorIndex:
    """An open index; all methods may be called from several threads at once."""

    def __init__(self, folder: Path, generation: Generation, expect: Mapping[str, Any]):
        self.folder, self._expect = folder, expect
        self._open: Generation | None = generation

    @classmethod
    def open(cls, folder: Path, *, expect: Mapping[str, Any] | None = None) -> Self:
        """Open what is published in `folder`. `expect`: parts of its origin that must be so, by name.

        Raises UsageError where there is no index, where it is not whole, and where its origin is another, naming the
        part that differs.
        """
        return cls(folder, _load(folder, expect or {}), expect or {})

    @property
    def _now(self) -> Generation:
        if self._open is None:
            raise ValueError(f"the index {self.folder} is closed")
        return self._open

    @property
    def origin(self) -> dict[str, Any]:
        """What the writer was given: how the vectors came to be."""
        return self._now.manifest["origin"]

    @property
    def width(self) -> int:
        return self._now.manifest["width"]

    @property
    def dtype(self) -> str:
        """`float32`, `float16` or `int8`, as which the values are stored."""
        return self._now.manifest["dtype"]

    @property
    def kind(self) -> str:
        """As it was asked for: `flat`, `ivf`, `hnsw` or `auto`."""
        return self._now.manifest["kind"]

    @property
    def span(self) -> int:
        """N: numbers run from 0 to N - 1, those of removed items included."""
        return len(self._now.present_N)

    def __len__(self) -> int:
        """Items that are there."""
        return int(self._now.present_N.sum())

    def present(self) -> np.ndarray:
        """[N] bool: whether the item of this number is there."""
        return self._now.present_N

    def search(
        self, queries_QE: np.ndarray, k: int, *, group: str = "media", keep_N: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores [Q,k] float32 and numbers [Q,k] int64 of the k best items, best first, ties by number.

        -inf and -1 stand where there are fewer items with rows in the group. `keep_N`: which items, by number, may be
        among them, bool. Raises UsageError for queries of another width or with values that are no finite numbers.
        """
        if k < 1:
            raise UsageError(f"got {k} results wanted, wanted 1 or more")
        now = self._now
        queries_QE = _queries(queries_QE, now.manifest["width"])
        if keep_N is not None:
            keep_N = np.asarray(keep_N)
            if keep_N.shape != now.present_N.shape or keep_N.dtype != bool:
                raise ValueError(f"got keep_N {keep_N.dtype} {keep_N.shape}, wanted bool {now.present_N.shape}")
        return now.search(queries_QE, k, _group(group), keep_N)

    def scores(self, queries_QE: np.ndarray, numbers_C: np.ndarray, *, group: str = "media") -> np.ndarray:
        """Scores [Q,C] float32 of these items, exact for the vectors as stored; -inf for one without rows."""
        now = self._now
        return now.scores(_queries(queries_QE, now.manifest["width"]), _numbers(numbers_C, now), _group(group))

    def vectors(self, number: int, *, group: str = "media") -> np.ndarray:
        """An item's rows [its rows, E] float32 as stored, in the order in which they were added."""
        now = self._now
        (place,) = _numbers([number], now)
        index = int(np.searchsorted(now.starts, place, side="right")) - 1
        return now.segments[index].groups[_group(group)].vectors(int(place - now.starts[index]))

    def items(self, numbers: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """The records of these items, as they were added."""
        now = self._now
        return now.items.select(RECORD.names).take(pa.array(_numbers(numbers, now))).to_pylist()

    @property
    def records(self) -> pa.Table:
        """Of all N numbers, as they were added, with the count of their rows."""
        return self._now.items

    def column(self, name: str) -> pa.ChunkedArray:
        """One field of the records of all N numbers, for filters."""
        return self._now.items.column(name)

    def verify(self) -> None:
        """Read every file and compare its checksum. Raises UsageError naming the first that differs."""
        now = self._now
        for name, told in files(now.manifest).items():
            check(now.folder / name, told, hashes=True)

    def refresh(self) -> bool:
        """Go on to the generation that is published now; False where it is the one that is open.

        Raises UsageError as `open` does; then the index goes on answering from the generation that it had.
        """
        before = self._now
        if read_manifest(self.folder) == before.manifest:
            return False
        self._open = _load(self.folder, self._expect, before)
        return True

    def pinned(self) -> Self:
        """This index at its generation of now: a refresh of the one does not move the other."""
        return copy.copy(self)

    def close(self) -> None:
        """Let go of the files. Searches that run in other threads end in peace."""
        self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _load(folder: Path, expect: Mapping[str, Any], before: Generation | None = None) -> Generation:
    """A writer may publish the next generation, and delete this one's files, before they are all open: then again."""
    manifest = read_manifest(folder)
    while True:
        if manifest is None:
            state = "is not complete" if folder.is_dir() else "is not there"
            raise UsageError(f"{folder} {state} (no {MANIFEST}): build an index there with stages/index.py")
        _compare(folder, manifest["origin"], expect)
        try:
            return Generation(folder, manifest, before)
        except UsageError:
            tried, manifest = manifest, read_manifest(folder)
            if manifest == tried:
                raise


def _compare(folder: Path, origin: Mapping[str, Any], expect: Mapping[str, Any]) -> None:
    there = {key: _asked_for(origin[key], wanted) for key, wanted in expect.items() if key in origin}
    told = differences(there, dict(expect))
    if told:
        name, got, wanted = told[0]
        raise OtherOrigin(
            f"{folder} was made from another {name}: got {got!r}, wanted {wanted!r}: "
            f"give what it was made from, or {AGAIN}"
        )


def _asked_for(there: Any, wanted: Any) -> Any:
    """Of a mapping, what is wanted to be so."""
    if not (isinstance(there, Mapping) and isinstance(wanted, Mapping)):
        return there
    return {name: there[name] for name in wanted if name in there}


def _removed(folder: Path, told: Mapping[str, Any]) -> np.ndarray:
    path = folder / told["name"]
    check(path, told, hashes=True)  # small, and every number in it is used
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}): {AGAIN}") from error


def _queries(queries_QE: np.ndarray, width: int) -> np.ndarray:
    queries_QE = np.ascontiguousarray(queries_QE, np.float32)
    if queries_QE.ndim != 2 or queries_QE.shape[1] != width:
        raise UsageError(
            f"got queries of shape {queries_QE.shape}, wanted [queries, {width}]: ask with the model that the index "
            "was made with"
        )
    if not np.isfinite(queries_QE).all():
        raise UsageError("got a query with values that are no finite numbers, wanted a vector of the encoder's")
    return queries_QE


def _numbers(numbers: Sequence[int] | np.ndarray, now: Generation) -> np.ndarray:
    numbers = np.asarray(numbers, np.int64).reshape(-1)
    outside = (numbers < 0) | (numbers >= len(now.present_N))
    if outside.any() or not now.present_N[numbers].all():
        raise ValueError(f"got numbers {numbers[:10]}, wanted those of items that are there, as search gives them")
    return numbers


def _group(group: str) -> str:
    if group not in GROUPS:
        raise ValueError(f"got group {group!r}, wanted one of {GROUPS}")
    return group
