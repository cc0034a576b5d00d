"""Metrics of ranks: recalls with bootstrap intervals, what chance would have, how even the languages are.

N items · M texts · J languages · S resamples · 6 recalls: R@1, R@5, R@10 of texts, then of media
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
AT = (1, 5, 10)
DIRECTIONS = ("text_to_media", "media_to_text")
RESAMPLES, LEVEL = 1000, 0.95
RESAMPLES_IN_MEMORY = 50


def recalls_both(text_to_media: Array, media_to_text: Array) -> dict[str, Any]:
    """R@1, R@5, R@10 in percent both ways, and `sum_r`, their sum, given ranks [M] and [N] from 1."""
    both: dict[str, Any] = {
        direction: {f"r{k}": float(100 * (ranks <= k).mean()) for k in AT}
        for direction, ranks in zip(DIRECTIONS, (text_to_media, media_to_text), strict=True)
    }
    return {**both, "sum_r": sum(value for recalls in both.values() for value in recalls.values())}


def mean_rank_variance(ranks_NJ: Array) -> float:
    """How much the rank of an item depends on the query's language: (1/NJ) Σ_i Σ_j |rank_ij − mean_j rank_ij|².

    0: all languages find each item at the same place, whether a good or a bad one.

    >>> mean_rank_variance(np.array([[1, 3], [2, 2]]))  # 1 away from the mean 2, twice, and never: (1 + 1 + 0 + 0) / 4
    0.5
    """
    return float(np.square(ranks_NJ - ranks_NJ.mean(1, keepdims=True)).mean())


def item_ranks(text_ranks: Mapping[str, tuple[Array, Array]], item_ids: Array) -> Array:
    """The rank of each item in each language [N,J], the mean over the item's texts in that language.

    Args:
        text_ranks: By language the ranks [M] of its texts and the item [M] of each.
        item_ids: Items [N], each with a text in every language.

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
    """Expected recalls in percent of a random order, in the shape of `recalls_both`, given the item of each text.

    An item is among the first k of N with probability k/N; one of its m texts among the first k of M texts with
    1 − C(M−m, k) / C(M, k).

    >>> chance_recalls(np.array([7, 7, 8, 8]))["media_to_text"]["r1"]
    50.0
    """
    texts_of_N = np.unique(items_M, return_counts=True)[1]

    def none_drawn(own: int, drawn: int) -> float:
        total = len(items_M)
        return float(np.prod([max(0, total - own - n) / (total - n) for n in range(min(drawn, total))]))

    to_media = {f"r{k}": 100 * min(1.0, k / len(texts_of_N)) for k in AT}
    to_text = {f"r{k}": 100 * float(np.mean([1 - none_drawn(count, k) for count in texts_of_N])) for k in AT}
    return {"text_to_media": to_media, "media_to_text": to_text, "sum_r": sum([*to_media.values(), *to_text.values()])}


class Hits(NamedTuple):
    """What each item adds to a language's recalls; 0 where it has no text.

    Attributes:
        hits_N6: Queries of the item that are hits.
        queries_N6: Queries of the item.
    """

    hits_N6: Array
    queries_N6: Array


def count_hits(
    text_to_media: Array, text_items: Array, media_to_text: Array, media_items: Array, all_items: Array
) -> Hits:
    """Hits by item of `all_items` [N], from the ranks of texts and of media and the item of each."""
    order = np.argsort(all_items)
    hits = np.zeros((len(all_items), 2 * len(AT)))
    queries = np.zeros_like(hits)
    column = 0
    for ranks, items in ((text_to_media, text_items), (media_to_text, media_items)):
        rows = order[np.searchsorted(all_items, items, sorter=order)]
        for k in AT:
            np.add.at(hits[:, column], rows, ranks <= k)
            np.add.at(queries[:, column], rows, 1)
            column += 1
    return Hits(hits, queries)


def resample(hits: Mapping[str, Hits], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Array]:
    """Recalls [S,6] in percent of resampled items, by language, and under "mean" their mean.

    Items are drawn with replacement, each with all its texts, the same items for every language. Where a draw has none
    of a language's items, its recalls there are NaN.
    """
    num_items = len(next(iter(hits.values())).hits_N6)
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Array]] = {language: [] for language in hits}
    for start in range(0, resamples, RESAMPLES_IN_MEMORY):
        draws = min(RESAMPLES_IN_MEMORY, resamples - start)
        drawn_SN = rng.integers(0, num_items, (draws, num_items)) + num_items * np.arange(draws)[:, None]
        times_SN = np.bincount(drawn_SN.ravel(), minlength=draws * num_items).reshape(draws, num_items).astype(float)
        for language, (hits_N6, queries_N6) in hits.items():
            with np.errstate(invalid="ignore"):
                parts[language].append(100 * (times_SN @ hits_N6) / (times_SN @ queries_N6))
    recalls = {language: np.concatenate(part) for language, part in parts.items()}
    return {**recalls, "mean": np.mean(list(recalls.values()), axis=0)}


def intervals(recalls_S6: Array) -> dict[str, Any]:
    """Lower and upper end of each recall and of SumR at `LEVEL`, in the shape of `recalls_both`."""

    def ends(values_S: Array) -> list[float]:
        tail = (1 - LEVEL) / 2
        return [float(end) for end in np.nanquantile(values_S, (tail, 1 - tail))]

    columns = iter(recalls_S6.T)
    both = {direction: {f"r{k}": ends(next(columns)) for k in AT} for direction in DIRECTIONS}
    return {**both, "sum_r": ends(recalls_S6.sum(1))}
