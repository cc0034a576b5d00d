"""Rows of vectors that answer with items: one FAISS index, and which item each row belongs to.

Q queries · E width · R rows · N items · W rows fetched for a query · k items wanted

An item's score is the largest inner product of the query with any of its rows. Flat rows are compared one and all, and
their answers are exact: FAISS finds candidates in 32 bits, whose scores are then computed in 64, so that neither the
number of queries asked at once nor FAISS's order of summation shows. IVF and HNSW look at a part of the rows; how large
a part, their *effort*, is measured when they are built.
"""

# FAISS's stubs do not know all that its classes take.
# mypy: disable-error-code="attr-defined, call-arg, arg-type"

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from pipeline.corpus.table import flush
from pipeline.errors import EnvironmentTrouble, UsageError

KINDS = ("flat", "ivf", "hnsw")
QUANTISERS = {
    "float32": None,
    "float16": faiss.ScalarQuantizer.QT_fp16,
    "int8": faiss.ScalarQuantizer.QT_8bit,  # its own range in each dimension
}
# Flat rows are exact and cost nothing to build. 50,000 of 256 values took 1.5 ms a query on two busy processors, where
# IVF took 0.05 ms after 3 s of building: below this, exact is the better bargain.
FLAT_ROWS = 50_000
BLOCK_FLOATS = 1 << 22  # worked on at once
POINTS_A_LIST = 64  # that k-means sees; more moved recall by less than its noise
ROUNDS = 10  # of k-means
TRAINING_ROWS = 100_000  # at least, for the quantiser's ranges
LINKS, LINKS_EFFORT = 32, 80  # of a node in HNSW, and candidates for them
TUNED_ON, TUNED_AT, TUNED_TO = 256, 10, 0.97  # queries, items, recall: what is promised is 0.95
SPREAD = 0.5  # how far a made-up query lies from the row that it looks for; rows are of length 1
ROUNDING = 4 * 2.0**-24  # of a product of 32 bits, in each of its terms


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is told of rows in a manifest. `effort`: lists visited (IVF) or candidates kept (HNSW); `longest`: the
    length of the longest vector."""

    rows: int
    kind: str
    effort: int
    longest: float


@dataclasses.dataclass(frozen=True)
class Kept:
    """The part of the rows that an answer may come from: how many rows, of how many items."""

    selector: Any  # None: all rows
    rows: int
    items: int


class Rows:
    """Rows [R,E] of N items, for reading; safe to use from several threads. `counts_N`: rows of each item."""

    def __init__(self, index: Any, facts: Facts, counts_N: np.ndarray):
        if index.ntotal != facts.rows or counts_N.sum() != facts.rows:
            raise UsageError(
                f"got {index.ntotal:,} vectors for {counts_N.sum():,} rows of items, wanted {facts.rows:,}: "
                "the index is damaged, build it again"
            )
        self.facts, self.index = facts, index
        self._counts_N = counts_N
        self._starts_N = np.concatenate([[0], np.cumsum(counts_N, dtype=np.int64)])
        self._owner_R = np.repeat(np.arange(len(counts_N), dtype=np.int32), counts_N)
        self._single = int(counts_N.max(initial=0)) <= 1
        self._plain = faiss.downcast_index(index.storage) if facts.kind == "hnsw" else index
        if facts.kind == "ivf":
            index.make_direct_map()  # finds a row by its number
        self._most = {"flat": 1, "ivf": getattr(index, "nlist", 1), "hnsw": facts.rows}[facts.kind]
        self._all = Kept(None, facts.rows, int(np.count_nonzero(counts_N)))

    def kept(self, keep_N: np.ndarray) -> Kept:
        """The rows of the items that `keep_N` (bool) names."""
        rows_R = keep_N[self._owner_R]
        selector = faiss.IDSelectorBitmap(np.packbits(rows_R, bitorder="little")) if len(rows_R) else None
        return Kept(selector, int(rows_R.sum()), int(np.count_nonzero(self._counts_N[keep_N])))

    def search(self, queries_QE: np.ndarray, k: int, kept: Kept | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Scores [Q,k'] and items [Q,k'], best first, ties by item; k' is k, or the items that there are, if fewer.

        An item's rows crowd out others, so more rows are fetched than items are wanted, and more again, by a wider
        search, for the queries that are not yet served: at the end every row is looked at.
        """
        kept = kept or self._all
        k = min(k, kept.items)
        scores_Qk = np.full((len(queries_QE), k), -np.inf, np.float32)
        items_Qk = np.full((len(queries_QE), k), -1, np.int64)
        open_Q = np.arange(len(queries_QE) if k else 0)
        wanted = k * -(-kept.rows // max(1, kept.items))
        if self.facts.kind == "flat":
            wanted += 8 + k // 8  # for what must be told apart in 64 bits
        effort = max(1, self.facts.effort * self.facts.rows // max(1, kept.rows))
        while len(open_Q):
            wanted = min(wanted, kept.rows)
            all_seen = wanted == kept.rows and effort >= self._most
            unserved = []
            for part_Q in _parts(open_Q, wanted):
                scores_Qk[part_Q], items_Qk[part_Q], served_Q = self._found(queries_QE[part_Q], k, wanted, effort, kept)
                unserved.append(part_Q[~served_Q])
            open_Q = np.concatenate(unserved)
            assert not (all_seen and len(open_Q)), "every row was looked at"
            wanted, effort = 4 * wanted, 4 * effort
        return scores_Qk, items_Qk

    def _found(
        self, queries_QE: np.ndarray, k: int, wanted: int, effort: int, kept: Kept
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores [Q,k], items [Q,k], and which queries [Q] cannot be served better by fetching more."""
        scores_QW, rows_QW = self._fetch(queries_QE, wanted, effort, kept)
        missing_QW = rows_QW < 0
        least_Q = np.where(missing_QW, np.inf, scores_QW).min(1)  # no row that was not fetched scores higher
        if self.facts.kind == "flat":
            scores_QW = self._products(queries_QE, rows_QW)
        scores_QW[missing_QW] = -np.inf
        items_QW = np.where(missing_QW, -1, self._owner_R[rows_QW])
        scores_Qk, items_Qk = best(scores_QW, items_QW, k, self._single)
        served_Q = items_Qk[:, -1] >= 0
        if self.facts.kind == "flat" and wanted < kept.rows:
            lengths_Q = np.linalg.norm(queries_QE, axis=1)
            doubt_Q = ROUNDING * queries_QE.shape[1] * lengths_Q * self.facts.longest
            served_Q &= scores_Qk[:, -1] > least_Q + doubt_Q
        return scores_Qk, items_Qk, served_Q

    def _fetch(self, queries_QE: np.ndarray, wanted: int, effort: int, kept: Kept) -> tuple[np.ndarray, np.ndarray]:
        """FAISS's scores [Q,W] and rows [Q,W], -1 where it found fewer."""
        chosen = {} if kept.selector is None else {"sel": kept.selector}
        index, parameters = self._plain, faiss.SearchParameters(**chosen) if chosen else None
        if self.facts.kind == "ivf":
            enough = -(-2 * wanted * self._most // max(1, kept.rows))  # lists that hold twice as many
            parameters = faiss.SearchParametersIVF(nprobe=min(max(effort, enough), self._most), **chosen)
        elif self.facts.kind == "hnsw" and effort < self._most and 4 * kept.rows > self.facts.rows:
            index, parameters = self.index, faiss.SearchParametersHNSW(efSearch=max(effort, wanted), **chosen)
        return index.search(queries_QE, wanted, params=parameters)

    def scores(self, queries_QE: np.ndarray, items_C: np.ndarray) -> np.ndarray:
        """[Q,C], from the stored vectors, in 64 bits before they are rounded; -inf for an item without rows."""
        counts_C = self._counts_N[items_C]
        scores_QC = np.full((len(queries_QE), len(items_C)), -np.inf, np.float32)
        there_C = np.flatnonzero(counts_C)
        step = max(1, BLOCK_FLOATS // (self.index.d * max(1, int(counts_C.max(initial=0)))))
        for start in range(0, len(there_C), step):
            part_C = there_C[start : start + step]
            counts = counts_C[part_C]
            ends = np.cumsum(counts)
            rows = np.repeat(self._starts_N[items_C[part_C]] - ends + counts, counts) + np.arange(ends[-1])
            products = queries_QE.astype(np.float64) @ self._plain.reconstruct_batch(rows).astype(np.float64).T
            scores_QC[:, part_C] = np.maximum.reduceat(products, ends - counts, axis=1)
        return scores_QC

    def vectors(self, item: int) -> np.ndarray:
        """An item's rows [its rows, E], float32, in the order in which they were added."""
        return self.block(int(self._starts_N[item]), int(self._counts_N[item]))

    def block(self, start: int, count: int) -> np.ndarray:
        """`count` rows from row `start` on, float32."""
        return self._plain.reconstruct_batch(np.arange(start, start + count))

    def _products(self, queries_QE: np.ndarray, rows_QW: np.ndarray) -> np.ndarray:
        """Products [Q,W] with the stored rows, rounded to 32 bits once."""
        products_QW = np.empty(rows_QW.shape, np.float32)
        width = max(1, BLOCK_FLOATS // self.index.d)
        for columns in range(0, rows_QW.shape[1], width):
            columns_Q = rows_QW[:, columns : columns + width].clip(0)
            for part in _parts(np.arange(len(rows_QW)), columns_Q.shape[1] * self.index.d):
                vectors_PE = self._plain.reconstruct_batch(columns_Q[part].ravel())
                vectors_QWE = vectors_PE.reshape(len(part), -1, self.index.d).astype(np.float64)
                found = np.einsum("qwe,qe->qw", vectors_QWE, queries_QE[part].astype(np.float64))
                products_QW[part, columns : columns + width] = found
        return products_QW

    def tuned(self, queries_QE: np.ndarray) -> int:
        """The least effort, doubled step by step, that finds TUNED_TO of what looking at every row finds."""
        if self.facts.kind == "flat":
            return 1
        _, truth_Qk = self._fetch(queries_QE, TUNED_AT, self._most, self._all)
        effort = 1
        while effort < self._most:
            _, found_Qk = self._fetch(queries_QE, TUNED_AT, effort, self._all)
            if recall(found_Qk, truth_Qk) >= TUNED_TO:
                break
            effort *= 2
        return min(effort, self._most)


def _parts(numbers: np.ndarray, floats_each: int) -> Iterator[np.ndarray]:
    step = max(1, BLOCK_FLOATS // max(1, floats_each))
    return (numbers[start : start + step] for start in range(0, len(numbers), step))


def best(scores_QW: np.ndarray, items_QW: np.ndarray, k: int, single: bool) -> tuple[np.ndarray, np.ndarray]:
    """The k best different items of each query, ties by item: scores [Q,k], items [Q,k], -inf and -1 where fewer.

    `single`: no item is there twice. Where there is no item, -1, its score is -inf.
    """
    if single and scores_QW.shape[1] >= k and (scores_QW[:, 1:] < scores_QW[:, :-1]).all():
        return scores_QW[:, :k], items_QW[:, :k].astype(np.int64)  # most are in order as FAISS gives them
    order_QW = np.lexsort((items_QW, -scores_QW), axis=1)
    scores_QW, items_QW = (np.take_along_axis(part, order_QW, 1) for part in (scores_QW, items_QW))
    kept_QW = items_QW >= 0
    if not single:
        by_item_QW = np.argsort(items_QW, axis=1, kind="stable")  # of an item, the best comes first
        sorted_QW = np.take_along_axis(items_QW, by_item_QW, 1)
        again_QW = np.zeros_like(kept_QW)
        again_QW[:, 1:] = sorted_QW[:, 1:] == sorted_QW[:, :-1]
        repeated_QW = np.empty_like(kept_QW)
        np.put_along_axis(repeated_QW, by_item_QW, again_QW, 1)
        kept_QW &= ~repeated_QW
    rank_QW = np.cumsum(kept_QW, 1) - 1
    kept_QW &= rank_QW < k
    query, column = np.nonzero(kept_QW)
    scores_Qk = np.full((len(scores_QW), k), -np.inf, np.float32)
    items_Qk = np.full((len(scores_QW), k), -1, np.int64)
    scores_Qk[query, rank_QW[query, column]] = scores_QW[query, column]
    items_Qk[query, rank_QW[query, column]] = items_QW[query, column]
    return scores_Qk, items_Qk


def recall(found_Qk: np.ndarray, truth_Qk: np.ndarray) -> float:
    """The part of what is there that was found; -1 stands for nothing.

    >>> recall(np.array([[4, 7], [1, -1]]), np.array([[7, 9], [1, -1]]))
    0.6666666666666666
    """
    hits_Qk = (truth_Qk[:, :, None] == found_Qk[:, None]).any(2) & (truth_Qk >= 0)
    return float(hits_Qk.sum() / max(1, np.count_nonzero(truth_Qk >= 0)))


def build(
    vectors_RE: np.ndarray, counts_N: np.ndarray, *, kind: str, dtype: str, asked_QE: np.ndarray | None = None
) -> Rows:
    """Rows out of float32 vectors, which may be memory-mapped. `kind`: of KINDS or `auto`; `dtype`: of QUANTISERS.

    `asked_QE`: vectors like those that will be asked for, by which the effort is measured. Without them, rows with
    noise on them stand in.
    """
    count, width = vectors_RE.shape
    if kind == "auto":
        kind = "flat" if count <= FLAT_ROWS else "ivf"
    if not count:
        kind, dtype = "flat", "float32"
    index = empty(kind, dtype, count, width)
    generator = np.random.default_rng(0)
    if not index.is_trained:
        most = max(TRAINING_ROWS, POINTS_A_LIST * getattr(index, "nlist", 1))
        index.train(_sample(vectors_RE, most, generator))
    longest = 0.0
    for start in range(0, count, step := max(1, BLOCK_FLOATS // width)):
        block_RE = np.ascontiguousarray(vectors_RE[start : start + step], np.float32)
        longest = max(longest, float(np.linalg.norm(block_RE, axis=1).max()))
        index.add(block_RE)
    rows = Rows(index, Facts(count, kind, 1, longest), counts_N)
    if kind != "flat":
        if asked_QE is None or len(asked_QE) < TUNED_ON:
            asked_QE = _sample(vectors_RE, TUNED_ON, generator)
            noise_QE = generator.normal(size=asked_QE.shape)
            asked_QE = asked_QE + SPREAD * noise_QE / np.linalg.norm(noise_QE, axis=1, keepdims=True)
        effort = rows.tuned(_sample(asked_QE, TUNED_ON, generator))
        rows.facts = dataclasses.replace(rows.facts, effort=effort)
    return rows


def _sample(vectors_RE: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
    """Up to `most` rows, in their order, float32."""
    count = len(vectors_RE)
    chosen = np.sort(generator.choice(count, most, replace=False)) if count > most else np.arange(count)
    return np.ascontiguousarray(vectors_RE[chosen], np.float32)


def empty(kind: str, dtype: str, rows: int, width: int) -> Any:
    """An index of FAISS for so many rows, not yet trained."""
    index: Any
    quantiser, metric = QUANTISERS[dtype], faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        return faiss.IndexFlatIP(width) if quantiser is None else faiss.IndexScalarQuantizer(width, quantiser, metric)
    if kind == "hnsw":
        if quantiser is None:
            index = faiss.IndexHNSWFlat(width, LINKS, metric)
        else:
            index = faiss.IndexHNSWSQ(width, quantiser, LINKS, metric)
        index.hnsw.efConstruction = LINKS_EFFORT
        return index
    lists, coarse = lists_for(rows), faiss.IndexFlatIP(width)
    if quantiser is None:
        index = faiss.IndexIVFFlat(coarse, width, lists, metric)
    else:
        index = faiss.IndexIVFScalarQuantizer(coarse, width, lists, quantiser, metric)
    index.cp.niter, index.cp.max_points_per_centroid = ROUNDS, POINTS_A_LIST
    index.cp.min_points_per_centroid = 1  # fewer than FAISS likes are no reason to write to the user's terminal
    return index


def lists_for(rows: int) -> int:
    """Lists of an IVF index, 4 √rows: then finding the lists and looking through them cost about the same."""
    return max(1, min(rows, round(4 * rows**0.5)))


def save(rows: Rows, path: Path) -> None:
    """Raises EnvironmentTrouble where the disk does not take it."""
    try:
        with path.open("wb") as stream:  # FAISS's own writer does not fail where the last bytes found no room
            faiss.write_index(rows.index, faiss.PyCallbackIOWriter(stream.write))
    except (OSError, RuntimeError, SystemError) as error:
        raise EnvironmentTrouble(
            f"cannot write {path} ({error}): make room, then run the same command again"
        ) from error
    flush(path)


def load(path: Path, facts: Facts, counts_N: np.ndarray) -> Rows:
    """Rows from a file, memory-mapped where FAISS can. Raises UsageError where it is not what was written."""
    try:
        return Rows(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), facts, counts_N)
    except (RuntimeError, MemoryError) as error:
        raise UsageError(f"{path} is no vector index of FAISS ({error}): build the index again") from error
