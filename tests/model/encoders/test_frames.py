import hypothesis.strategies as st
import torch
from hypothesis import given
from torch import nn

from model.batch import Media
from model.encoders.frames import FrameEncoder

TOKENS, WIDTH = 3, 2


class Pictures(nn.Module):
    """A tower that remembers what it was shown; its tokens tell the picture's brightness and their own number."""

    def forward(self, pixels_M3HW):
        self.seen = pixels_M3HW
        brightness_M = pixels_M3HW.mean((1, 2, 3))
        numbers_P = torch.arange(TOKENS, dtype=pixels_M3HW.dtype)
        return torch.stack([brightness_M[:, None].expand(-1, TOKENS), numbers_P.expand(len(brightness_M), -1)], -1)


def media_of(masks, garbage=255):
    """Picture f of item b is of the grey 10·b + f + 1; where the mask has none, of `garbage`."""
    mask_BF = torch.tensor(masks)
    grey_BF = 10 * torch.arange(len(masks))[:, None] + torch.arange(mask_BF.shape[1]) + 1
    grey_BF = grey_BF.where(mask_BF, garbage).to(torch.uint8)
    return Media(grey_BF[..., None, None, None].expand(-1, -1, 3, 4, 4), mask_BF)


def encoder(mean=(0.0,) * 3, std=(1 / 255,) * 3):
    return FrameEncoder(Pictures(), WIDTH, mean, std)


def expected(masks):
    """By loops: rows of (grey, number of the token), and pooling weights."""
    rows, pools = [], []
    for item, mask in enumerate(masks):
        greys = [10.0 * item + frame + 1 for frame, there in enumerate(mask) if there]
        if len(greys) == 1:
            rows.append([[greys[0], float(number)] for number in range(TOKENS)])
            pools.append([1.0] + [0.0] * (TOKENS - 1))
        else:
            rows.append([[grey, 0.0] for grey in greys])
            pools.append([1 / max(len(greys), 1)] * len(greys))
    longest = max(map(len, rows))
    tokens = [row + [[0.0, 0.0]] * (longest - len(row)) for row in rows]
    return (
        torch.tensor(tokens),
        torch.tensor([[place < len(row) for place in range(longest)] for row in rows]),
        torch.tensor([pool + [0.0] * (longest - len(pool)) for pool in pools]),
    )


@st.composite
def frame_masks(draw):
    """Frames that are there, holes among them; a batch has at least one, an item perhaps none."""
    frames = draw(st.integers(1, 5))
    masks = draw(st.lists(st.lists(st.booleans(), min_size=frames, max_size=frames), min_size=1, max_size=5))
    return masks if any(map(any, masks)) else [[True] * frames]


@given(frame_masks(), st.integers(0, 255))
def test_tokens_mask_and_pooling_as_by_loops(masks, garbage):
    model, media = encoder(), media_of(masks, garbage)
    tokens_BND, mask_BN, pool_BN = model(media)
    wanted_BND, wanted_BN, weights_BN = expected(masks)
    assert torch.equal(mask_BN, wanted_BN) and mask_BN.dtype == torch.bool
    torch.testing.assert_close(tokens_BND, wanted_BND, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(pool_BN, weights_BN)
    assert len(model.tower.seen) == sum(map(sum, masks))  # a frame that is not there costs nothing
