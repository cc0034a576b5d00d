"""How a pretrained vision tower takes pictures: the geometry and the values of its own image processor."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor

TOLERANCE = 1e-3  # of normalised pixels


def load_image_processor(name: str, **hub: Any) -> Any:
    """Load the image processor of a Transformers model; raises ValueError if it has none, or one of another kind."""
    try:
        processor: Any = AutoImageProcessor.from_pretrained(name, use_fast=False, trust_remote_code=False, **hub)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(
            f"{name} has no preprocessor_config.json, or one that cannot be read, so the size, mean and deviation of "
            "its pictures are not known. Copy the file from the model that the weights were trained from"
        ) from error
    if not is_flexible(processor):
        _check(name, processor)
    return processor


def is_flexible(processor: Any) -> bool:
    """Whether it keeps the shape of pictures, as that of SigLIP 2 NaFlex does."""
    return hasattr(processor, "max_num_patches")


def resized(processor: Any, picture: Image.Image) -> Tensor:
    """A picture [3,H,W] uint8 as the processor resizes and crops it, before it scales and normalises the values."""
    plain = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
    pixels: np.ndarray = processor(images=[picture], **plain)["pixel_values"][0]
    return torch.from_numpy(np.ascontiguousarray(pixels.round(), np.uint8))


def pixel_statistics(processor: Any) -> tuple[list[float], list[float]]:
    """Mean and deviation, per channel, that normalise values from 0 to 1 as the processor does those from 0 to 255."""
    scale = 255 * processor.rescale_factor if processor.do_rescale else 255.0
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    scale = 1.0 if abs(scale - 1) < 1e-9 else scale  # so that the usual values stay as they are
    return [value / scale for value in mean], [value / scale for value in std]


def _check(name: str, processor: Any) -> None:
    """Raise ValueError unless pictures of any shape become one square, with values that `pixel_statistics` explains."""
    ramp = np.linspace(0, 255, 90 * 60 * 3).astype(np.uint8)
    for shape in ((90, 60, 3), (60, 90, 3)):
        picture = Image.fromarray(ramp.reshape(shape))
        pixels = resized(processor, picture)
        if pixels.shape[1] != pixels.shape[2]:
            raise ValueError(
                f"the image processor of {name} makes {pixels.shape[2]} × {pixels.shape[1]} pixels of a picture of "
                f"{shape[1]} × {shape[0]}, expected a square of one size: set do_center_crop, or both sides of size, "
                "in its preprocessor_config.json"
            )
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in pixel_statistics(processor))
        own = processor(images=[picture], return_tensors="pt")["pixel_values"][0]
        if ((pixels / 255 - mean) / std - own).abs().max() > TOLERANCE:
            kind = type(processor).__name__
            raise ValueError(f"{name}: its {kind} does more than resize, crop and normalise. Choose another model")
