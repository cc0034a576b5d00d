"""Multi30K, Czech: the released weights of its losses.

Command:  accelerate launch stages/train.py --recipe multi30k_cs --data CORPUS --output RUN [method=faithful]
Hardware: one GPU of 24 GB
Cost:     2.5 hours expected of one H100, from 0.6 ms a sample (bench/train.py)
Score:    not yet measured
"""

from typing import Any

from stages.training.released import released


def recipe() -> dict[str, Any]:
    return released(
        languages=("cs",),
    )
