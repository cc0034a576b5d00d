"""Ranks of texts among media and of media among texts, both from one product that is never whole in memory.

M texts · N media · E shared width · K slots · A global weights · R × C a tile of the product · P pairs

A rank counts from 1: the place of the best correct candidate, one more than the number of wrong candidates that score
as high. Ties count against, so a model that gives everything the same score ranks last, not first:

    scores of one text  0.9  0.7  0.7  0.1   the second is the right one: rank 3 (0.9 is above, 0.7 is level)

Scores nearer than TIE are level. A 32-bit product is wrong in its last digits, differently for every tile size, so it
decides only what is further from the threshold than its error can be; the rest is decided in 64 bits. That makes ranks
independent of chunks, threads and machines, at the price of a second comparison.
"""

import concurrent.futures
import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray
Pairs = tuple[Array, Array]  # rows of texts, and with each a row of the media

TIE = 1e-6  # times the longest vectors' product: what encoders in 32 bits do not tell apart
ROWS, COLUMNS = 1020, 1024  # of a tile: 4 MiB, so that comparing reads from cache
BYTE = 255  # what a byte can count to
PAIRS = 2048  # decided at once in 64 bits
DOUBTFUL = 1 / 256  # share of a tile's cells above which the tile is computed again in 64 bits, not cell by cell


class Ranked(NamedTuple):
    """Ranks in both directions, and the score of the best correct candidate, which stands at that rank.

    Attributes:
        text_to_media: Ranks [M] of the texts' items, int64, from 1.
        media_to_text: Ranks [N] of the items' best texts, int64, from 1.
        text_scores: Scores [M], float64.
        media_scores: Scores [N], float64.
    """

    text_to_media: Tensor
    media_to_text: Tensor
    text_scores: Tensor
    media_scores: Tensor


def ranked(
    text_ME: Tensor,
    text_items_M: Tensor,
    media_NE: Tensor,
    media_items_N: Tensor,
    slots_NKE: Tensor | None = None,
    global_weights: Sequence[float] = (1.0,),
    chunk: tuple[int, int] = (ROWS, COLUMNS),
) -> list[Ranked]:
    """Rank by the score a·⟨text, media⟩ + (1 − a)·max_k ⟨text, slot_k⟩ on the CPU, on as many threads as torch uses.

    Args:
        text_ME: Texts.
        text_items_M: The item of each text. An item may have several, and none of them counts against another.
        media_NE: Media of the gallery.
        media_items_N: Their items, distinct.
        slots_NKE: Slots of the gallery; without any, the score is ⟨text, media⟩ whatever a is.
        global_weights: Values of a.
        chunk: Rows and columns of a tile.

    Returns:
        The ranks for each value of a.

    Raises:
        ValueError: Vectors are not finite, an item is in the gallery twice, a text's item is not in it, or an item has
            no text.
    """
    own_M = _owners(text_items_M.cpu().numpy(), media_items_N.cpu().numpy())
    vectors, weights = [text_ME, media_NE], [1.0]
    if slots_NKE is not None and slots_NKE.shape[1] and any(weight != 1 for weight in global_weights):
        vectors, weights = [*vectors, slots_NKE], list(global_weights)
    scorer = _Scorer([it.detach().float().cpu().contiguous() for it in vectors], weights, own_M)
    media_counts = np.zeros((len(scorer.weights), len(media_NE)), np.int64)
    text_counts = []
    strips = [slice(row, min(row + chunk[0], len(own_M))) for row in range(0, len(own_M), chunk[0])]
    with _workers() as pool:
        for by_row, by_column in pool.map(lambda rows: scorer.strip(rows, chunk[1]), strips):
            text_counts.append(by_row)
            media_counts += by_column
    counts = np.concatenate(text_counts, axis=1), media_counts
    parts = zip(*(torch.from_numpy(1 + count) for count in counts), *map(torch.from_numpy, scorer.best), strict=True)
    return [Ranked(*part) for part in parts] * (len(global_weights) // len(weights))


@contextlib.contextmanager
def _workers() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """A worker for each thread of torch, which multiplies on its own: no barrier that waits for the slowest."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with concurrent.futures.ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


class _Scorer:
    """Texts, media and slots with the thresholds to reach: for texts (side 0, a tile's rows) and media (side 1).

    Counting is numpy's: it compares as fast on one thread as torch does on two.
    """

    def __init__(self, vectors: list[Tensor], weights: list[float], own_M: Array):
        lengths = [float(it.norm(dim=-1).max()) for it in vectors]
        if not all(map(math.isfinite, lengths)):
            raise ValueError("some vectors to be ranked are not finite: the model has diverged")
        self.vectors, self.weights, self.own_M = vectors, weights, own_M
        positives_AM = self.pairs(np.arange(len(own_M)), own_M)
        best_AN = np.full((len(weights), len(vectors[1])), -np.inf)
        for best_N, positive_M in zip(best_AN, positives_AM, strict=True):
            np.maximum.at(best_N, own_M, positive_M)
        largest = lengths[0] * max(lengths[1:])  # no score is larger
        # More than the roundings of a 32-bit score add up to: half a digit for each product and sum.
        error = (vectors[0].shape[1] + 8) * torch.finfo(torch.float32).eps / 2 * largest
        self.best = positives_AM, best_AN
        self.exact: list[Array] = [best - TIE * largest for best in self.best]
        self.low: list[Array] = [(threshold - error).astype(np.float32) for threshold in self.exact]
        self.high: list[Array] = [(threshold + error).astype(np.float32) for threshold in self.exact]

    def strip(self, rows: slice, width: int) -> tuple[Array, Array]:
        """[A,R] and [A,N]: the wrong candidates that reach the thresholds of these texts, and of every item."""
        num_media = len(self.vectors[1])
        memory = _Memory()
        by_row_AR = np.zeros((len(self.weights), rows.stop - rows.start), np.int64)
        by_column_AN = np.zeros((len(self.weights), num_media), np.int64)
        for start in range(0, num_media, width):
            spans = rows, slice(start, min(start + width, num_media))
            products = self._products(spans, torch.float32, memory)
            for index in range(len(self.weights)):
                by_row, by_column = self._count(index, spans, products, memory)
                by_row_AR[index] += by_row
                by_column_AN[index, spans[1]] += by_column
        return by_row_AR, by_column_AN

    def pairs(self, texts_P: Array, media_P: Array) -> Array:
        """Scores [A,P] in 64 bits of texts and media given by their rows."""
        text_ME, *others = (it.numpy() for it in self.vectors)
        scores_AP = np.empty((len(self.weights), len(texts_P)))
        for start in range(0, len(texts_P), PAIRS):
            part = slice(start, start + PAIRS)
            text_PE = text_ME[texts_P[part]].astype(np.float64)
            whole_P = local_P = np.einsum("pe,pe->p", text_PE, others[0][media_P[part]])
            if len(others) > 1:
                local_P = np.einsum("pe,pke->pk", text_PE, others[1][media_P[part]]).max(1)
            for index, weight in enumerate(self.weights):
                scores_AP[index, part] = weight * whole_P + (1 - weight) * local_P
        return scores_AP

    def _products(self, spans: tuple[slice, slice], dtype: torch.dtype, memory: "_Memory") -> list[Tensor]:
        """[R,C] the global and, with slots, the local similarities of a tile."""
        text_RE = self.vectors[0][spans[0]].to(dtype)
        media_CE, *slots = (it[spans[1]].to(dtype) for it in self.vectors[1:])
        size = (len(text_RE), len(media_CE)), dtype
        products = [torch.mm(text_RE, media_CE.T, out=memory.get("global", *size))]
        for slots_CKE in slots:
            first_CE, *more = slots_CKE.unbind(1)
            local_RC = torch.mm(text_RE, first_CE.T, out=memory.get("local", *size))
            for slot_CE in more:
                slot_RC = torch.mm(text_RE, slot_CE.T, out=memory.get("slot", *size))
                torch.maximum(local_RC, slot_RC, out=local_RC)
            products.append(local_RC)
        return products

    def _count(
        self, index: int, spans: tuple[slice, slice], products: list[Tensor], memory: "_Memory"
    ) -> tuple[Array, Array]:
        """[R] and [C]: the wrong candidates in a tile that reach its rows' and its columns' thresholds."""
        tile_RC = self._tile(index, spans, products, memory)
        low, high, exact = (
            [side_AX[index, span] for side_AX, span in zip(bound, spans, strict=True)]
            for bound in (self.low, self.high, self.exact)
        )
        counts = _reaching(tile_RC, high, memory)
        doubts = [level - sure for level, sure in zip(_reaching(tile_RC, low, memory), counts, strict=True)]
        if sum(int(doubt.sum()) for doubt in doubts) > DOUBTFUL * tile_RC.size:
            tile_RC = self._tile(index, spans, self._products(spans, torch.float64, memory), memory)
            return _reaching(tile_RC, exact, memory)
        for side, doubt in enumerate(doubts):
            if not doubt.any():
                continue
            places = _between(tile_RC, low[side], high[side], np.flatnonzero(doubt), side)
            pairs = [place + span.start for place, span in zip(places, spans, strict=True)]
            reached_P = self.pairs(*pairs)[index] >= exact[side][places[side]]
            np.add.at(counts[side], places[side], reached_P)
        return counts

    def _tile(self, index: int, spans: tuple[slice, slice], products: list[Tensor], memory: "_Memory") -> Array:
        """[R,C] scores by one weight; the correct pairs are taken out, so that they never count."""
        scores_RC = products[0]
        if len(products) > 1:
            scores_RC = memory.get("tile", products[0].shape, products[0].dtype)
            torch.lerp(products[1], products[0], self.weights[index], out=scores_RC)
        tile_RC = scores_RC.numpy()
        own_R = self.own_M[spans[0]] - spans[1].start
        mine = np.flatnonzero((own_R >= 0) & (own_R < tile_RC.shape[1]))
        tile_RC[mine, own_R[mine]] = -np.inf
        return tile_RC


class _Memory:
    """Buffers that a strip's tiles share: fresh pages for each would cost a fifth of the time."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def get(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape)
        if (name, dtype) not in self.buffers or self.buffers[name, dtype].numel() < size:
            self.buffers[name, dtype] = torch.empty(size, dtype=dtype)
        return self.buffers[name, dtype][:size].view(*shape)


def _reaching(tile_RC: Array, thresholds: Sequence[Array], memory: _Memory) -> tuple[Array, Array]:
    """[R] and [C]: how many cells of each row and of each column reach its threshold.

    Eight bytes of a comparison are summed as one 64-bit number. At most 255 of them fall to a byte, so that none
    carries into the next: an eighth of the additions.
    """
    rows, columns = tile_RC.shape
    padded = -(-rows // BYTE) * BYTE, -(-columns // 8) * 8
    bytes_RC = memory.get("reached", padded, torch.uint8).numpy()
    if padded != (rows, columns):
        bytes_RC[:] = 0
    reached_RC, words_RC = bytes_RC.view(bool)[:rows, :columns], bytes_RC.view(np.uint64)
    np.greater_equal(tile_RC, thresholds[0][:, None], out=reached_RC)
    sums = np.add.reduceat(words_RC, range(0, words_RC.shape[1], BYTE), axis=1)
    by_row = sums.view(np.uint8).sum(1, dtype=np.int64)[:rows]
    np.greater_equal(tile_RC, thresholds[1], out=reached_RC)
    sums = words_RC.reshape(-1, BYTE, words_RC.shape[1]).sum(1)
    by_column = sums.view(np.uint8).sum(0, dtype=np.int64)[:columns]
    return by_row, by_column


def _between(tile_RC: Array, low: Array, high: Array, lines: Array, side: int) -> Pairs:
    """Places of the cells between two thresholds, in those rows (side 0) or columns (side 1) that have some."""
    cells = tile_RC.take(lines, axis=side)
    least, most = (np.expand_dims(bound[lines], 1 - side) for bound in (low, high))
    places = list(np.divmod(np.flatnonzero((cells >= least) & (cells < most)), cells.shape[1]))
    places[side] = lines[places[side]]
    return places[0], places[1]


def _owners(text_items_M: Array, media_items_N: Array) -> Array:
    """[M] the row in the gallery of each text's item."""
    order_N = np.argsort(media_items_N)
    sorted_N = media_items_N[order_N]
    if not np.array_equal(np.unique(text_items_M), sorted_N):
        raise ValueError("each item needs exactly one row in the gallery and at least one text, each text an item")
    owners_M: Array = order_N[np.searchsorted(sorted_N, text_items_M)]
    return owners_M
