"""Slots that are the views themselves: what an untrained model is, and what training can add."""

import pytest
import torch
from torch.nn.functional import normalize

from model.batch import Texts
from model.modeling import LeccrModel
from tests.model.towers import VIEWS, batch, ids_batch, saved, tiny_model, whole


def two_views(samples):
    """The second item without its second view."""
    first, second = samples.descriptions, samples.source
    tokens = torch.cat([first.tokens, second.tokens[:, None]], 1)
    mask = torch.cat([first.mask, second.mask[:, None]], 1)
    mask[1, 1] = False
    return samples._replace(descriptions=Texts(tokens, mask))


@pytest.fixture(scope="module", params=["clip", "siglip"])
def dual(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    pretrained = saved(lambda: whole(request.param), folder)
    return pretrained, LeccrModel.create(str(folder), str(folder), **VIEWS).eval(), two_views(ids_batch())


def test_untrained_it_is_the_dual_encoder_and_with_descriptions_late_fusion(dual):
    pretrained, model, samples = dual
    encoder = model.media_encoder
    pixels = (samples.media.frames[:, 0] / 255 - encoder.mean) / encoder.std
    with torch.no_grad():
        picture_BE = normalize(
            pretrained.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True).pooler_output
        )
        text_BE = normalize(
            pretrained.get_text_features(
                input_ids=samples.source.tokens,
                **({} if model.text_encoder.unmasked else {"attention_mask": samples.source.mask.long()}),
            ).pooler_output
        )
        media_BE, views_BVE = model.encode_media(samples.media, samples.descriptions, fused=False)
        view_BE = model.encode_text(Texts(*(x[:, 0] for x in samples.descriptions)))
    torch.testing.assert_close(media_BE, picture_BE)
    torch.testing.assert_close(model.encode_text(samples.source), text_BE)
    torch.testing.assert_close(views_BVE[:, 0], view_BE)


@pytest.mark.parametrize("pooling", ["mean", "max", "logsumexp"])
def test_an_item_without_views_has_its_pictures_vector_and_an_absent_view_does_not_count(pooling):
    model, samples = tiny_model(**VIEWS, read_start=1.0, local_pooling=pooling).eval(), batch()
    with torch.no_grad():
        views_BVE = model.encode_media(samples.media, samples.descriptions, fused=False)[1]
        media_BE, slots_BKE = model.encode_media(samples.media, samples.descriptions)
        bare_BE, own_BKE = model.encode_media(
            samples.media, samples.descriptions._replace(mask=samples.descriptions.mask & False)
        )
    assert not torch.allclose(media_BE[:2], bare_BE[:2])
    torch.testing.assert_close(media_BE[2], bare_BE[2])
    assert not views_BVE[1, 1].any() and not views_BVE[2].any()
    for slot in range(slots_BKE.shape[1]):
        torch.testing.assert_close(own_BKE[:, slot], bare_BE)
        torch.testing.assert_close(slots_BKE[1, slot], views_BVE[1, 0])
        torch.testing.assert_close(slots_BKE[2, slot], bare_BE[2])


def test_with_every_view_dropped_training_sees_two_towers():
    model, samples = tiny_model(**VIEWS, read_start=1.0, view_dropout=1.0, dropout=0.0).train(), batch()
    towers = tiny_model(**VIEWS | {"slots": "none"})
    towers.load_state_dict({name: x for name, x in model.state_dict().items() if name in towers.state_dict()})
    for each in (model, towers):
        for module in each.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    torch.testing.assert_close(model(samples).media_BE, towers(samples).media_BE)


def test_training_learns_to_trust_a_view_and_to_doubt_one_that_contradicts_the_picture():
    reader = tiny_model(**VIEWS, read_start=1.0).eval().reader
    own_BE = normalize(torch.randn(2, 16), dim=-1)
    views_BVE = torch.stack([own_BE, -own_BE], 1)
    present_BV = torch.ones(2, 2, dtype=torch.bool)
    torch.testing.assert_close(reader(own_BE, views_BVE, present_BV)[1], torch.zeros(2, 16))
    with torch.no_grad():
        reader.agreement.fill_(1.0)
    torch.testing.assert_close(reader(own_BE, views_BVE, present_BV)[1], own_BE)
    with torch.no_grad():
        reader.agreement.zero_()
        reader.trust_V.copy_(torch.tensor([-2.0, 2.0]))
    torch.testing.assert_close(reader(own_BE, views_BVE, present_BV)[1], -own_BE)


def test_an_absent_view_takes_no_trust_from_the_others():
    reader = tiny_model(**VIEWS, read_start=1.0).eval().reader
    own_BE, view_BE = (normalize(torch.randn(2, 16), dim=-1) for _ in range(2))
    views_BVE, present_BV = torch.stack([view_BE, 0 * view_BE], 1), torch.tensor([[True, False]] * 2)
    torch.testing.assert_close(reader(own_BE, views_BVE, present_BV)[1], view_BE)


def test_stored_summaries_stand_for_descriptions():
    model, samples = tiny_model(**VIEWS, read_start=1.0).eval(), batch()
    states = model.describe_states(samples.descriptions)
    assert states.tokens.shape == (3, 2, 32) and states.mask.tolist() == [[True, True], [True, False], [False, False]]
    for left, right in zip(model(samples), model(samples._replace(descriptions=states)), strict=True):
        torch.testing.assert_close(left, right)


def test_stored_summaries_are_joined_under_autocast():
    model, samples = tiny_model(**VIEWS).eval(), batch()
    stored = [
        texts._replace(tokens=model.summarize(texts)[:, None].detach().half(), mask=texts.mask[:, :1])
        for texts in (samples.source, samples.target)
    ]
    with torch.autocast("cpu", torch.bfloat16):
        features = model(samples._replace(source=stored[0], target=stored[1]))
    torch.testing.assert_close(features.source_BE, model(samples).source_BE, atol=0.02, rtol=0)


def test_views_are_weighed_by_name_and_pooled_as_configured():
    samples = batch()
    model = tiny_model(**VIEWS, view_weights={"objects": 3.0}).eval()
    views_VE = model.encode_media(samples.media, samples.descriptions, fused=False)[1][0]
    torch.testing.assert_close(
        model.encode_media(samples.media, samples.descriptions)[1][0, 0], (views_VE[0] + 3 * views_VE[1]) / 4
    )
    model.config.local_pooling = "max"
    slots_VE = model.encode_media(samples.media, samples.descriptions)[1][0]
    torch.testing.assert_close(slots_VE, torch.stack([views_VE[0] / 3, views_VE[1]]))
