"""What ranks say of a model: recalls, how even its languages are, and what chance would have.

N items · M texts · J languages
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray
AT = (1, 5, 10)


def recalls_both(text_to_media: Array, media_to_text: Array) -> dict[str, Any]:
    """R@1, R@5, R@10 in percent both ways, and their sum."""
    both: dict[str, Any] = {
        name: {f"r{k}": float(100 * (ranks <= k).mean()) for k in AT}
        for name, ranks in (("text_to_media", text_to_media), ("media_to_text", media_to_text))
    }
    return {**both, "sum_r": sum(value for recalls in both.values() for value in recalls.values())}


def median_rank(ranks: Array) -> float:
    """From 1; between the two in the middle where their number is even.

    >>> median_rank(np.array([1, 4, 2, 9]))
    3.0
    """
    return float(np.median(ranks))


def mean_rank_variance(ranks_NJ: Array) -> float:
    """How much the rank of one item depends on the language that asks: (1/NJ) Σ_i Σ_j |rank_ij − mean_j rank_ij|².

    0: all languages find each item at the same place, be it a good or a bad one.

    >>> mean_rank_variance(np.array([[1, 3], [2, 2]]))  # 1 away from the mean 2, twice, and never: (1 + 1 + 0 + 0) / 4
    0.5
    """
    return float(np.square(ranks_NJ - ranks_NJ.mean(1, keepdims=True)).mean())


def item_ranks(text_ranks: Mapping[str, tuple[Array, Array]], item_ids: Array) -> Array:
    """[N,J] the rank of each item in each language, given by language the ranks of texts and the item of each.

    Where an item has several texts in a language its rank there is their mean: no text is more the item's than another.

    >>> item_ranks({"de": (np.array([1, 4, 2]), np.array([7, 7, 8]))}, np.array([8, 7]))
    array([[2. ],
           [2.5]])
    """
    columns = []
    for ranks, items in text_ranks.values():
        distinct, place = np.unique(items, return_inverse=True)
        means = np.bincount(place, weights=ranks) / np.bincount(place)
        columns.append(means[np.searchsorted(distinct, item_ids)])
    return np.stack(columns, axis=1)


def chance_recalls(items_M: Array) -> dict[str, Any]:
    """Recalls in percent that a random order has, both ways, and their sum, given the item of each text.

    An item is found among the first k of N with k/N; one of m texts among the first k of M texts with
    1 − C(M−m, k) / C(M, k).

    >>> chance_recalls(np.array([7, 7, 8, 8]))["media_to_text"]["r1"]
    50.0
    """
    texts_of_N = np.unique(items_M, return_counts=True)[1]
    there = {f"r{k}": 100 * min(1.0, k / len(texts_of_N)) for k in AT}
    back = {f"r{k}": 100 * float(np.mean([1 - _none_of(count, len(items_M), k) for count in texts_of_N])) for k in AT}
    return {"text_to_media": there, "media_to_text": back, "sum_r": sum([*there.values(), *back.values()])}


def _none_of(own: int, total: int, drawn: int) -> float:
    """The probability that none of `own` texts is among `drawn` of `total`."""
    drawn = min(drawn, total)
    return float(np.prod([max(0, total - own - before) / (total - before) for before in range(drawn)]))
