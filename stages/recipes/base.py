"""The default settings, and what the recipes of the four benchmarks share.

base:
  Command:  accelerate launch stages/train.py --recipe base --data CORPUS --output RUN media=NAME text=NAME
  Hardware: depends on the encoders
  Cost:     depends on the data
  Score:    not yet measured
"""

from typing import Any

from stages.recipes import Recipe

SIGLIP = "google/siglip2-base-patch16-256"  # vision and text towers trained together on many languages


def released(**changes: Any) -> dict[str, Any]:
    """The settings of the released code: CLIP ViT-B/32 at 384 pixels, one mBERT, batches of 128; `changes` override."""
    return {
        "media": "openai/clip-vit-base-patch32",
        "text": "google-bert/bert-base-multilingual-cased",
        "human_targets": False,
        "image_size": 384,
        "max_words": 30,
        "embed_dim": 256,
        "num_slots": 4,
        "slot_layers": 3,
        "interaction_layers": 2,
        "diversity_weight": 0.01,
        "local_weight": 0.01,
        "distillation_weight": 0.5,
        "caption_vision_weight": 0.01,
        "batch_size": 128,
        "epochs": 60,
        "lr": 1e-5,
        "weight_decay": 0.01,
        **changes,
    }


def released_video(**changes: Any) -> dict[str, Any]:
    """The same on frame features, with two slots, two layers and the loss weights of MSR-VTT-CN."""
    video = {"num_slots": 2, "slot_layers": 2, "diversity_weight": 0.03, "distillation_weight": 0.3, "epochs": 50}
    return released(media="features", image_size=0, **video, **changes)


def multilingual(**changes: Any) -> dict[str, Any]:
    """Multilingual towers, one model for every language of the corpus, thousands of samples compared per step."""
    return {
        "media": SIGLIP,
        "text": SIGLIP,
        "human_targets": False,
        "batch_size": 4096,
        "micro_batch": 128,
        "epochs": 20,
        "lr": 2e-5,
        "ema": 0.999,
        "schedule": "cosine",
        "mixed_precision": "auto",
        **changes,
    }


RECIPES = {"base": Recipe("the defaults, on your own corpus: small encoders, or any tower by name or folder")}
