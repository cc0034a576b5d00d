"""VATEX, Chinese, on frame features: no weights of it are known, those of MSR-VTT-CN stand in.

Command:  accelerate launch stages/train.py --recipe vatex_zh --data CORPUS --output RUN [method=faithful]
Hardware: one GPU of 24 GB
Cost:     1.5 hours expected of one H100, from 0.6 ms a sample (bench/train.py)
Score:    not yet measured
"""

from typing import Any

from stages.training.released import released_video


def recipe() -> dict[str, Any]:
    return released_video(languages=("zh",))
