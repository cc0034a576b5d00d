"""Ranks of texts among media and of media among texts, both from one product that is never whole in memory.

M texts · N media · E shared width · K slots · R × C a tile of the product

A rank counts from 1: the place of the best correct candidate, one more than the number of wrong candidates that score
as high. Ties count against, so a model that says the same of everything ranks last, not first:

    scores of one text  0.9  0.7  0.7  0.1   the second is the right one: rank 3 (0.9 is above, 0.7 is level)

Scores nearer than TIE are level. A 32-bit product is wrong in its last digits, differently for every tile size, so it
decides only what is further from the threshold than its error can be; the rest is decided in 64 bits. That makes ranks
independent of chunks, threads and machines, at the price of a second comparison.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray
Spans = tuple[slice, slice]  # rows and columns of a tile
Pairs = tuple[Array, Array]  # rows of texts, and with each a row of the media
TIE = 1e-6  # times the longest vectors' product: what encoders in 32 bits do not tell apart
ROWS, COLUMNS = 1020, 1024  # of a tile: 4 MiB, so comparing reads from cache
BYTE = 255  # what a byte can count to
PAIRS = 2048  # decided at once in 64 bits
DOUBTFUL = 1 / 256  # share of a tile's cells above which the tile is computed again in 64 bits, not cell by cell


class Ranked(NamedTuple):
    """Ranks in both directions, and the score of the best correct candidate that stands at that rank."""

    text_to_media: Tensor  # [M] int64, from 1
    media_to_text: Tensor  # [N] int64, from 1
    text_scores: Tensor  # [M] float64
    media_scores: Tensor  # [N] float64


def ranks(
    text_ME: Tensor,
    text_items_M: Tensor,
    media_NE: Tensor,
    media_items_N: Tensor,
    slots_NKE: Tensor | None = None,
    global_weight: float = 1.0,
    chunk: tuple[int, int] = (ROWS, COLUMNS),
) -> tuple[Tensor, Tensor]:
    """Ranks [M] of the texts' items and [N] of the items' best texts; see `ranked`."""
    one = ranked(text_ME, text_items_M, media_NE, media_items_N, slots_NKE, (global_weight,), chunk)[0]
    return one.text_to_media, one.media_to_text


def ranked(
    text_ME: Tensor,
    text_items_M: Tensor,
    media_NE: Tensor,
    media_items_N: Tensor,
    slots_NKE: Tensor | None = None,
    global_weights: Sequence[float] = (1.0,),
    chunk: tuple[int, int] = (ROWS, COLUMNS),
) -> list[Ranked]:
    """Ranks by the score a·⟨text, media⟩ + (1 − a)·max_k ⟨text, slot_k⟩, for each a of `global_weights`.

    Without slots the score is ⟨text, media⟩ whatever a is. `text_items_M` says of which item each text is; an item may
    have several texts, and none of them counts against another. `chunk`: rows and columns of a tile.
    Raises ValueError for vectors that are not finite or of other sizes, an item twice in the gallery, a text whose item
    is not in it, an item without a text.
    """
    _check_shapes(text_ME, text_items_M, media_NE, media_items_N, slots_NKE)
    own_M = _owners(text_items_M.cpu().numpy(), media_items_N.cpu().numpy())
    slotless = slots_NKE is None or slots_NKE.shape[1] == 0
    weights = [1.0] if slotless else list(global_weights)
    scorer = _Scorer(*map(_plain, (text_ME, media_NE, None if slotless else slots_NKE)), weights)
    positives_AM = scorer.pairs(np.arange(len(own_M)), own_M)
    counters = [_Counter(scorer, index, positive_M, own_M) for index, positive_M in enumerate(positives_AM)]
    for spans in _tiles(len(text_ME), len(media_NE), chunk):
        products = scorer.products(spans, torch.float32)
        for counter in counters:
            counter.add(spans, *products)
    return [counter.ranked() for counter in counters] * (len(global_weights) if slotless else 1)


class _Scorer:
    """Scores of texts and media by every global weight, by tile or by pair."""

    def __init__(self, text_ME: Tensor, media_NE: Tensor, slots_NKE: Tensor | None, weights: list[float]):
        self.text_ME, self.media_NE, self.slots_NKE, self.weights = text_ME, media_NE, slots_NKE, weights
        self.memory: dict[tuple[str, torch.dtype], Tensor] = {}
        texts, *others = (float(it.norm(dim=-1).max()) for it in (text_ME, media_NE, slots_NKE) if it is not None)
        self.scale = texts * max(others)  # no score is larger
        if not all(map(math.isfinite, (texts, *others))):
            raise ValueError("some vectors to be ranked are not finite: the model that made them has diverged")

    @property
    def error(self) -> float:
        """More than the rounding errors of a score in 32 bits can add up to: half a digit for each product and sum."""
        return (self.text_ME.shape[1] + 8) * torch.finfo(torch.float32).eps / 2 * self.scale

    def scratch(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """Memory that every tile uses again: fresh pages for each would cost a fifth of the time."""
        kept = self.memory.get((name, dtype))
        if kept is None or kept.numel() < rows * columns:
            kept = self.memory[name, dtype] = torch.empty(rows * columns, dtype=dtype)
        return kept[: rows * columns].view(rows, columns)

    def products(self, spans: Spans, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """[R,C] the global and, with slots, the local similarities of a tile."""
        rows, columns = spans
        size = rows.stop - rows.start, columns.stop - columns.start, dtype
        text_RE = self.text_ME[rows].to(dtype)
        whole_RC = torch.mm(text_RE, self.media_NE[columns].to(dtype).T, out=self.scratch("global", *size))
        if self.slots_NKE is None:
            return whole_RC, None
        slots_KCE = self.slots_NKE[columns].to(dtype).unbind(1)
        local_RC = torch.mm(text_RE, slots_KCE[0].T, out=self.scratch("local", *size))
        for slot_CE in slots_KCE[1:]:
            slot_RC = torch.mm(text_RE, slot_CE.T, out=self.scratch("slot", *size))
            torch.maximum(local_RC, slot_RC, out=local_RC)
        return whole_RC, local_RC

    def pairs(self, texts_P: Array, media_P: Array) -> Array:
        """Scores [A,P] in 64 bits of texts and media given by their rows."""
        scores_AP = np.empty((len(self.weights), len(texts_P)))
        for start in range(0, len(texts_P), PAIRS):
            part = slice(start, start + PAIRS)
            text_PE = self.text_ME.numpy()[texts_P[part]].astype(np.float64)
            whole_P = local_P = np.einsum("pe,pe->p", text_PE, self.media_NE.numpy()[media_P[part]])
            if self.slots_NKE is not None:
                local_P = np.einsum("pe,pke->pk", text_PE, self.slots_NKE.numpy()[media_P[part]]).max(1)
            for index, weight in enumerate(self.weights):
                scores_AP[index, part] = weight * whole_P + (1 - weight) * local_P
        return scores_AP


class _Counter:
    """Counts, for every text and every item, the wrong candidates at or above the threshold of its best correct one.

    Side 0 are the texts (rows of a tile), side 1 the media (columns). Counting is numpy's: it compares as fast on one
    thread as torch does on two, and needs no barrier between threads.
    """

    def __init__(self, scorer: _Scorer, index: int, positive_M: Array, own_M: Array):
        self.scorer, self.index, self.own_M = scorer, index, own_M
        best_N = np.full(len(scorer.media_NE), -np.inf)
        np.maximum.at(best_N, own_M, positive_M)
        self.scores = positive_M, best_N
        self.counts = [np.zeros(len(scores), np.int64) for scores in self.scores]
        self.exact = [scores - TIE * scorer.scale for scores in self.scores]
        self.low = [(threshold - scorer.error).astype(np.float32) for threshold in self.exact]
        self.high = [(threshold + scorer.error).astype(np.float32) for threshold in self.exact]
        self.open: tuple[list[Pairs], list[Pairs]] = [], []

    def add(self, spans: Spans, whole_RC: Tensor, local_RC: Tensor | None) -> None:
        """Counts in one tile, given its 32-bit products; cells too near to a threshold are kept for `ranked`."""
        tile_RC = self._tile(spans, whole_RC, local_RC)
        sure = self._levels(tile_RC, self.high, spans)
        doubt = [level - certain for level, certain in zip(self._levels(tile_RC, self.low, spans), sure, strict=True)]
        if sum(int(cells.sum()) for cells in doubt) > DOUBTFUL * tile_RC.size:
            tile_RC = self._tile(spans, *self.scorer.products(spans, torch.float64))
            sure = self._levels(tile_RC, self.exact, spans)
        else:
            for side in (0, 1):
                self.open[side].append(self._between(side, spans, tile_RC, np.flatnonzero(doubt[side])))
        for side in (0, 1):
            self.counts[side][spans[side]] += sure[side]

    def _tile(self, spans: Spans, whole_RC: Tensor, local_RC: Tensor | None) -> Array:
        """[R,C] scores by this counter's weight, the correct pairs taken out so that they are not counted."""
        scores_RC = whole_RC
        if local_RC is not None:
            scores_RC = self.scorer.scratch("tile", *whole_RC.shape, whole_RC.dtype)
            torch.lerp(local_RC, whole_RC, self.scorer.weights[self.index], out=scores_RC)
        tile_RC = scores_RC.numpy()
        own_R = self.own_M[spans[0]] - spans[1].start
        mine = np.flatnonzero((own_R >= 0) & (own_R < tile_RC.shape[1]))
        tile_RC[mine, own_R[mine]] = -np.inf
        return tile_RC

    def _levels(self, tile_RC: Array, thresholds: list[Array], spans: Spans) -> list[Array]:
        """[R] and [C]: how many cells of each row and of each column reach its threshold.

        Eight bytes of a comparison are summed as one 64-bit number. At most 255 of them fall to a byte, so that none
        carries into the next: an eighth of the additions.
        """
        rows, columns = tile_RC.shape
        padded = -(-rows // BYTE) * BYTE, -(-columns // 8) * 8
        bytes_RC = self.scorer.scratch("reached", *padded, torch.uint8).numpy()
        if padded != (rows, columns):
            bytes_RC[:] = 0
        reached_RC, words_RC = bytes_RC.view(bool)[:rows, :columns], bytes_RC.view(np.uint64)
        np.greater_equal(tile_RC, thresholds[0][spans[0], None], out=reached_RC)
        parts = np.add.reduceat(words_RC, range(0, words_RC.shape[1], BYTE), axis=1)
        by_row = parts.view(np.uint8).sum(1, dtype=np.int64)[:rows]
        np.greater_equal(tile_RC, thresholds[1][spans[1]], out=reached_RC)
        parts = words_RC.reshape(-1, BYTE, words_RC.shape[1]).sum(1)
        by_column = parts.view(np.uint8).sum(0, dtype=np.int64)[:columns]
        return [by_row, by_column]

    def _between(self, side: int, spans: Spans, tile_RC: Array, lines: Array) -> Pairs:
        """The cells between the two thresholds in those rows (columns) of a tile that have some."""
        cells = tile_RC.take(lines, axis=side)
        low, high = (np.expand_dims(bound[side][spans[side]][lines], 1 - side) for bound in (self.low, self.high))
        places = list(np.divmod(np.flatnonzero((cells >= low) & (cells < high)), cells.shape[1]))
        places[side] = lines[places[side]]
        return places[0] + spans[0].start, places[1] + spans[1].start

    def ranked(self) -> Ranked:
        for side in (0, 1):
            if self.open[side]:
                texts_P, media_P = (np.concatenate(rows) for rows in zip(*self.open[side], strict=True))
                lines_P = (texts_P, media_P)[side]
                reached_P = self.scorer.pairs(texts_P, media_P)[self.index] >= self.exact[side][lines_P]
                np.add.at(self.counts[side], lines_P, reached_P)
        return Ranked(*(torch.from_numpy(1 + counts) for counts in self.counts), *map(torch.from_numpy, self.scores))


def _tiles(rows: int, columns: int, chunk: tuple[int, int]) -> Iterator[Spans]:
    for row in range(0, rows, chunk[0]):
        for column in range(0, columns, chunk[1]):
            yield slice(row, min(row + chunk[0], rows)), slice(column, min(column + chunk[1], columns))


def _check_shapes(
    text_ME: Tensor, text_items_M: Tensor, media_NE: Tensor, media_items_N: Tensor, slots_NKE: Tensor | None
) -> None:
    got = tuple(text_ME.shape), tuple(media_NE.shape), None if slots_NKE is None else tuple(slots_NKE.shape)
    fits = (
        text_ME.ndim == media_NE.ndim == 2 and text_ME.shape[1] == media_NE.shape[1] and len(text_ME) and len(media_NE)
    )
    if slots_NKE is not None:
        fits = fits and slots_NKE.ndim == 3 and slots_NKE.shape[::2] == media_NE.shape
    if not fits or text_items_M.shape != text_ME.shape[:1] or media_items_N.shape != media_NE.shape[:1]:
        items = tuple(text_items_M.shape), tuple(media_items_N.shape)
        raise ValueError(
            f"got texts, media and slots of shapes {got} with {items} item ids, wanted (M, E), (N, E) and (N, K, E) "
            "with (M,) and (N,), none of them empty"
        )


def _owners(text_items_M: Array, media_items_N: Array) -> Array:
    """[M] the row in the gallery of each text's item."""
    order_N = np.argsort(media_items_N, kind="stable")
    sorted_N = media_items_N[order_N]
    if (doubled := sorted_N[1:] == sorted_N[:-1]).any():
        raise ValueError(f"item {sorted_N[1:][doubled][0]} is more than once in the gallery: keep one row an item")
    place_M = np.searchsorted(sorted_N, text_items_M).clip(max=len(sorted_N) - 1)
    if (strange := sorted_N[place_M] != text_items_M).any():
        raise ValueError(f"{_told(text_items_M[strange])} of texts are not in the gallery: leave those texts out")
    silent_N = np.bincount(place_M, minlength=len(sorted_N)) == 0
    if silent_N.any():
        raise ValueError(f"{_told(sorted_N[silent_N])} of the gallery have no text: leave those items out")
    return order_N[place_M]


def _told(items: Array) -> str:
    distinct = np.unique(items).tolist()
    shown = ", ".join(map(str, distinct[:3])) + (", …" if len(distinct) > 3 else "")
    return f"{len(distinct):,} items ({shown})"


def _plain(vectors: Tensor | None) -> Tensor | None:
    return None if vectors is None else vectors.detach().float().cpu().contiguous()
