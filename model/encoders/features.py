"""Precomputed frame or region features as visual tokens: projected, then read over time.

B items · F frames or regions · I width of the features · N tokens · D width
"""

import torch
from torch import Tensor, nn

from model.batch import Media
from model.encoders.tiny import INIT_STD, Block


class FeatureEncoder(nn.Module):
    """Projects features and reads them with a temporal transformer that has learned positions.

    Every frame is a visual token; global pooling is their mean.

    Args:
        input_dim: I, features per frame.
        width: D.
        layers: Transformer layers.
        heads: Attention heads, a divisor of D.
        max_frames: Largest number of frames.
        dropout: Probability.
    """

    def __init__(self, input_dim: int, width: int, layers: int, heads: int, max_frames: int, dropout: float = 0.1):
        super().__init__()
        self.input_dim, self.width = input_dim, width
        self.project = nn.Sequential(nn.LayerNorm(input_dim), nn.Linear(input_dim, width))
        self.positions = nn.Parameter(torch.randn(max_frames, width) * INIT_STD)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, media: Media) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B,N,D], their mask and pooling weights [B,N]; raises ValueError for features of another shape."""
        (frames, *values), mask_BF = media.frames.shape[1:], media.mask
        if frames > len(self.positions):
            raise ValueError(f"an item has {frames} frames of features, more than max_frames={len(self.positions)}")
        if values != [self.input_dim]:
            raise ValueError(f"features have shape {values} per frame: expected input_dim={self.input_dim}")
        frames_BFI = media.frames.to(self.positions.dtype).masked_fill(~mask_BF[..., None], 0)
        x_BFD = self.project(frames_BFI) + self.positions[:frames]
        visible_BF = mask_BF | ~mask_BF.any(1, keepdim=True)  # an item without frames gets finite values
        for block in self.blocks:
            x_BFD = block(x_BFD, visible_BF)
        return self.norm(x_BFD) * mask_BF[..., None], mask_BF, mask_BF / mask_BF.sum(1, keepdim=True).clamp(min=1)
