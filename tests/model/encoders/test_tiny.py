import torch

from model.batch import Media, Texts
from model.encoders import build_media_encoder, build_text_encoder
from model.encoders.tiny import Block
from tests.model.towers import MEDIA, VOCABULARY, text_spec


def texts(lengths=(8, 5), seed=0):
    tokens = torch.randint(3, VOCABULARY, (len(lengths), 8), generator=torch.Generator().manual_seed(seed))
    return Texts(tokens, torch.arange(8) < torch.tensor(lengths)[:, None])


def test_every_parameter_is_trained_by_the_summary_alone():
    """Otherwise a plain two-tower model would hold up the other processes."""
    frames = torch.randint(0, 255, (2, 1, 3, 32, 32), dtype=torch.uint8)
    media, text = build_media_encoder(MEDIA), build_text_encoder(text_spec(VOCABULARY))
    tokens_BND, _, pool_BN = media(Media(frames, torch.ones(2, 1, dtype=torch.bool)))
    _, pooled_BD = text(texts())
    pooled = ((tokens_BND * pool_BN[..., None]).sum(1), pooled_BD)
    sum((x * torch.randn_like(x)).sum() for x in pooled).backward()
    assert not [name for part in (media, text) for name, w in part.named_parameters() if w.grad is None]


def test_a_block_is_attention_and_feed_forward_each_with_its_residual():
    torch.manual_seed(0)
    block, x_BTD = Block(8, 2, 0.0), torch.randn(3, 5, 8)
    mask_BT = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]
    reference = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    reference.in_proj_weight.data, reference.in_proj_bias.data = block.inward.weight.data, block.inward.bias.data
    reference.out_proj.weight.data, reference.out_proj.bias.data = block.outward.weight.data, block.outward.bias.data
    normal = block.norm1(x_BTD)
    after = x_BTD + reference(normal, normal, normal, key_padding_mask=~mask_BT)[0]
    torch.testing.assert_close(block(x_BTD, mask_BT), after + block.feed_forward(block.norm2(after)))


def test_words_have_places_and_the_summary_is_their_mean():
    torch.manual_seed(0)
    encoder, given = build_text_encoder(text_spec(VOCABULARY)).eval(), texts()
    states_BTD, pooled_BD = encoder(given)
    torch.testing.assert_close(pooled_BD[1], states_BTD[1, :5].mean(0))
    turned = Texts(given.tokens.flip(1), given.mask)
    assert not torch.allclose(encoder(turned)[1][0], pooled_BD[0], atol=1e-4)


def test_no_text_at_all_is_finite_and_so_are_its_gradients():
    encoder = build_text_encoder(text_spec(VOCABULARY))
    states_BTD, pooled_BD = encoder(texts((8, 0)))
    (states_BTD.sum() + pooled_BD.square().sum()).backward()
    assert all(torch.isfinite(weights.grad).all() for weights in encoder.parameters())
