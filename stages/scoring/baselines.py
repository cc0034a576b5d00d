"""Transformers models with an image and a text tower in one space (CLIP, SigLIP and their like), scored as they are.

They have LECCR's interface and no slots; descriptions are not read.

B items or texts · F frames · E width of their space · T tokens
"""

from collections.abc import Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import MODEL_MAPPING, AutoConfig, AutoImageProcessor, AutoTokenizer

from model.batch import Media, Texts
from model.processing import SIGLIP_TOKENS
from pipeline.errors import UsageError


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
        frames_E = normalize(_pooled(self.model.get_image_features(pixel_values=media.frames[real_BF])), dim=-1)
        frames_BFE = frames_E.new_zeros(*real_BF.shape, frames_E.shape[-1])
        frames_BFE[real_BF] = frames_E
        media_BE = normalize(frames_BFE.sum(1), dim=-1)
        return media_BE, media_BE.new_zeros(len(media_BE), 0, media_BE.shape[1])

    def encode_text(self, texts: Texts) -> Tensor:
        """Texts [B,E] of unit length."""
        mask = {} if self.reads_padding else {"attention_mask": texts.mask.long()}
        return normalize(_pooled(self.model.get_text_features(input_ids=texts.tokens, **mask)), dim=-1)


class BaselineProcessor:
    """Inputs as the model was trained on them.

    Those that the model's own processor makes; for SigLIP also 64 tokens and lower case, without which its texts score
    near chance.
    """

    def __init__(self, image_processor: Any, tokenizer: Any, config: Any):
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.siglip = config.model_type.startswith("siglip")
        positions = getattr(config.text_config, "max_position_embeddings", SIGLIP_TOKENS)
        self.max_tokens = min(positions, SIGLIP_TOKENS) if self.siglip else positions

    def media(self, items: Sequence[Sequence[Any]]) -> Media:
        """Pixels [B,F,3,H,W] as the model takes them, float32."""
        counts = [len(frames) for frames in items]
        pictures = [frame.convert("RGB") for frames in items for frame in frames]
        pixels = self.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
        frames_BF = torch.nn.utils.rnn.pad_sequence(list(pixels.split(counts)), batch_first=True)
        return Media(frames_BF, torch.arange(max(counts))[None] < torch.tensor(counts)[:, None])

    def texts(self, texts: Sequence[str], training: bool = False) -> Texts:
        """Tokens [B,T], truncated to what the model reads."""
        tokens = self.tokenizer(
            [text.lower() for text in texts] if self.siglip else list(texts),
            padding="max_length" if self.siglip else True,
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return Texts(tokens["input_ids"], tokens["attention_mask"].bool())

    def descriptions(self, items: Sequence[Sequence[str]]) -> Texts:
        """Empty: nothing reads them."""
        return Texts(torch.zeros(len(items), 1, 1, dtype=torch.int64), torch.zeros(len(items), 1, 1, dtype=torch.bool))


def load_baseline(name: str) -> tuple[Baseline, BaselineProcessor]:
    """Load a dual encoder by folder or by name on the Hub.

    Raises:
        UsageError: The model is of another kind, or files are missing or damaged.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        kind: Any = MODEL_MAPPING.get(type(config), None)
        if not all(hasattr(kind, method) for method in ("get_image_features", "get_text_features")):
            raise UsageError(
                f"--checkpoint {name} is a model of type {config.model_type}, expected leccr, or one with both an "
                "image and a text tower, such as clip or siglip"
            )
        model, loaded = kind.from_pretrained(name, output_loading_info=True, ignore_mismatched_sizes=True)
        damaged = sorted([*loaded["missing_keys"], *(name for name, *_sizes in loaded["mismatched_keys"])])
        if damaged:
            raise UsageError(
                f"--checkpoint {name}: {len(damaged)} weights are missing or of other sizes ({damaged[0]} …)"
            )
        image_processor = AutoImageProcessor.from_pretrained(name, use_fast=False)
        tokenizer = AutoTokenizer.from_pretrained(name)
        first, second = tokenizer(["one", "two"])["input_ids"]
        if first == second:  # Transformers makes an empty tokenizer where the files are missing
            raise UsageError(f"--checkpoint {name}: the tokenizer has no vocabulary. Check that its files are there")
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(f"--checkpoint {name}: cannot be loaded: {str(error).splitlines()[0]}") from error
    return Baseline(model.float().eval()), BaselineProcessor(image_processor, tokenizer, config)


def _pooled(output: Any) -> Tensor:
    """The projected vectors [B,E], which versions of Transformers return in different ways."""
    return output if isinstance(output, Tensor) else output.pooler_output
