import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoModel, AutoProcessor

from model.batch import Texts
from model.config import LeccrConfig
from model.modeling import LeccrModel
from model.processing import LeccrProcessor
from tests.model.towers import (
    RELEASED,
    VIEWS,
    batch,
    ids_batch,
    processor,
    saved,
    text_towers,
    tiny_model,
    vision_towers,
)
from tests.stages.duals import write_dual


def write_towers(folder, family):
    """A vision tower of that family and an XLM-R; their names for LeccrModel.create."""
    saved(vision_towers()[family], folder / "vision")
    saved(text_towers()["xlm_roberta"], folder / "text")
    return str(folder / "vision"), str(folder / "text")


def close(got, expected):
    for left, right in zip(got, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_features_have_their_shapes_and_lengths():
    features = tiny_model()(batch())
    shapes = {name: tuple(value.shape) for name, value in features._asdict().items()}
    assert shapes == {
        "media_BE": (3, 16), "slots_BKE": (3, 3, 16), "slot_mean_BD": (3, 32), "token_mean_BD": (3, 32),
        "slot_cosines_BKK": (3, 3, 3), "source_BE": (3, 16), "target_BE": (3, 16), "own_BE": (3, 0),
    }  # fmt: skip
    for unit in (features.media_BE, features.slots_BKE, features.source_BE, features.target_BE):
        torch.testing.assert_close(unit.norm(dim=-1), torch.ones(unit.shape[:-1]))
    assert features.slot_mean_BD.norm(dim=-1).max() <= 1.0001


@pytest.mark.parametrize("kind", [{"description_encoder": "frozen"}, {"description_encoder": "shared"}, VIEWS])
def test_every_trained_weight_takes_part_whatever_the_batch_lacks(kind):
    whole = batch()
    bare = whole._replace(
        target=Texts(whole.target.tokens, torch.zeros_like(whole.target.mask)),
        descriptions=Texts(whole.descriptions.tokens, torch.zeros_like(whole.descriptions.mask)),
    )
    for samples in (whole, bare):
        model = tiny_model(**kind)
        sum((x * torch.randn_like(x)).sum() for x in (*model(samples), model.logit_scales)).backward()
        assert not [name for name, x in model.named_parameters() if x.requires_grad and x.grad is None]
        assert all(torch.isfinite(x.grad).all() for x in model.parameters() if x.requires_grad)


def test_forward_agrees_with_the_encoders_that_search_uses():
    model, samples = tiny_model().eval(), batch()
    features = model(samples)
    close(model.encode_media(samples.media, samples.descriptions), (features.media_BE, features.slots_BKE))
    close([model.encode_text(samples.source)], [features.source_BE])


def test_states_of_a_frozen_encoder_stand_in_for_its_descriptions():
    model, samples = tiny_model().train(), batch()
    assert not model.description_encoder.training
    assert not any(weights.requires_grad for weights in model.description_encoder.parameters())
    states = model.describe_states(samples.descriptions)
    assert states.tokens.shape == (3, 2 * samples.descriptions.tokens.shape[2], 32) and not states.tokens.requires_grad
    with torch.no_grad():  # training the tower does not touch them
        for weights in model.text_encoder.parameters():
            weights.add_(1.0)
    torch.testing.assert_close(model.describe_states(samples.descriptions).tokens, states.tokens)
    model.eval()
    close(model(samples._replace(descriptions=states)), model(samples))


def test_frozen_towers_have_no_gradient_and_no_dropout(tmp_path):
    name = str(write_dual(tmp_path, "clip"))
    sizes = {"slots": "queries", "heads": "random", "num_heads": 2, "num_slots": 2}
    model = LeccrModel.create(name, name, freeze=("media", "text"), **sizes).train()
    assert not any(part.training for tower in (model.media_encoder, model.text_encoder) for part in tower.modules())
    trained = {name for name, weights in model.named_parameters() if weights.requires_grad}
    assert trained == model.new_parameters() and not any("_encoder." in name for name in trained)
    assert model.description_encoder is None and model.describes_frozen and model.slots.training
    model.save_pretrained(tmp_path / "saved")
    restored = LeccrModel.from_pretrained(str(tmp_path / "saved"))
    assert restored.config.freeze == ("media", "text")
    assert {name for name, weights in restored.named_parameters() if weights.requires_grad} == trained
    with pytest.raises(ValueError, match="freeze=media: only a pretrained tower"):
        tiny_model(freeze=("media",))


@pytest.mark.parametrize("kind", ["shared", "trained"])
def test_a_shared_description_encoder_is_the_text_tower_with_its_dropout(kind):
    """As released it gets no gradient from the descriptions."""
    model, samples = tiny_model(description_encoder=kind, dropout=0.0).train(), batch()
    first, second = model(samples).slots_BKE, model(samples).slots_BKE
    assert model.description_encoder is None and not torch.equal(first, second)
    second.sum().backward()
    assert (model.text_encoder.words.weight.grad is not None) == (kind == "trained")
    assert model.slots.queries_KD.grad.abs().sum() > 0
    frozen = tiny_model(dropout=0.0).train()
    assert torch.equal(frozen(samples).slots_BKE, frozen(samples).slots_BKE)
    with pytest.raises(ValueError, match="description_encoder=frozen"):
        model.describe_states(samples.descriptions)
    with pytest.raises(ValueError, match="needs token ids"):
        model(samples._replace(descriptions=frozen.describe_states(samples.descriptions)))


def test_without_slots_it_is_a_plain_two_tower_model():
    model, samples = tiny_model(slots="none").eval(), batch()
    features = model(samples)
    assert features.slots_BKE.shape == (3, 0, 16) and features.slot_cosines_BKK.shape == (3, 0, 0)
    tokens_BND, _, pool_BN = model.media_encoder(samples.media)
    pooled_BD = (pool_BN[..., None] * tokens_BND).sum(1)
    torch.testing.assert_close(features.media_BE, normalize(model.media_head(pooled_BD), dim=-1))
    assert model.description_encoder is None and not hasattr(model, "slots")


def test_what_is_compared_stays_in_single_precision():
    with torch.autocast("cpu", torch.bfloat16):
        features = tiny_model()(batch())
    assert all(value.dtype == torch.float32 for value in features)


@pytest.mark.parametrize(("model_class", "processor_class"), [(LeccrModel, LeccrProcessor), (AutoModel, AutoProcessor)])
def test_saved_and_loaded_it_is_the_same_also_where_transformers_finds_the_class(
    tmp_path, model_class, processor_class
):
    model, of = tiny_model(vocabulary=processor().vocabulary).eval(), processor()
    model.save_pretrained(tmp_path)
    of.save_pretrained(tmp_path)
    loaded, read = (each.from_pretrained(str(tmp_path)) for each in (model_class, processor_class))
    close(loaded(batch()), model(batch()))
    assert isinstance(loaded, LeccrModel) and not loaded.training and read.policy == of.policy
    for config in (loaded.config, AutoConfig.from_pretrained(tmp_path)):
        assert config.to_diff_dict() == model.config.to_diff_dict()
    texts = ["ein roter Hund"]
    assert torch.equal(loaded.encode_text(read.texts(texts)), model.encode_text(of.texts(texts)))


def test_weights_of_other_sizes_are_refused_by_name(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    LeccrConfig(**{**LeccrConfig.from_pretrained(tmp_path).to_diff_dict(), "embed_dim": 8}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"size mismatch for .*_head"):
        LeccrModel.from_pretrained(str(tmp_path))
    with pytest.raises(OSError, match=r"nothing|not"):
        LeccrModel.from_pretrained(str(tmp_path / "nothing"))


def test_pretrained_towers_keep_their_weights_and_are_not_new(tmp_path):
    vision, text = write_towers(tmp_path, "clip")
    model = LeccrModel.create(vision, text, embed_dim=8, num_heads=4, **RELEASED)
    expected = AutoModel.from_pretrained(text).state_dict()
    for tower in (model.text_encoder, model.description_encoder):
        weights = tower.tower.state_dict()
        assert weights and all(torch.equal(weights[name], expected[name]) for name in weights)
    assert {name.split(".")[0] for name in model.new_parameters()} == {
        "text_head", "media_head", "slots", "interaction", "slot_head", "slot_caption_head", "token_vision_head",
        "log_scale",
    }  # fmt: skip
    model.save_pretrained(tmp_path / "model")
    loaded = LeccrModel.from_pretrained(str(tmp_path / "model"))
    close(loaded(ids_batch()), model.eval()(ids_batch()))
    assert "media_encoder.tower.patches.weight" in tiny_model().new_parameters()


def test_lora_trains_only_its_factors_and_is_merged_where_it_is_saved(tmp_path):
    names = write_towers(tmp_path, "siglip")
    model, whole = (LeccrModel.create(*names, embed_dim=32, lora=rank) for rank in (4, 0))
    of_towers = [name for name, it in model.named_parameters() if it.requires_grad and ".tower." in name]
    assert of_towers and all(".lora_" in name for name in of_towers) and set(of_towers) <= model.new_parameters()
    model.activation_checkpointing_enable()
    sum(field.float().pow(2).sum() for field in model.train()(ids_batch(size=32))).backward()
    assert all(model.get_parameter(name).grad is not None for name in of_towers)
    texts = ids_batch(size=32).source
    torch.testing.assert_close(model.eval().encode_text(texts), whole.eval().encode_text(texts))
    with torch.no_grad():
        for name in of_towers:
            model.get_parameter(name).normal_(std=0.3)
    model.save_pretrained(tmp_path / "best")
    model.save_pretrained(tmp_path / "checkpoint", merged=False)
    best, checkpoint = (LeccrModel.from_pretrained(str(tmp_path / name)) for name in ("best", "checkpoint"))
    assert best.state_dict().keys() == whole.state_dict().keys() and best.config.lora == 0
    assert (best.encode_text(texts) - whole.encode_text(texts)).abs().max() > 0.01
    torch.testing.assert_close(best.encode_text(texts), model.encode_text(texts))
    assert torch.equal(checkpoint.encode_text(texts), model.encode_text(texts))
    best.add_lora(2)
    assert best.config.lora == 2


@pytest.mark.parametrize("slots", ["queries", "views"])
def test_a_step_of_the_optimiser_changes_what_is_learned_of_the_temperature(slots):
    """AdamW moves each parameter by its learning rate at first: τ, or its logarithm and so τ by a share of it."""
    moved = {}
    for kind in ("log", "tau"):
        model = tiny_model(slots=slots, learned_temperature=kind, init_temperature=0.07).eval()
        torch.testing.assert_close(model.logit_scales, torch.full((2,), 1 / 0.07))
        optimizer = torch.optim.AdamW(model.temperature_parameters, lr=1e-3, weight_decay=0.0)
        (model.logit_scales * torch.tensor([1.0, 2.0])).sum().backward()
        optimizer.step()
        moved[kind] = (1 / model.logit_scales - 0.07).tolist()
        with torch.no_grad():
            for parameter in model.temperature_parameters:
                parameter.fill_(9.0 if kind == "log" else -1.0)
        model.limit_temperatures()
        torch.testing.assert_close(model.logit_scales, torch.full((2,), 100.0))
    assert moved == {"log": pytest.approx([0.07e-3] * 2, rel=1e-2), "tau": pytest.approx([1e-3] * 2, rel=1e-3)}


def test_attention_is_of_what_there_is_and_its_slots_are_those_of_the_encoder():
    model, samples = tiny_model().eval(), batch()
    before = model(samples)
    found = slots_BKE, words_BHKT, media_BHKN = model.attention(samples.media, samples.descriptions)
    mask_BT, mask_BN = samples.descriptions.mask.flatten(1), model.media_encoder(samples.media)[1]
    assert words_BHKT.shape == (3, 4, 3, mask_BT.shape[1]) and media_BHKN.shape[:3] == (3, 4, 3)
    assert torch.equal(slots_BKE, before.slots_BKE)
    words, media = words_BHKT.sum(-1), media_BHKN.sum(-1)
    torch.testing.assert_close(media, torch.ones_like(media))
    torch.testing.assert_close(words[:2], torch.ones_like(words[:2]))
    assert (words[2] == 0).all()  # it has no description
    assert (words_BHKT * ~mask_BT[:, None, None] == 0).all()
    assert (media_BHKN * ~mask_BN[:, None, None] == 0).all()
    close(model.attention(samples.media, model.describe_states(samples.descriptions)), found)
    assert all(torch.equal(left, right) for left, right in zip(model(samples), before, strict=True))
    with pytest.raises(ValueError, match="slots=none"):
        tiny_model(slots="none").attention(samples.media, samples.descriptions)
