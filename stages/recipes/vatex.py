"""VATEX: videos, Chinese, on frame features. Its released weights are not known; those of MSR-VTT-CN stand in.

vatex_zh:
  Command:  accelerate launch stages/train.py --recipe vatex_zh --data CORPUS --output RUN [method=faithful]
  Hardware: one GPU of 24 GB
  Cost:     1.5 hours expected on one H100, from 0.6 ms per sample (bench/train.py)
  Score:    not yet measured

vatex_best:
  Command:  accelerate launch stages/train.py --recipe vatex_best --data CORPUS --output RUN
  Hardware: one GPU of 40 GB
  Cost:     one hour expected on one H100, from 0.6 ms per sample (bench/train.py)
  Score:    not yet measured
"""

from stages.recipes import Recipe
from stages.recipes.base import multilingual, released_video

RECIPES = {
    "vatex_zh": Recipe("VATEX, Chinese, frame features: loss weights of MSR-VTT-CN", released_video(languages=("zh",))),
    "vatex_best": Recipe("VATEX, all languages in one model, frame features", multilingual(media="features")),
}
