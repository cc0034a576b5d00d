"""MSCOCO, Japanese: the released weights of its losses.

Command:  accelerate launch stages/train.py --recipe mscoco_ja --data CORPUS --output RUN [method=faithful]
Hardware: one GPU of 24 GB
Cost:     8 hours expected of one H100, from 0.6 ms a sample (bench/train.py)
Score:    not yet measured
"""

from typing import Any

from stages.training.released import released


def recipe() -> dict[str, Any]:
    return released(
        languages=("ja",),
        local_weight=0.05,
        distillation_weight=0.3,
    )
