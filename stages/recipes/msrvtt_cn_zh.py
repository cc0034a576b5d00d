"""MSR-VTT-CN, Chinese, on frame features: the released weights of its losses.

Command:  accelerate launch stages/train.py --recipe msrvtt_cn_zh --data CORPUS --output RUN [method=faithful]
Hardware: one GPU of 24 GB
Cost:     one hour expected of one H100, from 0.6 ms a sample (bench/train.py)
Score:    not yet measured
"""

from typing import Any

from stages.training.released import released_video


def recipe() -> dict[str, Any]:
    return released_video(languages=("zh",))
