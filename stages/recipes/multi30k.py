"""Multi30K: images, German, French and Czech, with the released loss weights; one model for all languages.

multi30k_de, multi30k_fr, multi30k_cs:
  Command:  accelerate launch stages/train.py --recipe multi30k_de --data CORPUS --output RUN [method=faithful]
  Hardware: one GPU of 24 GB
  Cost:     2.5 hours expected on one H100, from 0.6 ms per sample (bench/train.py)
  Score:    not yet measured

multi30k_best:
  Command:  accelerate launch stages/train.py --recipe multi30k_best --data CORPUS --output RUN
  Hardware: one GPU of 40 GB
  Cost:     one hour expected on one H100, from 0.6 ms per sample (bench/train.py)
  Score:    not yet measured
"""

from stages.recipes import Recipe
from stages.recipes.base import multilingual, released

RECIPES = {
    "multi30k_de": Recipe(
        "Multi30K, German: released loss weights",
        released(languages=("de",), diversity_weight=0.05, distillation_weight=0.0),
    ),
    "multi30k_fr": Recipe("Multi30K, French: released loss weights", released(languages=("fr",))),
    "multi30k_cs": Recipe("Multi30K, Czech: released loss weights", released(languages=("cs",))),
    "multi30k_best": Recipe("Multi30K, all languages in one model: multilingual towers", multilingual()),
}
