"""MSCOCO: images, Chinese and Japanese, with the released loss weights; one model for all languages.

mscoco_zh, mscoco_ja:
  Command:  accelerate launch stages/train.py --recipe mscoco_zh --data CORPUS --output RUN [method=faithful]
  Hardware: one GPU of 24 GB
  Cost:     8 hours expected on one H100, from 0.6 ms per sample (bench/train.py)
  Score:    not yet measured

mscoco_best:
  Command:  accelerate launch stages/train.py --recipe mscoco_best --data CORPUS --output RUN
  Hardware: one GPU of 40 GB
  Cost:     4 hours expected on one H100, from 0.6 ms per sample (bench/train.py)
  Score:    not yet measured
"""

from stages.recipes import Recipe
from stages.recipes.base import multilingual, released

RECIPES = {
    "mscoco_zh": Recipe("MSCOCO, Chinese: released loss weights", released(languages=("zh",))),
    "mscoco_ja": Recipe(
        "MSCOCO, Japanese: released loss weights",
        released(languages=("ja",), local_weight=0.05, distillation_weight=0.3),
    ),
    "mscoco_best": Recipe("MSCOCO, all languages in one model: multilingual towers", multilingual()),
}
