"""How much a recall would differ with other items: bootstrap intervals.

N items · M texts · S resamples · 6 recalls: R@1, R@5, R@10 of texts, then of media
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stages.scoring.metrics import AT

Array = np.ndarray

RESAMPLES = 1000
AT_ONCE = 50  # resamples in memory
LEVEL = 0.95


class Hits(NamedTuple):
    """What every item adds to a language's recalls: hits, and the queries they are among; 0 where it has no text."""

    hits_N6: Array
    queries_N6: Array


def count_hits(
    text_to_media: Array, text_items: Array, media_to_text: Array, media_items: Array, all_items: Array
) -> Hits:
    """Hits by item of `all_items`, from the ranks of texts and of media and the item of each."""
    order = np.argsort(all_items)
    text_rows, media_rows = (order[np.searchsorted(all_items, ids, sorter=order)] for ids in (text_items, media_items))
    hits = np.zeros((len(all_items), 2 * len(AT)))
    queries = np.zeros_like(hits)
    for column, (ranks, rows, k) in enumerate(
        [*((text_to_media, text_rows, k) for k in AT), *((media_to_text, media_rows, k) for k in AT)]
    ):
        np.add.at(hits[:, column], rows, ranks <= k)
        np.add.at(queries[:, column], rows, 1)
    return Hits(hits, queries)


def resample(hits: Mapping[str, Hits], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Array]:
    """[S,6] recalls in percent by language, and under "mean" their mean, for items drawn again with replacement.

    An item comes with all its texts in all languages, for they rise and fall together; the gallery is as it was.
    Where a draw has none of a language's items its recalls there are no numbers.
    """
    num_items = len(next(iter(hits.values())).hits_N6)
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Array]] = {language: [] for language in hits}
    for start in range(0, resamples, AT_ONCE):
        draws = min(AT_ONCE, resamples - start)
        drawn_SN = rng.integers(0, num_items, (draws, num_items)) + num_items * np.arange(draws)[:, None]
        times_SN = np.bincount(drawn_SN.ravel(), minlength=draws * num_items).reshape(draws, num_items).astype(float)
        for language, (hits_N6, queries_N6) in hits.items():
            with np.errstate(invalid="ignore"):
                parts[language].append(100 * (times_SN @ hits_N6) / (times_SN @ queries_N6))
    recalls = {language: np.concatenate(part) for language, part in parts.items()}
    return {**recalls, "mean": np.mean(list(recalls.values()), axis=0)}


def intervals(recalls_S6: Array) -> dict[str, object]:
    """Lower and upper ends of each recall and of SumR, in the shape of `metrics.recalls_both`."""
    names = [f"r{k}" for k in AT]
    columns = [_ends(column) for column in recalls_S6.T]
    return {
        "text_to_media": dict(zip(names, columns[: len(AT)], strict=True)),
        "media_to_text": dict(zip(names, columns[len(AT) :], strict=True)),
        "sum_r": _ends(recalls_S6.sum(1)),
    }


def _ends(values: Sequence[float] | Array) -> list[float]:
    tail = (1 - LEVEL) / 2
    return [float(end) for end in np.nanquantile(values, (tail, 1 - tail))]
