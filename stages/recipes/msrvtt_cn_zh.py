"""MSR-VTT-CN, Chinese, on frame features: the released weights of its losses.

Command:  accelerate launch stages/train.py --recipe msrvtt_cn_zh --data CORPUS --output RUN [method=faithful]
Hardware: one GPU of 24 GB
Cost:     1 hours expected of one H100, from 0.6 ms a sample (bench/train.py)
Score:    not yet measured
"""

from typing import Any

from stages.released import released


def recipe() -> dict[str, Any]:
    return released(
        languages=("zh",),
        media="features",
        image_size=0,
        num_slots=2,
        slot_layers=2,
        diversity_weight=0.03,
        distillation_weight=0.3,
        epochs=50,
    )
