"""How good the weights are now: recall on the split that selects, by language, with the best weight of the global
similarity in the score.

N items · M texts · E shared width · K slots
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.scoring.embed import Embedded
from stages.scoring.metrics import chance_recalls, recalls_both
from stages.scoring.ranking import ranked

LOUD = (
    "note: {split} chooses the best weights, no split held out for it: these figures say what was fitted to {split}, "
    "not what the model can do"
)


def label(select_on: str, train_on: str = "train") -> str | None:
    """What must stand beside every figure that was chosen on another split than `val`, or on what was trained on."""
    return None if select_on == "val" != train_on else LOUD.format(split=select_on)


def validation_line(embedded: Embedded, weights: Sequence[float], split: str, step: int) -> dict[str, Any]:
    """The line of metrics.jsonl: SumR (mean over languages) at the best global weight, recalls by language.

    Each language has the gallery of the items that have a text in it. Of weights that are level the larger is taken.
    """
    by_weight: dict[float, dict[str, Any]] = {weight: {} for weight in weights}
    chances = []
    for language, (_, items_M) in embedded.texts.items():
        found = ranked(*embedded.language(language), weights)
        for weight, ranks in zip(weights, found, strict=True):
            by_weight[weight][language] = recalls_both(ranks.text_to_media.numpy(), ranks.media_to_text.numpy())
        chances.append(chance_recalls(items_M.numpy())["sum_r"])
    best = max(sorted(by_weight, reverse=True), key=lambda weight: mean_sum(by_weight[weight]))
    return {
        "kind": "validation",
        "step": step,
        "split": split,
        "items": len(embedded.item_ids),
        "sum_r": mean_sum(by_weight[best]),
        "chance": float(np.mean(chances)),
        "global_weight": best,
        "recalls": by_weight[best],
    }


def mean_sum(recalls: Mapping[str, Mapping[str, Any]]) -> float:
    return float(np.mean([both["sum_r"] for both in recalls.values()]))


def said(line: Mapping[str, Any], better: bool) -> str:
    """A validation as one line on the screen."""
    languages = " ".join(f"{language} {both['sum_r']:.1f}" for language, both in sorted(line["recalls"].items()))
    return (
        f"step {line['step']:,}: SumR {line['sum_r']:.1f} on {line['split']} of {line['items']:,} items "
        f"(chance {line['chance']:.1f}; {languages}; global weight {line['global_weight']:g})"
        + (" · best so far" if better else "")
    )
