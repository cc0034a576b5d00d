"""The configuration of a LECCR model: everything its weights and scores depend on, saved as `config.json`.

How a model is trained is `model.settings.ObjectiveConfig`.
"""

from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from model.fusion import POOLINGS, Fusion
from model.settings import ModelSettings, check_settings, setting


class LeccrConfig(ModelSettings, PreTrainedConfig):
    """Sizes and switches of the network, and what its encoders are built from.

    Attributes:
        media_encoder: Spec of the media encoder, `{"kind": …}`, see `model.encoders`.
        text_encoder: Spec of the text encoder.
        views: Names of the views that are slots, in order.
        local_pooling: How the similarities of views make one, chosen on validation.
        view_weights: Weights of views in that by name, chosen on validation; 1 where a name is missing.
        global_weight: a, share of the global similarity in the score (equation 10), chosen on validation.
    """

    model_type = "leccr"

    media_encoder: dict[str, Any] | None = None
    text_encoder: dict[str, Any] | None = None
    views: Sequence[str] = ()
    local_pooling: str = setting("mean", "of the views' similarities", choices=POOLINGS)
    view_weights: dict[str, float] | None = None
    global_weight: float = setting(0.8, "share of the global similarity in the score", at_least=0, at_most=1)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Read a configuration; one of before 0.3 has slots that are learned queries, and random heads."""
        if "slots" not in config_dict:
            queries = config_dict.get("num_slots", 4)
            before = {"slots": "queries" if queries else "none", "num_slots": queries or 4, "heads": "random"}
            config_dict = config_dict | before
        return super().from_dict(config_dict, **kwargs)

    @property
    def fusion(self) -> Fusion:
        """How the score is made of the global similarity and those of views."""
        return Fusion(self.global_weight, self.local_pooling, self.view_weights or {})

    def layer(self) -> dict[str, Any]:
        """Arguments of each cross-attention layer."""
        return {
            "heads": self.num_heads,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "stack_init": self.stack_init,
        }

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self.freeze = tuple(self.freeze)  # JSON has lists
        check_settings(self)

    def get_text_config(self, *_: Any, **__: Any) -> "LeccrConfig":
        """Return this configuration: `text_encoder` is a spec, not a Transformers configuration."""
        return self


AutoConfig.register(LeccrConfig.model_type, LeccrConfig)
