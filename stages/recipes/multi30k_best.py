"""Multi30K, all its languages in one model: towers that know many languages, batches of 4,096.

Command:  accelerate launch stages/train.py --recipe multi30k_best --data CORPUS --output RUN
Hardware: one GPU of 40 GB
Cost:     one hour expected of one H100, from 0.6 ms a sample (bench/train.py)
Score:    not yet measured
"""

from typing import Any

from stages.training.released import modern


def recipe() -> dict[str, Any]:
    return modern()
