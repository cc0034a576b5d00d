import torch

from model.interaction import Interaction

WIDTH = 16


def make(seed=0, layers=2):
    torch.manual_seed(seed)
    return Interaction(WIDTH, layers, heads=4, dropout=0.0).double()


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_attention_is_how_the_slots_last_layer_reads():
    interaction = make()
    tokens_BND, slots_BKD = random(2, 6, WIDTH), random(2, 3, WIDTH, seed=1)
    mask_BN = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    weights_BHKN = interaction.attention(tokens_BND, mask_BN, slots_BKD)
    assert weights_BHKN.shape == (2, 4, 3, 6) and (weights_BHKN[0, :, :, 4:] == 0).all()
    torch.testing.assert_close(weights_BHKN.sum(-1), torch.ones(2, 4, 3).double())
    first, last = interaction.slots_read
    torch.testing.assert_close(weights_BHKN, last.weights(first(slots_BKD, tokens_BND, mask_BN), tokens_BND, mask_BN))
