"""Validation: recall by language on the split that selects, with the best weight of the global similarity.

N items · M texts · E shared width · K slots
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.scoring.embed import Embedded
from stages.scoring.metrics import chance_recalls, recalls_both
from stages.scoring.ranking import ranked

WARNING = (
    "note: the best weights were selected on {split}, not on a split held out for it: these scores show how well the "
    "model fits {split}, not how good it is"
)


def selection_label(select_on: str, train_on: str = "train") -> str | None:
    """The warning for scores of weights that were selected on another split than `val`, or on the training split."""
    return None if select_on == "val" != train_on else WARNING.format(split=select_on)


def validation_line(
    embedded: Embedded, weights: Sequence[float], poolings: Sequence[str], split: str, step: int
) -> dict[str, Any]:
    """The line for metrics.jsonl: SumR (mean over languages) at the best score, and recalls by language.

    The gallery of a language has the items with a text in it. Of equally good scores the larger weight is taken.

    Args:
        embedded: The split as vectors, with a slot per view.
        weights: Weights of the global similarity to try.
        poolings: Poolings of the slots' similarities to try: "mean", "max".
        split: Name of the split.
        step: Steps done.
    """
    recalls: dict[tuple[float, str], dict[str, Any]] = {}
    for pooling in poolings:
        pooled = embedded.with_mean_slots() if pooling == "mean" else embedded
        for language in embedded.texts:
            for weight, ranks in zip(weights, ranked(*pooled.language(language), weights), strict=True):
                both = recalls_both(ranks.text_to_media.numpy(), ranks.media_to_text.numpy())
                recalls.setdefault((weight, pooling), {})[language] = both
    best = max(sorted(recalls, reverse=True), key=lambda score: _mean_sum_r(recalls[score]))
    return {
        "kind": "validation",
        "step": step,
        "split": split,
        "items": len(embedded.item_ids),
        "sum_r": _mean_sum_r(recalls[best]),
        "chance": float(np.mean([chance_recalls(items_M.numpy())["sum_r"] for _, items_M in embedded.texts.values()])),
        "global_weight": best[0],
        "local_pooling": best[1],
        "recalls": recalls[best],
    }


def _mean_sum_r(recalls: Mapping[str, Mapping[str, Any]]) -> float:
    return float(np.mean([both["sum_r"] for both in recalls.values()]))


def validation_summary(line: Mapping[str, Any], is_best: bool) -> str:
    """A validation as one line for the screen."""
    languages = " ".join(f"{language} {both['sum_r']:.1f}" for language, both in sorted(line["recalls"].items()))
    return (
        f"step {line['step']:,}: SumR {line['sum_r']:.1f} on {line['split']} of {line['items']:,} items "
        f"(chance {line['chance']:.1f}; {languages}; global weight {line['global_weight']:g})"
        + (" · best so far" if is_best else "")
    )
