"""Frame or region features that were computed before, as visual tokens: projected, then read over time.

B items · F frames or regions · I width of the features · N tokens · D width
"""

import torch
from torch import Tensor, nn

from model.batch import Media
from model.encoders.tiny import INIT_STD, Block


class FeatureEncoder(nn.Module):
    """`input_dim` features a frame are projected to `width`; a temporal transformer with learned positions reads them.

    Every frame is a visual token; the item's summary is their mean.
    """

    def __init__(self, input_dim: int, width: int, layers: int, heads: int, max_frames: int, dropout: float = 0.1):
        super().__init__()
        self.input_dim, self.width = input_dim, width
        self.project = nn.Sequential(nn.LayerNorm(input_dim), nn.Linear(input_dim, width))
        self.positions = nn.Parameter(torch.randn(max_frames, width) * INIT_STD)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, media: Media) -> tuple[Tensor, Tensor, Tensor]:
        (frames, *wide), mask_BF = media.frames.shape[1:], media.mask
        most = len(self.positions)
        if frames > most:
            raise ValueError(f"features: got {frames} frames, wanted at most max_frames={most}")
        if wide != [self.input_dim]:
            raise ValueError(f"features: got {wide} values a frame, wanted input_dim={self.input_dim}")
        frames_BFI = media.frames.to(self.positions.dtype).masked_fill(~mask_BF[..., None], 0)
        x_BFD = self.project(frames_BFI) + self.positions[:frames]
        read_BF = mask_BF | ~mask_BF.any(1, keepdim=True)  # where there is no frame, something finite
        for block in self.blocks:
            x_BFD = block(x_BFD, read_BF)
        return self.norm(x_BFD) * mask_BF[..., None], mask_BF, mask_BF / mask_BF.sum(1, keepdim=True).clamp(min=1)
