"""What a LECCR model is made of: everything that its weights and its scores depend on, saved as `config.json`.

How it is trained (loss weights, temperatures of the teacher) is `model.objective.ObjectiveConfig`.
"""

from typing import Any

from transformers import PreTrainedConfig


class LeccrConfig(PreTrainedConfig):
    """
    `media_encoder`, `text_encoder`: {"kind": …}, see `model.encoders`.
    Raises ValueError for a value that is out of its range.
    """

    model_type = "leccr"

    media_encoder: dict[str, Any] | None = None
    text_encoder: dict[str, Any] | None = None
    embed_dim: int = 256  # E, width of the shared space
    num_slots: int = 4  # K, semantic slots an item; 0: a plain two-tower model
    slot_layers: int = 3  # L1, cross-attention layers that read the description
    interaction_layers: int = 2  # L2, cross-attention layers between slots and visual tokens
    num_heads: int = 8  # of every cross-attention layer
    dropout: float = 0.1  # probability, in the feed-forward half of the cross-attention layers
    attention_dropout: float = 0.0  # probability, of their attention weights; .1 as released
    stack_init: str = "independent"  # of a stack's layers; "copies" of the first as released
    slot_init: str = "normal"  # of the slot queries: "normal" (0, .02), or "zero" as released
    normalize_slots: bool = True  # unit-length slots in local matching; False as released
    caption_vision_axis: str = "features"  # that the caption-vision vectors are normalised over; "tokens" as released
    description_encoder: str = "frozen"  # the text tower as it was; "shared": as it is by now; "trained": by this too
    init_temperature: float = 0.07  # τ, learned
    global_weight: float = 0.8  # a, of the global similarity in the score; 1 - a is the local one's

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        for name, allowed in (
            ("stack_init", ("independent", "copies")),
            ("slot_init", ("normal", "zero")),
            ("caption_vision_axis", ("features", "tokens")),
            ("description_encoder", ("frozen", "shared", "trained")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, wanted {' or '.join(allowed)}")
        for name, least in (("embed_dim", 1), ("num_slots", 0), ("slot_layers", 1), ("interaction_layers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted {least} or more")
        if not 0.01 <= self.init_temperature <= 1:
            raise ValueError(f"init_temperature: got {self.init_temperature}, wanted a number from 0.01 to 1")
        for name in ("dropout", "attention_dropout", "global_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted a number from 0 to 1")

    def get_text_config(self, *_: Any, **__: Any) -> "LeccrConfig":
        """`text_encoder` is a spec, no configuration of Transformers as its name would mean elsewhere."""
        return self
