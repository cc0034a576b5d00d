"""MSR-VTT-CN: videos, Chinese, on frame features, with the released loss weights.

msrvtt_cn_zh:
  Command:  accelerate launch stages/train.py --recipe msrvtt_cn_zh --data CORPUS --output RUN [method=faithful]
  Hardware: one GPU of 24 GB
  Cost:     one hour expected on one H100, from 0.6 ms per sample (bench/train.py)
  Score:    not yet measured

msrvtt_cn_best:
  Command:  accelerate launch stages/train.py --recipe msrvtt_cn_best --data CORPUS --output RUN
  Hardware: one GPU of 40 GB
  Cost:     0.5 hours expected on one H100, from 0.6 ms per sample (bench/train.py)
  Score:    not yet measured
"""

from stages.recipes import Recipe
from stages.recipes.base import multilingual, released_video

RECIPES = {
    "msrvtt_cn_zh": Recipe("MSR-VTT-CN, Chinese, frame features: released weights", released_video(languages=("zh",))),
    "msrvtt_cn_best": Recipe("MSR-VTT-CN, all languages in one model, frame features", multilingual(media="features")),
}
