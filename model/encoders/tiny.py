"""Small encoders with random weights, a vision and a text transformer, for tests and synthetic pictures.

M pictures · P tokens per picture · B texts · T text tokens · D width
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from model.batch import Texts

INIT_STD = 0.02


class Block(nn.Module):
    """Pre-norm transformer layer with feed-forward width 4·D."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        if width % heads:
            raise ValueError(f"heads={heads}: expected a divisor of the width {width}")
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inward, self.outward = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Apply the layer; `mask_BT` is bool, True for visible tokens, at least one per row."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.inward(self.norm1(x_BTD)).chunk(3, -1)
        )
        mask = None if mask_BT is None else mask_BT[:, None, None]
        read_BHTd = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        x_BTD = x_BTD + self.drop(self.outward(read_BHTd.transpose(1, 2).flatten(2)))
        x_BTD = x_BTD + self.drop(self.feed_forward(self.norm2(x_BTD)))
        return x_BTD


class TinyVision(nn.Module):
    """Pictures [M,3,H,W] → tokens [M,P,D], CLS first; positions are learned for one picture size."""

    def __init__(self, image_size: int, patch_size: int, width: int, layers: int, heads: int, dropout: float = 0.0):
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image_size={image_size}: expected a multiple of the patch size of {patch_size} pixels")
        self.patches = nn.Conv2d(3, width, patch_size, patch_size)
        self.summary = nn.Parameter(torch.randn(width) * INIT_STD)
        self.positions = nn.Parameter(torch.randn((image_size // patch_size) ** 2 + 1, width) * INIT_STD)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels_M3HW: Tensor) -> Tensor:
        """Encode normalised pixels."""
        patches_MPD = self.patches(pixels_M3HW).flatten(2).transpose(1, 2)
        x_MPD = torch.cat([self.summary.expand(len(patches_MPD), 1, -1), patches_MPD], 1) + self.positions
        for block in self.blocks:
            x_MPD = block(x_MPD)
        return self.norm(x_MPD)


class TinyText(nn.Module):
    """Token ids → states; the summary is the mean of a text's states, which learns faster than a single token."""

    def __init__(self, vocab_size: int, max_tokens: int, width: int, layers: int, heads: int, dropout: float = 0.1):
        super().__init__()
        self.width = self.pooled_width = width
        self.words = nn.Embedding(vocab_size, width)
        nn.init.normal_(self.words.weight, std=INIT_STD)
        self.positions = nn.Parameter(torch.randn(max_tokens, width) * INIT_STD)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """States [B,T,D] and summaries [B,D]."""
        mask_BT = visible_tokens(texts)
        x_BTD = self.drop(self.words(texts.tokens) + self.positions[: mask_BT.shape[1]])
        for block in self.blocks:
            x_BTD = block(x_BTD, mask_BT)
        states_BTD = self.norm(x_BTD)
        return states_BTD, masked_mean(states_BTD, mask_BT)


def visible_tokens(texts: Texts) -> Tensor:
    """The mask [B,T] with the first token of absent texts visible, so that their states stay finite."""
    mask_BT = texts.mask.clone()
    mask_BT[:, 0] |= ~texts.mask.any(1)
    return mask_BT


def masked_mean(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean [B,D] of the states where the mask is True."""
    return (states_BTD * mask_BT[..., None]).sum(1) / mask_BT.sum(1, keepdim=True)
