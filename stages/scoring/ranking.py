"""Ranks of texts among media and of media among texts, both from one product that is never whole in memory.

M texts · N media · E shared width · K slots · A global weights · R × C a tile of the product

A rank counts from 1: the place of the best correct candidate, one more than the number of wrong candidates that score
as high. Ties count against, so a model that gives everything the same score ranks last, not first:

    scores of one text  0.9  0.7  0.7  0.1   the second is the right one: rank 3 (0.9 is above, 0.7 is level)

Scores nearer than TIE are level. They are computed in 64 bits, whose rounding is a billionth of TIE: ranks do not
depend on the size of the tiles, on threads, or on the machine.
"""

import concurrent.futures
import contextlib
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.fusion import POOLING_TEMPERATURE

Array = np.ndarray

TIE = 1e-6  # times the longest vectors' product: what encoders in 32 bits do not tell apart
TILE = 1024, 1024  # rows and columns: 8 MiB


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
    log_shares_NK: Tensor | None = None,
    global_weights: Sequence[float] = (1.0,),
    tile: tuple[int, int] = TILE,
) -> list[Ranked]:
    """Rank by the score a·⟨text, media⟩ + (1 − a)·max_k ⟨text, slot_k⟩ on the CPU, or with logsumexp in place of max.

    Args:
        text_ME: Texts.
        text_items_M: The item of each text. An item may have several, and none of them counts against another.
        media_NE: Media of the gallery.
        media_items_N: Their items, distinct.
        slots_NKE: Slots of the gallery; without any, the score is ⟨text, media⟩ whatever a is.
        log_shares_NK: Logarithms of weights w, where slots are pooled by τ·log Σ_k w_k exp(⟨text, slot_k⟩ / τ).
        global_weights: Values of a.
        tile: Texts and media compared at once.

    Returns:
        The ranks for each value of a.

    Raises:
        ValueError: Vectors are not finite, an item is in the gallery twice, a text's item is not in it, or an item has
            no text.
    """
    own_M = _owners(text_items_M.cpu(), media_items_N.cpu())
    parts, weights = [media_NE[:, None]], [1.0]
    if slots_NKE is not None and slots_NKE.shape[1] and any(weight != 1 for weight in global_weights):
        parts, weights = [*parts, slots_NKE], list(global_weights)
    text_ME, *parts = (vectors.detach().double().cpu() for vectors in (text_ME, *parts))
    shares = [None, None if log_shares_NK is None else log_shares_NK.detach().double().cpu()]
    longest = [float(vectors.norm(dim=-1).max()) for vectors in (text_ME, *parts)]
    if not all(map(math.isfinite, longest)):
        raise ValueError("some vectors to be ranked are not finite: the model has diverged")
    tie = TIE * longest[0] * max(longest[1:])

    def count(rows: slice) -> tuple[Array, Array]:
        """[A,R] and [A,N]: the wrong candidates that reach the thresholds of these texts, and of every item."""
        by_row_AR = np.zeros_like(own_floor_AM[:, rows], np.int64)
        by_column_AN = np.zeros_like(best_floor_AN, np.int64)
        for columns in _slices(len(media_NE), tile[1]):
            similarities = [
                pool_similarities(
                    [text_ME[rows] @ slot_CE.T for slot_CE in part[columns].unbind(1)],
                    None if shares_NK is None else shares_NK[columns].unbind(1),
                )
                for part, shares_NK in zip(parts, shares, strict=False)
            ]
            own_R = own_M[rows] - columns.start
            mine = torch.nonzero((own_R >= 0) & (own_R < len(media_NE[columns])))[:, 0]
            for a, scores_RC in enumerate(_weighted(similarities, weights)):
                scores_RC[mine, own_R[mine]] = -math.inf
                tile_RC = scores_RC.numpy()  # NumPy counts twenty times as fast as torch
                by_row_AR[a] += np.count_nonzero(tile_RC >= own_floor_AM[a, rows, None], axis=1)
                by_column_AN[a, columns] += np.count_nonzero(tile_RC >= best_floor_AN[a, columns], axis=0)
        return by_row_AR, by_column_AN

    strips = _slices(len(own_M), tile[0])
    own_AM = torch.cat([_own_scores(text_ME[rows], parts, shares, own_M[rows], weights) for rows in strips], dim=1)
    best_AN = torch.full((len(weights), len(media_NE)), -math.inf, dtype=torch.float64)
    best_AN.scatter_reduce_(1, own_M.expand(len(weights), -1), own_AM, "amax")
    own_floor_AM, best_floor_AN = (own_AM - tie).numpy(), (best_AN - tie).numpy()
    with _workers() as pool:
        by_row, by_column = zip(*pool.map(count, strips), strict=True)
    text_ranks_AM, media_ranks_AN = 1 + np.concatenate(by_row, axis=1), 1 + np.sum(by_column, axis=0)
    ranks = zip(*map(torch.from_numpy, (text_ranks_AM, media_ranks_AN)), own_AM, best_AN, strict=True)
    return [Ranked(*of) for of in ranks] * (len(global_weights) // len(weights))


def _slices(length: int, step: int) -> list[slice]:
    return [slice(start, start + step) for start in range(0, length, step)]


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


def _own_scores(
    text_RE: Tensor, parts: Sequence[Tensor], shares: Sequence[Tensor | None], own_R: Tensor, weights: Sequence[float]
) -> Tensor:
    """[A,R] the score of each text with its own item."""
    similarities = [
        pool_similarities(
            torch.einsum("re,rke->kr", text_RE, part[own_R]).unbind(),
            None if shares_NK is None else shares_NK[own_R].unbind(1),
        )
        for part, shares_NK in zip(parts, shares, strict=False)
    ]
    return torch.stack(list(_weighted(similarities, weights)))


def pool_similarities(similarities: Sequence[Tensor], log_shares: Sequence[Tensor] | None) -> Tensor:
    """One similarity from those with each slot: the best, or where slots have weights their logsumexp.

    Args:
        similarities: One tensor for each slot.
        log_shares: For logsumexp: logarithms of the slots' weights, which broadcast to the similarities.
    """
    if log_shares is None:
        return functools.reduce(torch.maximum, similarities)
    terms = (values / POOLING_TEMPERATURE + share for values, share in zip(similarities, log_shares, strict=True))
    return POOLING_TEMPERATURE * functools.reduce(torch.logaddexp, terms)


def _weighted(similarities: Sequence[Tensor], weights: Sequence[float]) -> Iterable[Tensor]:
    """The scores for each weight, of global similarities and, where there are slots, local ones."""
    if len(similarities) == 1:
        return similarities
    return (torch.lerp(similarities[-1], similarities[0], weight) for weight in weights)


def _owners(text_items_M: Tensor, media_items_N: Tensor) -> Tensor:
    """[M] the row in the gallery of each text's item."""
    sorted_N, order_N = torch.sort(media_items_N)
    if not torch.equal(torch.unique(text_items_M), sorted_N):
        raise ValueError("each item needs exactly one row in the gallery and at least one text, each text an item")
    return order_N[torch.searchsorted(sorted_N, text_items_M)]
