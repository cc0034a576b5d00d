"""Frames of items, as pixels or precomputed features → visual tokens, the same path for images and videos.

B items · F frames · M frames that are present · P tokens per frame · N visual tokens · D width · I width of features
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from model.batch import FrameLayout, Media, frame_layout
from model.encoders.embedded import Grid
from model.encoders.tiny import INIT_STD, Block
from model.slots import cross_attention_stack

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FrameEncoder(nn.Module):
    """A picture tower as a media encoder.

    Args:
        tower: [M,3,H,W] floats → [M,P,D], the summary of a frame at token 0.
        width: D.
        mean: Of the pixels, per channel.
        std: Of the pixels, per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, tower: nn.Module, width: int, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.tower, self.width = tower, width
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, media: Media) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B,N,D], their mask [B,N] bool, and their pooling weights [B,N]. Only present frames are encoded.

        Takes pixels, or in their place what `features` made of them.
        """
        layout = media.layout or frame_layout(media.mask)
        if media.frames.dim() == 4:
            features_MPD = _present(media.frames, layout).to(self.mean.dtype)
        else:
            features_MPD = self.features(media._replace(layout=layout))
        tokens_MPD = self.tower.project(features_MPD) if isinstance(self.tower, Grid) else features_MPD
        return arrange_tokens(tokens_MPD, media.mask, layout)

    def features(self, media: Media) -> Tensor:
        """What the tower, up to its trainable projection if it is frozen, makes of the present frames: [M,P,·]."""
        frames_M3HW = _present(media.frames, media.layout or frame_layout(media.mask))
        pixels_M3HW = (frames_M3HW.to(self.mean.dtype) / 255 - self.mean) / self.std
        encode = self.tower.features if isinstance(self.tower, Grid) else self.tower
        return encode(pixels_M3HW)

    @property
    def frozen(self) -> bool:
        """Whether `features` stay the same during training."""
        return isinstance(self.tower, Grid) or not any(weights.requires_grad for weights in self.tower.parameters())

    def feature_weights(self) -> Mapping[str, Tensor]:
        """The weights that `features` depend on."""
        return self.tower.weights() if isinstance(self.tower, Grid) else self.tower.state_dict()


def _present(frames_BF: Tensor, layout: FrameLayout) -> Tensor:
    """The frames that are present, [M,…], of [B,F,…]."""
    frames_M = frames_BF.flatten(0, 1)
    return frames_M if len(layout.places_M) == len(frames_M) else frames_M[layout.places_M]


def arrange_tokens(frames_MPD: Tensor, mask_BF: Tensor, layout: FrameLayout) -> tuple[Tensor, Tensor, Tensor]:
    """Give an item of one frame the P tokens of that frame, and an item of several the summary of each.

    Global pooling takes the summary of an image, and the mean over the frames of a video.

    Args:
        frames_MPD: Tokens of the present frames, item by item.
        mask_BF: bool, True where there is a frame.
        layout: Of the mask.
    """
    tokens = frames_MPD.shape[1]
    if mask_BF.shape[1] == 1 and len(frames_MPD) == len(mask_BF):  # only images: nothing to rearrange
        image_N = torch.arange(tokens, device=mask_BF.device) == 0
        return frames_MPD, mask_BF.expand(-1, tokens), image_N.to(frames_MPD.dtype).expand(len(mask_BF), -1)
    counts_B = mask_BF.sum(1)
    first_B = counts_B.cumsum(0) - counts_B
    image_B = counts_B == 1
    lengths_B = torch.where(image_B, tokens, counts_B)
    longest = max(layout.longest, tokens if layout.has_images else 0)
    place_N = torch.arange(longest, device=mask_BF.device)
    mask_BN = place_N < lengths_B[:, None]
    steps_B = torch.where(image_B, 1, tokens)  # through the tokens of all frames, laid out one after another
    index_BN = (first_B * tokens)[:, None] + place_N * steps_B[:, None]
    flat_LD = frames_MPD.flatten(0, 1)
    tokens_BND = flat_LD[index_BN.clamp(max=len(flat_LD) - 1)] * mask_BN[..., None]
    image_N = (place_N == 0).to(flat_LD.dtype)
    video_BN = mask_BN / counts_B[:, None].clamp(min=1)
    return tokens_BND, mask_BN, torch.where(image_B[:, None], image_N, video_BN.to(flat_LD.dtype))


class FeatureEncoder(nn.Module):
    """Projects precomputed features of frames or regions and reads them with a temporal transformer.

    Positions are learned. Every frame is a visual token; global pooling is their mean.

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
        self.width = width
        self.project = nn.Sequential(nn.LayerNorm(input_dim), nn.Linear(input_dim, width))
        self.positions = nn.Parameter(torch.randn(max_frames, width) * INIT_STD)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, media: Media) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B,N,D], their mask and pooling weights [B,N]."""
        mask_BF = media.mask
        frames_BFI = media.frames.to(self.positions.dtype).masked_fill(~mask_BF[..., None], 0)
        x_BFD = self.project(frames_BFI) + self.positions[: mask_BF.shape[1]]
        visible_BF = mask_BF | ~mask_BF.any(1, keepdim=True)  # an item without frames gets finite values
        for block in self.blocks:
            x_BFD = block(x_BFD, visible_BF)
        return self.norm(x_BFD) * mask_BF[..., None], mask_BF, mask_BF / mask_BF.sum(1, keepdim=True).clamp(min=1)


class AttentionReader(nn.Module):
    """Reads precomputed features of frames as the released code does: at their own width and without positions.

    The layers are those of the slots, with the frames as both queries and memory. What they return for a padded frame
    is not zero, because the released caption–vision loss counts padded frames.

    Args:
        input_dim: I and D, features per frame.
        layers: Layers.
        heads: Attention heads, a divisor of I.
        dropout: Probability, also of attention weights.
    """

    def __init__(self, input_dim: int, layers: int, heads: int, dropout: float = 0.1):
        super().__init__()
        self.width = input_dim
        dropouts = {"dropout": dropout, "attention_dropout": dropout}
        self.layers = cross_attention_stack(layers, input_dim, "copies", heads=heads, **dropouts)

    def forward(self, media: Media) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B,N,D], their mask and pooling weights [B,N]."""
        mask_BF = media.mask
        x_BFD = media.frames.to(next(self.parameters()).dtype).masked_fill(~mask_BF[..., None], 0)
        visible_BF = mask_BF | ~mask_BF.any(1, keepdim=True)  # an item without frames gets finite values
        for layer in self.layers:
            x_BFD = layer(x_BFD, x_BFD, visible_BF)
        return x_BFD, mask_BF, mask_BF / mask_BF.sum(1, keepdim=True).clamp(min=1)
