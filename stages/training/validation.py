"""Validation: recall by language on the split that selects, with the best weight of the global similarity.

N items · M texts · E shared width · K slots
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.scoring.embed import Embedded
from stages.scoring.fusion import choose_fusion
from stages.scoring.metrics import chance_recalls, recalls_both
from stages.scoring.report import rank_languages

WARNING = (
    "note: the best weights were selected on {split}, not on a split held out for it: these scores show how well the "
    "model fits {split}, not how good it is"
)


def selection_label(select_on: str, train_on: str = "train") -> str | None:
    """The warning for scores of weights that were selected on another split than `val`, or on the training split."""
    return None if select_on == "val" != train_on else WARNING.format(split=select_on)


def validation_line(embedded: Embedded, weights: Sequence[float], split: str, step: int) -> dict[str, Any]:
    """The line for metrics.jsonl: SumR (mean over languages) with the best fusion, and recalls by language.

    The gallery of a language has the items with a text in it.

    Args:
        embedded: The split as vectors, with a slot per view.
        weights: Weights of the global similarity to try.
        split: Name of the split.
        step: Steps done.
    """
    fusion = choose_fusion(embedded, weights)
    recalls = {
        language: recalls_both(of.ranked.text_to_media.numpy(), of.ranked.media_to_text.numpy())
        for language, of in rank_languages(embedded.fused(fusion), fusion.global_weight).items()
    }
    return {
        "kind": "validation",
        "step": step,
        "split": split,
        "items": len(embedded.item_ids),
        "sum_r": float(np.mean([both["sum_r"] for both in recalls.values()])),
        "chance": float(np.mean([chance_recalls(items_M.numpy())["sum_r"] for _, items_M in embedded.texts.values()])),
        "global_weight": fusion.global_weight,
        "local_pooling": fusion.pooling,
        "view_weights": dict(fusion.view_weights),
        "recalls": recalls,
    }


def validation_summary(line: Mapping[str, Any], is_best: bool) -> str:
    """A validation as one line for the screen."""
    languages = " ".join(f"{language} {both['sum_r']:.1f}" for language, both in sorted(line["recalls"].items()))
    return (
        f"step {line['step']:,}: SumR {line['sum_r']:.1f} on {line['split']} of {line['items']:,} items "
        f"(chance {line['chance']:.1f}; {languages}; global weight {line['global_weight']:g})"
        + (" · best so far" if is_best else "")
    )
