import torch

from model.interaction import Interaction

WIDTH = 16


def make(seed=0, layers=2):
    torch.manual_seed(seed)
    return Interaction(WIDTH, layers, heads=4, dropout=0.0).double()


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_both_read_what_went_in():
    interaction = make()
    tokens_BND, slots_BKD = random(2, 6, WIDTH), random(2, 3, WIDTH, seed=1)
    mask_BN = torch.ones(2, 6, dtype=torch.bool)
    read_BND, read_BKD = interaction(tokens_BND, mask_BN, slots_BKD)
    first, second = interaction.tokens_read
    torch.testing.assert_close(read_BND, second(first(tokens_BND, slots_BKD), slots_BKD))
    first, second = interaction.slots_read
    torch.testing.assert_close(read_BKD, second(first(slots_BKD, tokens_BND), tokens_BND))


def test_slots_do_not_read_masked_tokens():
    interaction = make()
    tokens_BND, slots_BKD = random(2, 6, WIDTH), random(2, 3, WIDTH, seed=1)
    mask_BN = torch.tensor([[True] * 4 + [False] * 2] * 2)
    _, masked_BKD = interaction(tokens_BND, mask_BN, slots_BKD)
    _, short_BKD = interaction(tokens_BND[:, :4], mask_BN[:, :4], slots_BKD)
    torch.testing.assert_close(masked_BKD, short_BKD)


def test_every_parameter_takes_part():
    interaction = make()
    outputs = interaction(random(2, 6, WIDTH), torch.ones(2, 6, dtype=torch.bool), random(2, 3, WIDTH, seed=1))
    sum((x * random(*x.shape, seed=2)).sum() for x in outputs).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in interaction.parameters())


def test_attention_is_how_the_slots_last_layer_reads():
    interaction = make()
    tokens_BND, slots_BKD = random(2, 6, WIDTH), random(2, 3, WIDTH, seed=1)
    mask_BN = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    weights_BHKN = interaction.attention(tokens_BND, mask_BN, slots_BKD)
    assert weights_BHKN.shape == (2, 4, 3, 6) and (weights_BHKN[0, :, :, 4:] == 0).all()
    torch.testing.assert_close(weights_BHKN.sum(-1), torch.ones(2, 4, 3).double())
    first, last = interaction.slots_read
    torch.testing.assert_close(weights_BHKN, last.weights(first(slots_BKD, tokens_BND, mask_BN), tokens_BND, mask_BN))
