"""The choice of a late fusion on a split: global weight, pooling, and a weight for each view."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from model.fusion import POOLINGS, Fusion
from stages.scoring.embed import Embedded
from stages.scoring.metrics import recalls_both
from stages.scoring.ranking import ranked

GLOBAL_WEIGHTS = tuple(tenth / 10 for tenth in range(11))
VIEW_WEIGHTS = (0.5, 2.0, 0.25, 0.0)  # tried for each view in turn; all start at 1
ROUNDS = 2
MARGIN = 0.5  # of SumR, by which other than equal weights have to be better
SEARCHED_PAIRS = 1 << 20  # of a text and an item in a language, that the search for weights compares at most


def choose_fusion(
    embedded: Embedded, global_weights: Sequence[float] = GLOBAL_WEIGHTS, poolings: Sequence[str] = POOLINGS
) -> Fusion:
    """Choose the fusion with the best SumR on a split, the mean over its languages.

    A grid of global weights and poolings comes first, with equal view weights. Then the weight of each view in turn
    takes the value that is best, on an even sample of the items where the split is large. The result replaces equal
    weights if it is better by MARGIN on the whole split. Of equally good scores the simplest is taken: the larger
    global weight, then the earlier pooling.

    Args:
        embedded: The split, with a slot for each view. Slots of another kind are pooled by max.
        global_weights: Global weights to try.
        poolings: Poolings to try.
    """
    poolings = poolings if embedded.views else ("max",)
    equal, score = _best_of_grid(embedded, global_weights, poolings, {})
    if len(embedded.views) < 2 or all(weight == 1 for weight in global_weights):
        return equal
    view_weights = _search_view_weights(_sample(embedded), global_weights, equal.pooling)
    if len(set(view_weights.values())) == 1:
        return equal
    weighed, weighed_score = _best_of_grid(embedded, global_weights, poolings, view_weights)
    return weighed if weighed_score > score + MARGIN else equal


def _best_of_grid(
    embedded: Embedded, global_weights: Sequence[float], poolings: Sequence[str], view_weights: Mapping[str, float]
) -> tuple[Fusion, float]:
    """The best fusion with these view weights, and its SumR."""
    weights = sorted(global_weights, reverse=True)
    scores = []
    for place, pooling in enumerate(poolings):
        fused = embedded.fused(Fusion(1.0, pooling, view_weights))
        by_language = []
        for language in embedded.texts:
            ranks = ranked(*fused.language(language), global_weights=weights)
            by_language.append(
                [recalls_both(of.text_to_media.numpy(), of.media_to_text.numpy())["sum_r"] for of in ranks]
            )
        scores += [(sum_r, weight, -place) for sum_r, weight in zip(np.mean(by_language, axis=0), weights, strict=True)]
    sum_r, weight, place = max(scores)
    return Fusion(weight, poolings[-place], view_weights), float(sum_r)


def _search_view_weights(embedded: Embedded, global_weights: Sequence[float], pooling: str) -> dict[str, float]:
    """Coordinate search: the weight of each view in turn, at the best global weight for each."""
    weights = dict.fromkeys(embedded.views, 1.0)
    best = _best_of_grid(embedded, global_weights, [pooling], weights)[1]
    for _ in range(ROUNDS):
        before = weights
        for view in embedded.views:
            for value in VIEW_WEIGHTS:
                trial = {**weights, view: value}
                if trial == weights or not any(trial.values()):
                    continue
                score = _best_of_grid(embedded, global_weights, [pooling], trial)[1]
                if score > best + MARGIN:
                    weights, best = trial, score
        if weights == before:
            break
    return weights


def _sample(embedded: Embedded) -> Embedded:
    """Every n-th item, so that no language has more than SEARCHED_PAIRS pairs to compare."""
    pairs = max(len(text_ME) * len(embedded.item_ids) for text_ME, _ in embedded.texts.values())
    return embedded.only(embedded.item_ids[:: math.ceil(math.sqrt(pairs / SEARCHED_PAIRS))])
