import pytest
import torch

from model.batch import Media
from model.encoders import build_media_encoder

SPEC = {"kind": "features", "input_dim": 20, "width": 16, "layers": 2, "heads": 2, "max_frames": 8}


def encoder():
    torch.manual_seed(0)
    return build_media_encoder(SPEC).eval()


def media(counts, seed=0):
    frames = torch.randn(len(counts), max(counts), 20, generator=torch.Generator().manual_seed(seed))
    return Media(frames, torch.arange(max(counts)) < torch.tensor(counts)[:, None])


@pytest.mark.parametrize("garbage", [1e30, float("nan"), float("inf")])
def test_what_is_not_there_changes_nothing_not_even_as_nan(garbage):
    model, clean = encoder(), media([4, 2, 0])
    dirty = Media(clean.frames.where(clean.mask[..., None], torch.tensor(garbage)), clean.mask)
    outputs = []
    for given in (clean, dirty):
        tokens_BND, mask_BN, pool_BN = model(given)
        model.zero_grad()
        (tokens_BND * pool_BN[..., None]).sum().backward()
        outputs.append([tokens_BND, pool_BN, *(weights.grad for weights in model.parameters())])
        assert not tokens_BND[~mask_BN].any()
    assert all(torch.isfinite(value).all() for value in outputs[0])
    torch.testing.assert_close(*outputs, rtol=0, atol=0)


def test_frames_are_read_in_their_order_and_together():
    model, given = encoder(), media([4])
    tokens_BND = model(given)[0]
    backwards_BND = model(Media(given.frames.flip(1), given.mask))[0]
    assert not torch.allclose(backwards_BND.flip(1), tokens_BND, atol=1e-3)
    changed = given.frames.clone()
    changed[0, 3] = changed[0, 3].flip(0)
    assert (model(Media(changed, given.mask))[0][0, 0] - tokens_BND[0, 0]).abs().max() > 1e-3
