"""Media and text encoders, built from a spec or loaded by name.

A media encoder takes `Media` and returns visual tokens [B,N,D], their mask [B,N] bool, and the weights [B,N] of global
pooling, which sum to 1; `width` is D. A text encoder takes `Texts` and returns states [B,T,width] and summaries
[B,pooled_width], finite for absent texts.

A spec is what `config.json` stores of an encoder: {"kind": …} and what that kind is built from.

| kind | media | text |
| --- | --- | --- |
| transformers | `class`, `config`, `projection`, `image_mean` … | `class`, `config`, `projection`, `pooling` |
| tiny | `image_size`, `patch_size`, `width`, `layers`, `heads` | `vocab_size`, `max_tokens`, `width` … |
| embedded | `width`, to which EfficientNet-Lite0's frozen grid is projected | sentence vectors, from the processor |
| features | `input_dim`, `width`, `layers`, `heads`, `max_frames` | – |
| released_features | `input_dim`, `layers`, `heads` | – |
"""

from collections.abc import Mapping
from typing import Any

from model.encoders import transformers_towers as towers
from model.encoders.embedded import GRID_MEAN, GRID_STD, Grid, SentenceVectors
from model.encoders.frames import IMAGENET_MEAN, IMAGENET_STD, AttentionReader, FeatureEncoder, FrameEncoder
from model.encoders.pictures import load_image_processor, pixel_statistics
from model.encoders.tiny import TinyText, TinyVision


def build_media_encoder(spec: Mapping[str, Any] | None) -> Any:
    """Build a media encoder with random weights; raises ValueError for an invalid spec."""
    options = dict(spec or {})
    kind = options.pop("kind", None)
    if kind == "features":
        return FeatureEncoder(**options)
    if kind == "released_features":
        return AttentionReader(**options)
    if kind == "embedded":
        return FrameEncoder(Grid(**options), options["width"], GRID_MEAN, GRID_STD)
    if kind == "tiny":
        return FrameEncoder(TinyVision(**options), options["width"], IMAGENET_MEAN, IMAGENET_STD)
    if kind == "transformers":
        return _vision(towers.build_tower(options.get("class"), options.get("config", {})), options)
    raise ValueError(
        f"media_encoder has kind {kind!r}: expected transformers, tiny, embedded, features or released_features"
    )


def build_text_encoder(spec: Mapping[str, Any] | None) -> Any:
    """Build a text encoder with random weights; raises ValueError for an invalid spec."""
    options = dict(spec or {})
    kind = options.pop("kind", None)
    if kind == "embedded":
        return SentenceVectors()
    if kind == "tiny":
        return TinyText(**options)
    if kind == "transformers":
        tower = towers.build_tower(options.get("class"), options.get("config", {}))
        return towers.TextTower(tower, options.get("pooling", "auto"), options.get("projection", 0))
    raise ValueError(f"text_encoder has kind {kind!r}: expected transformers, tiny or embedded")


def load_media_encoder(name: str, image_size: int | None = None) -> tuple[Any, dict[str, Any]]:
    """Load the vision tower of a Transformers model and return it with its spec; raises ValueError.

    Args:
        name: Name or folder of the model.
        image_size: Pixels per side of the pictures to come; None: as the model was trained.
    """
    tower, missing, projection = towers.load_tower(name, "vision")
    if image_size:
        towers.resize_positions(tower, image_size)
    mean, std = pixel_statistics(load_image_processor(name))
    spec = towers.spec_of(tower, projection, image_mean=mean, image_std=std)
    encoder = _vision(tower, spec)
    towers.check_weights(name, tower, missing)
    towers.set_projection(encoder.tower, projection)
    return encoder, spec


def load_text_encoder(name: str) -> tuple[Any, dict[str, Any]]:
    """Load the text tower of a Transformers model and return it with its spec; raises ValueError."""
    tower, missing, projection = towers.load_tower(name, "text")
    pooling, (layers, weights) = towers.own_pooling(name, tower), towers.sentence_layers(name)
    spec = towers.spec_of(tower, projection, pooling=pooling)
    if layers:
        spec["projection"] = layers
    encoder = towers.TextTower(tower, pooling, spec.get("projection", 0))
    towers.check_weights(name, tower, missing)
    towers.set_projection(encoder, projection)
    if layers:
        encoder.projection.load_state_dict(weights)
    return encoder, spec


def _vision(tower: Any, spec: Mapping[str, Any]) -> FrameEncoder:
    mean, std = tuple(spec.get("image_mean", IMAGENET_MEAN)), tuple(spec.get("image_std", IMAGENET_STD))
    projection = spec.get("projection", 0)
    return FrameEncoder(towers.VisionTower(tower, projection), projection or towers.width(tower), mean, std)
