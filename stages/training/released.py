"""What the runs of the four benchmarks share, as the released code sets it."""

from typing import Any

SIGLIP = "google/siglip2-base-patch16-256"  # towers that were trained together on many languages


def released(**changes: Any) -> dict[str, Any]:
    """CLIP ViT-B/32 at 384 pixels and one mBERT, 256 shared features, batches of 128; `changes` come over these."""
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
    """The same on frame features: two slots, two layers, the weights of MSR-VTT-CN."""
    return released(
        media="features",
        image_size=0,
        num_slots=2,
        slot_layers=2,
        diversity_weight=0.03,
        distillation_weight=0.3,
        epochs=50,
        **changes,
    )


def modern(**changes: Any) -> dict[str, Any]:
    """Towers that know many languages, every language of the corpus in one model, thousands of samples compared."""
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
