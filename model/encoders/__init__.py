"""What sees and what reads: towers behind two small protocols, from a spec or by name.

A spec is what `config.json` keeps of a tower: {"kind": …} and what that kind is built from.

| kind | media | text |
| --- | --- | --- |
| transformers | `class`, `config`, `image_mean`, `image_std` | `class`, `config`, `pooling` |
| tiny | `image_size`, `patch_size`, `width`, `layers`, `heads` | `vocab_size`, `max_tokens`, `width` … |
| embedded | `width`, of EfficientNet-Lite0's frozen grid projected | sentence vectors, which the processor computes |
| features | `input_dim`, `width`, `layers`, `heads`, `max_frames` | – |
"""

import inspect
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from model.batch import Media, Texts
from model.encoders import transformers_towers as towers
from model.encoders.embedded import GRID_MEAN, GRID_STD, Grid, SentenceVectors
from model.encoders.features import FeatureEncoder
from model.encoders.frames import IMAGENET_MEAN, IMAGENET_STD, FrameEncoder
from model.encoders.tiny import TinyText, TinyVision


@runtime_checkable
class MediaEncoder(Protocol):
    """Visual tokens [B,N,D], their mask [B,N] bool, and the weights [B,N] of global pooling, of sum 1."""

    width: int  # D

    def __call__(self, media: Media) -> tuple[Tensor, Tensor, Tensor]: ...


@runtime_checkable
class TextEncoder(Protocol):
    """States [B,T,width] and a summary [B,pooled_width]; finite where there is no text."""

    width: int
    pooled_width: int

    def __call__(self, texts: Texts) -> tuple[Tensor, Tensor]: ...


def build_media_encoder(spec: Mapping[str, Any] | None) -> Any:
    """A media encoder with random weights. Raises ValueError for a spec that nothing can be built from."""
    kind, options = _opened(spec, "media_encoder", ("transformers", "tiny", "embedded", "features"))
    if kind == "features":
        return _made("media_encoder", FeatureEncoder, options)
    if kind == "embedded":
        return FrameEncoder(_made("media_encoder", Grid, options), options["width"], GRID_MEAN, GRID_STD)
    if kind == "tiny":
        tower = _made("media_encoder", TinyVision, options)
        return FrameEncoder(tower, options["width"], IMAGENET_MEAN, IMAGENET_STD)
    return _vision(towers.build_tower(options.get("class"), options.get("config")), options)


def build_text_encoder(spec: Mapping[str, Any] | None) -> Any:
    """A text encoder with random weights. Raises ValueError for a spec that nothing can be built from."""
    kind, options = _opened(spec, "text_encoder", ("transformers", "tiny", "embedded"))
    if kind == "embedded":
        return SentenceVectors()
    if kind == "tiny":
        return _made("text_encoder", TinyText, options)
    tower = towers.build_tower(options.get("class"), options.get("config"))
    return towers.TextTower(tower, options.get("pooling", "auto"))


def load_media_encoder(name: str) -> tuple[Any, dict[str, Any]]:
    """The vision tower of a Transformers model with its weights, and its spec. Raises ValueError."""
    tower, missing = towers.load_tower(name, "vision")
    spec = towers.spec_of(tower, **towers.pixel_statistics(name))
    encoder = _vision(tower, spec)
    towers.check_weights(name, tower, missing)
    return encoder, spec


def load_text_encoder(name: str, pooling: str = "auto") -> tuple[Any, dict[str, Any]]:
    """The text tower of a Transformers model with its weights, and its spec. Raises ValueError."""
    tower, missing = towers.load_tower(name, "text")
    spec = towers.spec_of(tower, pooling=pooling)
    encoder = towers.TextTower(tower, pooling)
    towers.check_weights(name, tower, missing)
    return encoder, spec


def _vision(tower: Any, spec: Mapping[str, Any]) -> FrameEncoder:
    mean, std = tuple(spec.get("image_mean", IMAGENET_MEAN)), tuple(spec.get("image_std", IMAGENET_STD))
    return FrameEncoder(towers.VisionTower(tower), towers.width(tower), mean, std)


def _made(name: str, make: type, options: dict[str, Any]) -> Any:
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        raise ValueError(f"{name}: got {options}, wanted what it is built from: {error}") from error
    return make(**options)


def _opened(spec: Mapping[str, Any] | None, name: str, kinds: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    options = dict(spec or {})
    kind = options.pop("kind", None)
    if kind not in kinds:
        raise ValueError(f"{name}: got kind {kind!r}, wanted {' or '.join(kinds)}")
    return kind, options
