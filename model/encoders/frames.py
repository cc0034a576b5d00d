"""Frames of items → visual tokens, the same path for images and videos.

B items · F frames · M frames that are present · P tokens per frame · N visual tokens · D width
"""

import torch
from torch import Tensor, nn

from model.batch import Media

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

        Raises:
            ValueError: The media are not pixels.
        """
        if media.frames.dim() != 5:
            raise ValueError(
                f"media have shape {list(media.frames.shape)}: expected pixels [items, frames, 3, height, width]"
            )
        pixels = (media.frames[media.mask].to(self.mean.dtype) / 255 - self.mean) / self.std
        return arrange_tokens(self.tower(pixels), media.mask)


def arrange_tokens(frames_MPD: Tensor, mask_BF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give an item of one frame the P tokens of that frame, and an item of several the summary of each.

    Global pooling takes the summary of an image, and the mean over the frames of a video.

    Args:
        frames_MPD: Tokens of the present frames, item by item.
        mask_BF: bool, True where there is a frame.
    """
    tokens = frames_MPD.shape[1]
    if mask_BF.shape[1] == 1 and len(frames_MPD) == len(mask_BF):  # only images: nothing to rearrange
        image_N = torch.arange(tokens, device=mask_BF.device) == 0
        return frames_MPD, mask_BF.expand(-1, tokens), image_N.to(frames_MPD.dtype).expand(len(mask_BF), -1)
    counts_B = mask_BF.sum(1)
    first_B = counts_B.cumsum(0) - counts_B
    image_B = counts_B == 1
    lengths_B = torch.where(image_B, tokens, counts_B)
    place_N = torch.arange(int(lengths_B.max()), device=mask_BF.device)
    mask_BN = place_N < lengths_B[:, None]
    steps_B = torch.where(image_B, 1, tokens)  # through the tokens of all frames, laid out one after another
    index_BN = (first_B * tokens)[:, None] + place_N * steps_B[:, None]
    flat_LD = frames_MPD.flatten(0, 1)
    tokens_BND = flat_LD[index_BN.clamp(max=len(flat_LD) - 1)] * mask_BN[..., None]
    image_N = (place_N == 0).to(flat_LD.dtype)
    video_BN = mask_BN / counts_B[:, None].clamp(min=1)
    return tokens_BND, mask_BN, torch.where(image_B[:, None], image_N, video_BN.to(flat_LD.dtype))
