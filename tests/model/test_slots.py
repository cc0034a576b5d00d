import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from model.slots import CrossAttentionLayer, SemanticSlots

WIDTH, TEXT_WIDTH = 16, 12


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_slots(seed=0, **options):
    torch.manual_seed(seed)
    return SemanticSlots(
        WIDTH, TEXT_WIDTH, **({"count": 3, "layers": 2, "heads": 4, "dropout": 0.0} | options)
    ).double()


def released(layer):
    """The layer as its formula says, with torch's own attention carrying the same weights, and a key bias."""
    attention = nn.MultiheadAttention(WIDTH, layer.heads, batch_first=True, dtype=torch.float64)
    projections = (layer.query, layer.key, layer.value)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([part.weight for part in projections]))
        attention.in_proj_bias.copy_(torch.cat([layer.query.bias, random(WIDTH), layer.value.bias]))
        attention.out_proj.load_state_dict(layer.out.state_dict())
    first, _, _, second, _ = layer.feed_forward

    def forward(x_BQD, m_BMD, mask_BM):
        read_BQD, _ = attention(x_BQD, m_BMD, m_BMD, key_padding_mask=None if mask_BM is None else ~mask_BM)
        return layer.norm(x_BQD + second(nn.functional.gelu(first(read_BQD))))

    return forward


@pytest.mark.parametrize(("queries", "keys"), [(3, 7), (7, 3), (4, 4), (1, 1)])
@pytest.mark.parametrize("masked", [True, False])
def test_layer_is_the_released_one_whichever_side_is_short(queries, keys, masked):
    torch.manual_seed(1)
    layer = CrossAttentionLayer(WIDTH, heads=4, dropout=0.0).double()
    x_BQD, m_BMD = random(5, queries, WIDTH).requires_grad_(), random(5, keys, WIDTH, seed=1).requires_grad_()
    mask_BM = (random(5, keys, seed=2) > 0) | (torch.arange(keys) == 0) if masked else None
    ours, theirs = layer(x_BQD, m_BMD, mask_BM), released(layer)(x_BQD, m_BMD, mask_BM)
    torch.testing.assert_close(ours, theirs)
    direction = random(*ours.shape, seed=3)
    for got, expected in zip(
        torch.autograd.grad((ours * direction).sum(), (x_BQD, m_BMD)),
        torch.autograd.grad((theirs * direction).sum(), (x_BQD, m_BMD)),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 10**6))
def test_padding_and_what_lies_in_it_change_nothing(tokens, padding, seed):
    slots = make_slots()
    states_BTC, garbage_BTC = random(2, tokens, TEXT_WIDTH, seed=seed), 9 * random(2, padding, TEXT_WIDTH, seed=seed)
    mask_BT = torch.ones(2, tokens, dtype=torch.bool)
    padded_BKD = slots(torch.cat([states_BTC, garbage_BTC], 1), torch.cat([mask_BT, mask_BT.new_zeros(2, padding)], 1))
    torch.testing.assert_close(slots(states_BTC, mask_BT), padded_BKD)
    torch.testing.assert_close(slots(states_BTC[1:], mask_BT[1:]), padded_BKD[1:])  # nor do its neighbours


def test_null_token_stands_in_exactly_where_there_is_no_description():
    slots = make_slots()
    states_BTC, mask_BT = random(2, 4, TEXT_WIDTH), torch.tensor([[True, False, True, False], [False] * 4])
    before_BKD = slots(states_BTC, mask_BT)
    torch.testing.assert_close(before_BKD[1:], slots(states_BTC[:1, :0], mask_BT[:1, :0]))  # no token at all
    with torch.no_grad():
        slots.null_D += 1
    after_BKD = slots(states_BTC, mask_BT)
    assert torch.equal(before_BKD[0], after_BKD[0]) and not torch.allclose(before_BKD[1], after_BKD[1])


def test_a_released_stack_starts_as_copies_of_one_layer():
    for kind, alike in (("copies", True), ("independent", False)):
        first, second = make_slots(stack_init=kind).layers
        pairs = zip(first.parameters(), second.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == alike
        assert first.query.weight is not second.query.weight


@pytest.mark.parametrize("queries", [2, 9])  # fewer and more than what they read
def test_attention_weights_are_dropped_in_training_alone(queries):
    layer = CrossAttentionLayer(WIDTH, heads=4, dropout=0.0, attention_dropout=0.5).double()
    x_BQD, m_BMD = random(3, queries, WIDTH), random(3, 5, WIDTH, seed=1)
    assert not torch.equal(layer(x_BQD, m_BMD), layer(x_BQD, m_BMD))
    torch.testing.assert_close(layer.eval()(x_BQD, m_BMD), layer(x_BQD, m_BMD))
    layer.train().attention_dropout = 0.0
    torch.testing.assert_close(layer(x_BQD, m_BMD), layer.eval()(x_BQD, m_BMD))


@pytest.mark.parametrize(("queries", "keys"), [(3, 7), (7, 3)])
def test_values_by_their_weights_are_what_the_layer_reads(queries, keys):
    torch.manual_seed(1)
    layer = CrossAttentionLayer(WIDTH, heads=4, dropout=0.0).double()
    x_BQD, m_BMD = random(5, queries, WIDTH), random(5, keys, WIDTH, seed=1)
    mask_BM = (random(5, keys, seed=2) > 0) | (torch.arange(keys) == 0)
    weights_BHQM = layer.weights(x_BQD, m_BMD, mask_BM)
    assert weights_BHQM.shape == (5, 4, queries, keys)
    torch.testing.assert_close(weights_BHQM.sum(-1), torch.ones(5, 4, queries).double())
    assert (weights_BHQM * ~mask_BM[:, None, None] == 0).all()
    values_BHMd = layer.value(m_BMD).unflatten(-1, (4, -1)).transpose(1, 2)
    read_BQD = layer.out((weights_BHQM @ values_BHMd).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer.norm(x_BQD + layer.feed_forward(read_BQD)), layer(x_BQD, m_BMD, mask_BM))
