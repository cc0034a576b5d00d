"""Search over vectors with items as results: one FAISS index, and the item that each of its rows belongs to.

Q queries · E width · R rows · N items · W rows fetched for a query · k results

An item has rows of three parts: `media`, with which queries are compared; `text`, one for each of its descriptions and
captions; and `frame`, one for each frame of a video. All rows of a part come one after the other, in the order of the
items. An item's score is the largest inner
product of the query with any of its rows in a part. IVF visits only some of its lists of rows. How many, its *effort*,
is measured when the index is built.
"""

# FAISS's type stubs lack some arguments and attributes.
# mypy: disable-error-code="attr-defined, call-arg, arg-type"

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.storage.files import flush

# FAISS's threads spin while they wait, and its OpenMP runtime reads this when it is loaded. One query at a time, a
# second of CPU time answered 72 queries with spinning threads and 458 without, on two busy processors.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import faiss

PARTS = ("media", "text", "frame")
KINDS = {"flat": "", "ivf": "IVF{lists},"}  # prefixes of FAISS's index factory
DTYPES = {"float32": "Flat", "float16": "SQfp16"}
# Flat rows are exact and cost nothing to build. 50,000 of 256 values took 1.5 ms a query on two busy processors, where
# IVF took 0.05 ms after 3 s of building: below this, exact search is worth it.
FLAT_ROWS = 50_000
POINTS_A_LIST = 64  # vectors that k-means gets per list; more moved recall by less than its noise
TUNING_QUERIES, TUNING_K, TUNING_RECALL = 256, 10, 0.97  # what is promised is 0.95
TUNING_NOISE = 0.5  # distance of a synthetic query from the row that it looks for; rows are of length 1


class Part(NamedTuple):
    """Where the rows of a part are. `most`: rows of one item at most; `items`: items that have any."""

    first: int
    rows: int
    counts_N: np.ndarray
    starts_N: np.ndarray
    owner_R: np.ndarray
    most: int
    items: int

    @classmethod
    def of(cls, counts_N: np.ndarray, first: int) -> "Part":
        """The part whose items have `counts_N` rows each, from row `first` on."""
        counts_N = counts_N.astype(np.int64)
        starts_N = first + np.cumsum(counts_N) - counts_N
        owner_R = np.repeat(np.arange(len(counts_N), dtype=np.int32), counts_N)
        most, items = int(counts_N.max(initial=0)), int(np.count_nonzero(counts_N))
        return cls(first, int(counts_N.sum()), counts_N, starts_N, owner_R, most, items)


class ItemVectors:
    """Rows of N items in a FAISS index, for reading; safe to use from several threads.

    Args:
        index: FAISS index of all rows.
        kind: `flat` or `ivf`.
        effort: Lists visited for a query.
        counts: By part, the rows of each item [N], in the order of PARTS.

    Raises:
        UsageError: The index does not have as many rows as the items.
    """

    def __init__(self, index: Any, kind: str, effort: int, counts: Mapping[str, np.ndarray]):
        self.index, self.kind, self.effort = index, kind, effort
        self.parts, rows = dict[str, Part](), 0
        for part in counts:
            self.parts[part] = Part.of(counts[part], rows)
            rows += self.parts[part].rows
        if index.ntotal != rows:
            raise UsageError(f"the index has {index.ntotal:,} vectors for {rows:,} rows of items. Make it anew")
        if kind == "ivf":
            index.make_direct_map()  # finds a row by its number

    def search(
        self, queries_QE: np.ndarray, k: int, *, part: str = "media", keep_N: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the items with the largest scores.

        Args:
            queries_QE: Queries, float32.
            k: Results of each query.
            part: Rows to compare with.
            keep_N: Items that may be among the results, bool; all if not given.

        Returns:
            Scores [Q,k] float32 and items [Q,k] int64, best first, ties by item. There are fewer columns where fewer
            items have rows in the part.
        """
        rows = self.parts[part]
        items, kept_rows = rows.items, rows.rows
        selector: Any = None
        if keep_N is not None:
            items, kept_rows = int(np.count_nonzero(rows.counts_N[keep_N])), int(rows.counts_N[keep_N].sum())
            mask_R = np.zeros(self.index.ntotal, bool)
            mask_R[rows.first : rows.first + rows.rows] = keep_N[rows.owner_R]
            selector = faiss.IDSelectorBitmap(np.packbits(mask_R, bitorder="little")) if kept_rows else None
        elif rows.rows < self.index.ntotal:
            selector = faiss.IDSelectorRange(rows.first, rows.first + rows.rows)
        k = min(k, items)
        if not k:
            return np.empty((len(queries_QE), 0), np.float32), np.empty((len(queries_QE), 0), np.int64)
        row_count = min(k * rows.most, kept_rows)  # among so many rows there are k different items
        scores_Qk = np.empty((len(queries_QE), k), np.float32)
        items_Qk = np.empty((len(queries_QE), k), np.int64)
        open_Q = np.arange(len(queries_QE))
        effort = self.effort * (rows.rows // kept_rows)  # a filter leaves fewer rows in each list
        while len(open_Q):  # at last all rows are compared, and every query has its k items
            scores_QW, rows_QW = self._fetch(queries_QE[open_Q], row_count, effort, selector)
            items_QW = np.where(rows_QW < 0, -1, rows.owner_R[np.maximum(rows_QW - rows.first, 0)])
            scores_Qk[open_Q], items_Qk[open_Q] = best_items(scores_QW, items_QW, k, rows.most == 1)
            open_Q = open_Q[items_Qk[open_Q, -1] < 0]
            effort *= 4
        if self.kind != "flat" and rows.most > 1:  # an item's best row may be one that was not compared
            for query, items_k in enumerate(items_Qk):
                scores_k = self.scores(queries_QE[query : query + 1], items_k, part=part)[0]
                order_k = np.lexsort((items_k, -scores_k))
                scores_Qk[query], items_Qk[query] = scores_k[order_k], items_k[order_k]
        return scores_Qk, items_Qk

    def _fetch(self, queries_QE: np.ndarray, count: int, effort: int, selector: Any) -> tuple[np.ndarray, np.ndarray]:
        """FAISS's scores [Q,W] and rows [Q,W], -1 where there are fewer."""
        given = {"sel": selector} if selector is not None else {}
        parameters = faiss.SearchParameters(**given) if given else None
        if self.kind == "ivf":
            parameters = faiss.SearchParametersIVF(nprobe=min(effort, self.index.nlist), **given)
        scores_QW, rows_QW = self.index.search(queries_QE, count, params=parameters)
        return scores_QW, rows_QW

    def scores(self, queries_QE: np.ndarray, items_C: np.ndarray, *, part: str = "media") -> np.ndarray:
        """Scores [Q,C] of these items from the stored vectors; -inf for an item without rows in the part."""
        rows = self.parts[part]
        scores_QC = np.full((len(queries_QE), len(items_C)), -np.inf, np.float32)
        having_C = np.flatnonzero(rows.counts_N[items_C])
        if len(having_C):
            counts = rows.counts_N[items_C[having_C]]
            ends = np.cumsum(counts)
            numbers = np.repeat(rows.starts_N[items_C[having_C]] - ends + counts, counts) + np.arange(ends[-1])
            products = queries_QE @ self.index.reconstruct_batch(numbers).T
            scores_QC[:, having_C] = np.maximum.reduceat(products, ends - counts, axis=1)
        return scores_QC

    def rows(self, items: slice, *, part: str = "media") -> np.ndarray:
        """Stored rows [R,E] float32 of neighbouring items, in their order."""
        counts_N, starts_N = self.parts[part].counts_N[items], self.parts[part].starts_N[items]
        first = int(starts_N[0]) if len(starts_N) else 0
        rows_RE: np.ndarray = self.index.reconstruct_batch(np.arange(first, first + int(counts_N.sum())))
        return rows_RE


def best_items(
    scores_QW: np.ndarray, items_QW: np.ndarray, k: int, single: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The k best different items of each query, ties by item.

    Args:
        scores_QW: Scores of rows.
        items_QW: Items of the rows, -1 for none.
        k: Items to keep.
        single: Whether no item comes twice.

    Returns:
        Scores [Q,k] and items [Q,k], with -inf and -1 where there are fewer.
    """
    if single and (scores_QW[:, 1:] < scores_QW[:, :-1]).all() and (items_QW >= 0).all():
        return scores_QW[:, :k], items_QW[:, :k]  # in order, as FAISS gives nearly all of them
    order_QW = np.lexsort((items_QW, np.where(items_QW < 0, np.inf, -scores_QW)), axis=1)
    scores_QW, items_QW = (np.take_along_axis(values, order_QW, 1) for values in (scores_QW, items_QW))
    scores_Qk = np.full((len(scores_QW), k), -np.inf, np.float32)
    items_Qk = np.full((len(scores_QW), k), -1, np.int64)
    for query, items_W in enumerate(items_QW):
        _, firsts = np.unique(items_W, return_index=True)
        firsts = np.sort(firsts[items_W[firsts] >= 0])[:k]
        scores_Qk[query, : len(firsts)], items_Qk[query, : len(firsts)] = scores_QW[query, firsts], items_W[firsts]
    return scores_Qk, items_Qk


def recall(items_Qk: np.ndarray, truth_Qk: np.ndarray) -> float:
    """The share of the true items that were found; -1 marks an empty place.

    >>> recall(np.array([[4, 7], [1, -1]]), np.array([[7, 9], [1, -1]]))
    0.6666666666666666
    """
    hits_Qk = (truth_Qk[:, :, None] == items_Qk[:, None]).any(2) & (truth_Qk >= 0)
    return float(hits_Qk.sum() / max(1, np.count_nonzero(truth_Qk >= 0)))


def build_vectors(
    rows: Callable[[str], Iterable[np.ndarray]], counts: Mapping[str, np.ndarray], *, kind: str, dtype: str, width: int
) -> ItemVectors:
    """Put rows into a FAISS index.

    Args:
        rows: Gives the rows of a part, block by block, float32 [R,E]. They are asked for several times, so that only
            one block has to be in memory.
        counts: By part, the rows of each item [N], in the order of PARTS.
        kind: `flat`, `ivf`, or `auto`, which goes by size.
        dtype: How values are stored: `float32` or `float16`.
        width: E.
    """
    totals = {part: int(counts[part].sum()) for part in counts}
    total = sum(totals.values())
    if kind == "auto":
        kind = "flat" if total <= FLAT_ROWS else "ivf"
    if not total:
        kind = "flat"  # an empty IVF index cannot be trained
    index, generator = empty_index(kind, dtype, total, width), np.random.default_rng(0)
    if kind == "ivf":
        most = POINTS_A_LIST * index.nlist
        parts = [_sample(rows(part), totals[part], most * totals[part] // total, generator) for part in counts]
        index.train(np.concatenate([part_RE for part_RE in parts if len(part_RE)]))
        del parts
    for part in counts:
        for rows_RE in rows(part):
            index.add(rows_RE)
    vectors = ItemVectors(index, kind, 1, counts)
    if kind != "flat":
        # a description is much like a query; without descriptions, rows with added noise are used
        of = "text" if totals["text"] >= TUNING_QUERIES else "media"
        queries_QE = _sample(rows(of), totals[of], TUNING_QUERIES, generator)
        if of == "media":
            noise_QE = generator.normal(size=queries_QE.shape)
            noise_QE *= TUNING_NOISE / np.linalg.norm(noise_QE, axis=1, keepdims=True)
            queries_QE = (queries_QE + noise_QE).astype(np.float32)
        vectors.effort = _measured_effort(vectors, queries_QE)
    return vectors


def empty_index(kind: str, dtype: str, rows: int, width: int) -> Any:
    """An empty, untrained FAISS index for this many rows."""
    lists = max(1, min(rows, round(4 * rows**0.5)))  # finding the lists and reading them then cost about the same
    spec = KINDS[kind].format(lists=lists) + DTYPES[dtype]
    index = faiss.index_factory(width, spec, faiss.METRIC_INNER_PRODUCT)
    if kind == "ivf":
        index.cp.max_points_per_centroid = POINTS_A_LIST
        index.cp.min_points_per_centroid = 1  # few points are no reason for a warning on the user's terminal
        index.by_residual = False  # values are stored as they are, so that they can be taken over unchanged
    return index


def _measured_effort(vectors: ItemVectors, queries_QE: np.ndarray) -> int:
    """The least power of two that finds TUNING_RECALL of the items that an exhaustive search finds."""
    most: int = vectors.index.ntotal
    vectors.effort = most
    _, truth_Qk = vectors.search(queries_QE, TUNING_K)
    vectors.effort = 1
    while vectors.effort < most and recall(vectors.search(queries_QE, TUNING_K)[1], truth_Qk) < TUNING_RECALL:
        vectors.effort *= 2
    return min(vectors.effort, most)


def _sample(blocks: Iterable[np.ndarray], total: int, most: int, generator: np.random.Generator) -> np.ndarray:
    """Up to `most` of the `total` rows in some blocks, drawn at random."""
    drawn, first, parts = np.sort(generator.permutation(total)[:most]), 0, []
    for rows_RE in blocks:
        here = slice(*np.searchsorted(drawn, [first, first + len(rows_RE)]))
        parts.append(rows_RE[drawn[here] - first])
        first += len(rows_RE)
    return np.concatenate(parts)


def save_vectors(vectors: ItemVectors, path: Path) -> None:
    """Write the FAISS index to a file. Raises EnvironmentTrouble if it cannot be written."""
    try:
        with path.open("wb") as stream:  # FAISS's own writer does not fail where there is no room for the last bytes
            faiss.write_index(vectors.index, faiss.PyCallbackIOWriter(stream.write))
    except (OSError, RuntimeError, SystemError) as error:
        raise EnvironmentTrouble(
            f"cannot write {path} ({error}). Make room, then run the same command again"
        ) from error
    flush(path)


def load_vectors(path: Path, kind: str, effort: int, counts: Mapping[str, np.ndarray]) -> ItemVectors:
    """Vectors from a file, memory-mapped where FAISS can. Raises UsageError if it is not a FAISS index."""
    try:
        return ItemVectors(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), kind, effort, counts)
    except (RuntimeError, MemoryError) as error:
        raise UsageError(f"{path} is not a FAISS index ({error}). Make the index anew") from error
