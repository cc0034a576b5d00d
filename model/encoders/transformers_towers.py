"""Vision and text towers of Transformers, by name or folder with their weights, or from a spec with random ones.

M pictures · P tokens a picture · B texts · T tokens · D width
"""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin

from model.batch import Texts

# Whole models whose towers are taken, and the classes of their parts.
VISION_OF = {
    "clip": "CLIPVisionModel",
    "siglip": "SiglipVisionModel",
    "chinese_clip": "ChineseCLIPVisionModel",
    "altclip": "AltCLIPVisionModel",
}
TEXT_OF = {
    "clip": "CLIPTextModel",
    "siglip": "SiglipTextModel",
    "siglip_text_model": "SiglipTextModel",  # AutoModel does not know it
    "chinese_clip": "ChineseCLIPTextModel",
    "altclip": "AltCLIPTextModel",
}
POOLED = ("CLIPTextModel", "SiglipTextModel")  # whose summary is their own pooled output
UNMASKED = ("SiglipTextModel",)  # trained with padding as tokens like others; the summary is at the last place
SUMMARY_FIRST = ("clip", "vit", "dinov2", "dinov3_vit", "deit", "beit", "chinese_clip", "altclip")  # token 0 is CLS
POOLINGS = ("auto", "cls", "mean", "pooler")


class VisionTower(nn.Module):
    """Pictures [M,3,H,W] → tokens [M,P,D], the summary first: CLS, or where there is none the pooled output or mean."""

    def __init__(self, tower: PreTrainedModel):
        super().__init__()
        family = tower.config.model_type
        self.cls_first = family.startswith(SUMMARY_FIRST)
        self.pooled = family.startswith("siglip")
        self.tower = without_dead_parameters(tower, keep_pooler=self.pooled)
        self.normalizes = family in ("clip", "clip_vision_model", "chinese_clip_vision_model", "altclip_vision_model")
        self.interpolates = _interpolates(tower)

    def forward(self, pixels_M3HW: Tensor) -> Tensor:
        more = {"interpolate_pos_encoding": True} if self.interpolates else {}
        out = self.tower(pixel_values=pixels_M3HW, **more)
        states_MPD = out.last_hidden_state
        if states_MPD.dim() == 4:  # a grid of features: channels first
            states_MPD = states_MPD.flatten(2).transpose(1, 2)
        if self.normalizes:  # CLIP's last states come before its last norm
            inner: Any = getattr(self.tower, "vision_model", self.tower)
            states_MPD = inner.post_layernorm(states_MPD)
        if self.cls_first:
            return states_MPD
        summary_MD = out.pooler_output if self.pooled else states_MPD.mean(1)
        return torch.cat([summary_MD[:, None], states_MPD], 1)


class TextTower(nn.Module):
    """Token ids → states [B,T,D] and a summary: of BERT's kin the first token, of CLIP and SigLIP their own."""

    def __init__(self, tower: PreTrainedModel, pooling: str = "auto"):
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: got {pooling!r}, wanted {' or '.join(POOLINGS)}")
        kind = type(tower).__name__
        self.pooling = ("pooler" if kind in POOLED else "cls") if pooling == "auto" else pooling
        self.unmasked = kind in UNMASKED
        self.tower = without_dead_parameters(tower, keep_pooler=self.pooling == "pooler")
        self.width = width(tower)
        own = getattr(tower.config, "projection_size", None) if kind == "SiglipTextModel" else None
        self.pooled_width = int(own or self.width) if self.pooling == "pooler" else self.width

    def forward(self, texts: Texts) -> tuple[Tensor, Tensor]:
        mask_BT = texts.mask.clone()
        mask_BT[:, 0] |= ~texts.mask.any(1)  # where there is no text, something finite
        out = self.tower(input_ids=texts.tokens, attention_mask=None if self.unmasked else mask_BT.long())
        states_BTD = out.last_hidden_state
        if self.pooling == "pooler":
            return states_BTD, out.pooler_output
        if self.pooling == "cls":
            return states_BTD, states_BTD[:, 0]
        return states_BTD, (states_BTD * mask_BT[..., None]).sum(1) / mask_BT.sum(1, keepdim=True)


def load_tower(name: str, part: str) -> PreTrainedModel:
    """The tower of a model by name or folder, with its weights. `part`: "vision" or "text".

    Raises ValueError where there is no such model, or it has no such tower.
    """
    try:
        with quiet():
            config = AutoConfig.from_pretrained(name)
            kind = (VISION_OF if part == "vision" else TEXT_OF).get(config.model_type)
            loader = getattr(transformers, kind) if kind else transformers.AutoModel
            tower = loader.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{name}: got no {part} tower ({reason}), wanted a Transformers model or its folder"
        ) from error
    _check_part(name, tower, part)
    return tower


def _check_part(name: str, tower: PreTrainedModel, part: str) -> None:
    wanted = "pixel_values" if part == "vision" else "input_ids"
    if tower.main_input_name != wanted:
        raise ValueError(
            f"{name}: got {type(tower).__name__}, which reads {tower.main_input_name}, wanted a {part} tower"
        )


def build_tower(kind: str, config: dict[str, Any]) -> PreTrainedModel:
    """A tower of the class `kind` with random weights. Raises ValueError for what is no model of Transformers."""
    found = getattr(transformers, kind, None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise ValueError(f"class: got {kind!r}, wanted a model of Transformers {transformers.__version__}")
    with quiet():
        return found(found.config_class.from_dict(config))  # type: ignore[union-attr]


def spec_of(tower: PreTrainedModel, **more: Any) -> dict[str, Any]:
    """What `build_tower` builds this tower from."""
    return {"kind": "transformers", "class": type(tower).__name__, "config": tower.config.to_diff_dict(), **more}


def without_dead_parameters(tower: PreTrainedModel, keep_pooler: bool) -> PreTrainedModel:
    """The tower, less what its last states do not need: a weight that gets no gradient holds up every other process."""
    for owner in (tower, getattr(tower, "vision_model", None), getattr(tower, "text_model", None)):
        if owner is None:
            continue
        if not keep_pooler and isinstance(getattr(owner, "pooler", None), nn.Module):
            owner.pooler = None
        if not keep_pooler and isinstance(getattr(owner, "head", None), nn.Module):
            owner.head = nn.Identity()  # which is called all the same
    for name, parameter in tower.named_parameters():
        if name.endswith("mask_token"):
            parameter.requires_grad_(False)
    return tower


def width(tower: PreTrainedModel) -> int:
    """D, of the last states: Swin's grows from stage to stage, and `hidden_size` is the last."""
    return int(tower.config.hidden_size)


def pixel_statistics(name: str) -> dict[str, Any]:
    """`image_mean` and `image_std` as the model's own image processor has them; nothing where it says nothing."""
    said = image_processing(name)
    return {key: said[key] for key in ("image_mean", "image_std") if key in said}


def image_processing(name: str) -> dict[str, Any]:
    """What `preprocessor_config.json` says; {} where there is none."""
    try:
        found, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        return {}
    return dict(found)


def _interpolates(tower: PreTrainedModel) -> bool:
    return "interpolate_pos_encoding" in inspect.signature(tower.forward).parameters


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the bars and the notes of Transformers about weights that are left out."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
