"""Models that are scored as they are: CLIP, SigLIP and their like, and encoders that make vectors by themselves.

They have LECCR's interface and no slots. `DescribedTowers` gives any of them the views of items as slots, for late
fusion.

B items or texts · F frames · V views · E width of their space · T tokens
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import MODEL_MAPPING, AutoConfig, AutoImageProcessor

from model.batch import Media, Texts
from model.encoders.transformers_towers import text_positions
from model.processing import LeccrProcessor, check_texts
from pipeline.errors import UsageError
from stages.data.media import Frames

FAMILIES = (
    *("altclip", "chinese_clip", "clip", "clipseg", "metaclip_2"),
    *("siglip", "siglip2", "vision-text-dual-encoder"),
)


class Baseline(nn.Module):
    """A dual encoder with the interface of `LeccrModel`."""

    slots_are_views = False

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        self.reads_padding = model.config.model_type.startswith("siglip")

    def encode_media(self, media: Media, descriptions: Texts, fused: bool = True) -> tuple[Tensor, Tensor]:
        """Media [B,E] of unit length, of a video the mean over its frames' directions; and no slots, [B,0,E]."""
        real_BF = media.mask
        frames_E = normalize(_pooled(self.model.get_image_features(**_picture_inputs(media.frames[real_BF]))), dim=-1)
        frames_BFE = frames_E.new_zeros(*real_BF.shape, frames_E.shape[-1])
        frames_BFE[real_BF] = frames_E
        media_BE = normalize(frames_BFE.sum(1), dim=-1)
        return media_BE, media_BE.new_zeros(len(media_BE), 0, media_BE.shape[1])

    def encode_text(self, texts: Texts) -> Tensor:
        """Texts [B,E] of unit length."""
        mask = {} if self.reads_padding else {"attention_mask": texts.mask.long()}
        return normalize(_pooled(self.model.get_text_features(input_ids=texts.tokens, **mask)), dim=-1)


class BaselineProcessor(LeccrProcessor):
    """Inputs as the model was trained on them: its own processor makes the pictures."""

    def media(self, items: Sequence[Sequence[Any]]) -> Media:
        """Pixels [B,F,3,H,W] as the model takes them, or patches [B,F,P,·], see `_picture_inputs`; float32."""
        counts = [len(frames) for frames in items]
        pictures = [frame.convert("RGB") for frames in items for frame in frames]
        inputs = self.image_processor(images=pictures, return_tensors="pt")
        pixels = inputs["pixel_values"]
        if "spatial_shapes" in inputs:
            pixels = torch.cat([pixels, inputs["spatial_shapes"][:, None].expand(-1, pixels.shape[1], -1)], dim=-1)
        frames_BF = torch.nn.utils.rnn.pad_sequence(list(pixels.split(counts)), batch_first=True)
        return Media(frames_BF, torch.arange(max(counts))[None] < torch.tensor(counts)[:, None])


class VectorEncoder(Protocol):
    """Makes float32 vectors itself: the encoders in the wheel, a model of Sentence Transformers, or a server."""

    def media(self, items: Sequence[Any]) -> np.ndarray:
        """Items [N,E], each of one or more frames."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Queries [M,E]."""

    def descriptions(self, texts: Sequence[str]) -> np.ndarray:
        """Descriptions [M,E]."""


class VectorTowers(nn.Module):
    """The interface of `LeccrModel` for inputs that are the vectors already."""

    slots_are_views = False

    def encode_media(self, media: Media, descriptions: Texts, fused: bool = True) -> tuple[Tensor, Tensor]:
        """Items [B,E], and no slots."""
        media_BE = media.frames[:, 0]
        return media_BE, media_BE.new_zeros(len(media_BE), 0, media_BE.shape[1])

    def encode_text(self, texts: Texts) -> Tensor:
        """Texts [B,E]."""
        return texts.tokens[:, 0]


class VectorProcessor:
    """The interface of `LeccrProcessor` around an encoder that makes the vectors."""

    def __init__(self, encoder: VectorEncoder):
        self.encoder = encoder

    def media(self, items: Sequence[Frames]) -> Media:
        """Items as one vector each, [B,1,E]."""
        return Media(*self._as_texts(self.encoder.media(items)))

    def texts(self, texts: Sequence[str]) -> Texts:
        """Queries as one vector each, [B,1,E]."""
        return self._as_texts(self.encoder.texts(texts))

    def descriptions(self, items: Sequence[Sequence[str]]) -> Texts:
        """Views as one vector each, [B,V,1,E]; "" is an absent one."""
        return view_texts(lambda texts: self._as_texts(self.encoder.descriptions(texts)), items)

    @staticmethod
    def _as_texts(vectors_BE: np.ndarray) -> Texts:
        return Texts(torch.from_numpy(vectors_BE)[:, None], torch.ones(len(vectors_BE), 1, dtype=torch.bool))


class DescribedTowers(nn.Module):
    """Two towers of which the text tower also reads the views of items, each of them a slot.

    Args:
        towers: The two towers.
    """

    slots_are_views = True

    def __init__(self, towers: Any):
        super().__init__()
        self.towers = towers

    def encode_media(self, media: Media, descriptions: Texts, fused: bool = True) -> tuple[Tensor, Tensor]:
        """Items [B,E] and views [B,V,E], which are never fused here."""
        media_BE, _ = self.towers.encode_media(media, descriptions)
        batch_and_views = descriptions.tokens.shape[:2]
        text_BE = self.encode_text(Texts(*(it.flatten(0, 1) for it in descriptions)))
        views_BVE = text_BE.unflatten(0, batch_and_views) * descriptions.mask.any(2)[..., None]
        return media_BE, views_BVE

    def encode_text(self, texts: Texts) -> Tensor:
        """Texts [B,E]."""
        return self.towers.encode_text(texts)


def load_baseline(name: str) -> tuple[Baseline, BaselineProcessor]:
    """Load a dual encoder by folder or by name on the Hub.

    Raises:
        UsageError: The model is of another kind, or weights are missing.
        OSError, ValueError, SafetensorError: It cannot be loaded.
    """
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    if config.model_type not in FAMILIES:
        raise UsageError(
            f"--checkpoint {name} is of the family {config.model_type}, expected leccr, Sentence Transformers, "
            f"or one with two towers: {', '.join(FAMILIES)}"
        )
    kind: Any = MODEL_MAPPING[type(config)]
    model, loaded = kind.from_pretrained(name, output_loading_info=True, ignore_mismatched_sizes=True)
    damaged = sorted([*loaded["missing_keys"], *(name for name, *_sizes in loaded["mismatched_keys"])])
    if damaged:
        raise UsageError(f"--checkpoint {name}: {len(damaged)} weights are missing or of other sizes ({damaged[0]} …)")
    baseline = Baseline(model.float().eval())
    processor = BaselineProcessor.create("features", name, max_tokens=text_positions(config))
    processor.image_processor = AutoImageProcessor.from_pretrained(name, use_fast=False, trust_remote_code=False)
    check_texts(name, processor, baseline.encode_text)
    return baseline, processor


def view_texts(encode: Callable[[list[str]], Texts], items: Sequence[Sequence[str]]) -> Texts:
    """The views of items [B,V,T] as texts, "" for one that is missing: its mask is all False."""
    views = max(1, *(len(views) for views in items))
    flat = [text for item in items for text in [*item, *[""] * (views - len(item))]]
    texts = encode(flat)
    present_V1 = torch.tensor([bool(text.strip()) for text in flat])[:, None]
    return Texts(*(it.unflatten(0, (len(items), views)) for it in (texts.tokens, texts.mask & present_V1)))


def _picture_inputs(frames_M: Tensor) -> dict[str, Tensor]:
    """What a vision tower takes: pixels, or patches [M,P,·], of which the last two columns are rows and columns."""
    if frames_M.dim() > 3:
        return {"pixel_values": frames_M}
    shapes_M2 = frames_M[:, 0, -2:].long()
    mask_MP = torch.arange(frames_M.shape[1], device=frames_M.device) < shapes_M2.prod(1, keepdim=True)
    return {"pixel_values": frames_M[..., :-2], "pixel_attention_mask": mask_MP.int(), "spatial_shapes": shapes_M2}


def _pooled(output: Any) -> Tensor:
    """The projected vectors [B,E], which versions of Transformers return in different ways."""
    return output if isinstance(output, Tensor) else output.pooler_output
