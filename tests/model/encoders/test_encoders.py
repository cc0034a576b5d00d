"""All kinds of encoders, through the two protocols."""

import json

import hypothesis.strategies as st
import pytest
import torch
import transformers as hf
from hypothesis import given, settings

from model.batch import Media, Texts
from model.encoders import build_media_encoder, build_text_encoder, load_media_encoder, load_text_encoder
from tests.model.towers import (
    MEDIA,
    SIZES,
    VOCABULARY,
    ids_batch,
    saved,
    text_spec,
    text_towers,
    vision_towers,
    write_picture_settings,
)

FEATURES = {"kind": "features", "input_dim": 20, "width": 16, "layers": 1, "heads": 2, "max_frames": 8}


@pytest.mark.parametrize("family", ["clip", "dinov2", "vit", "siglip"])
def test_pictures_larger_than_the_tower_was_made_for(tmp_path, family):
    saved(vision_towers()[family], tmp_path)
    encoder, _ = load_media_encoder(str(tmp_path))
    assert encoder(ids_batch(size=48).media)[0].shape[1] == 36 + 1


@pytest.mark.parametrize("family", ["xlm_roberta", "bert", "distilbert"])
def test_padding_changes_no_text(tmp_path, family):
    saved(text_towers()[family], tmp_path)
    encoder, _ = load_text_encoder(str(tmp_path))
    encoder.eval()
    tokens = torch.randint(3, VOCABULARY, (2, 6))
    mask = torch.ones(2, 6, dtype=torch.bool)
    garbage = torch.randint(3, VOCABULARY, (2, 4))
    padded = Texts(torch.cat([tokens, garbage], 1), torch.cat([mask, torch.zeros(2, 4, dtype=torch.bool)], 1))
    torch.testing.assert_close(encoder(padded)[1], encoder(Texts(tokens, mask))[1], rtol=1e-5, atol=1e-5)


CAUSAL = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}
POOLED = {
    "qwen": (lambda: hf.Qwen3Model(hf.Qwen3Config(**SIZES, **CAUSAL, num_key_value_heads=2, head_dim=8)), "", "last"),
    "llama": (lambda: hf.LlamaModel(hf.LlamaConfig(**SIZES, **CAUSAL)), "", "last"),
    "gpt2": (lambda: hf.GPT2Model(hf.GPT2Config(n_embd=32, n_layer=2, n_head=4, **CAUSAL)), "", "last"),
    "t5": (lambda: hf.MT5Model(hf.MT5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, **CAUSAL)), "", "mean"),
    "bert": (text_towers()["bert"], "", "cls"),
    "mean": (text_towers()["xlm_roberta"], "mean_tokens", "mean"),
    "sentence_cls": (text_towers()["bert"], "cls_token", "cls"),
    "sentence_last": (text_towers()["distilbert"], "lasttoken", "last"),
}


@pytest.mark.parametrize("name", POOLED)
def test_the_summary_of_a_text_follows_the_tower(tmp_path, name):
    make, mode, pooling = POOLED[name]
    saved(make, tmp_path)
    if mode:  # the files of Sentence Transformers
        (tmp_path / "1_Pooling").mkdir()
        modes = {"pooling_mode_cls_token": False, f"pooling_mode_{mode}": True, "word_embedding_dimension": 32}
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(modes))
        modules = [{"path": "", "type": "models.Transformer"}, {"path": "1_Pooling", "type": "models.Pooling"}]
        (tmp_path / "modules.json").write_text(json.dumps(modules))
    encoder, spec = load_text_encoder(str(tmp_path))
    texts = ids_batch().source  # the second is shorter
    states_BTD, summary_BD = encoder.eval()(texts)
    expected = {
        "cls": states_BTD[:, 0],
        "last": torch.stack([states_BTD[0, 9], states_BTD[1, 5]]),
        "mean": torch.stack([states_BTD[0].mean(0), states_BTD[1, :6].mean(0)]),
    }[pooling]
    torch.testing.assert_close(summary_BD, expected)
    assert encoder.pooling == build_text_encoder(spec).pooling == pooling
    alone_1D = encoder(Texts(texts.tokens[1:, :6], texts.mask[1:, :6]))[1]
    torch.testing.assert_close(alone_1D, summary_BD[1:], rtol=1e-4, atol=1e-5)


def test_a_way_of_pooling_that_is_not_known_is_refused(tmp_path):
    saved(text_towers()["bert"], tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "1_Pooling", "type": "models.Pooling"}]))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "max"}))
    with pytest.raises(ValueError, match="max"):
        load_text_encoder(str(tmp_path))


def test_pixels_are_normalised_as_the_model_was_trained(tmp_path):
    saved(vision_towers()["clip"], tmp_path)
    write_picture_settings(tmp_path, image_mean=[0.1, 0.2, 0.3], image_std=[1, 1, 0.5])
    encoder, spec = load_media_encoder(str(tmp_path))
    assert encoder.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3]) and spec["image_std"] == [1, 1, 0.5]


@pytest.mark.parametrize(
    ("load", "make"), [(load_media_encoder, text_towers()["bert"]), (load_text_encoder, vision_towers()["vit"])]
)
def test_the_wrong_kind_of_tower_is_refused(tmp_path, load, make):
    saved(make, tmp_path)
    with pytest.raises(ValueError, match=r"expected a (vision|text) tower"):
        load(str(tmp_path))


def test_what_cannot_be_loaded_or_built_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a Transformers model"):
        load_media_encoder(str(tmp_path))
    for spec in (None, {"kind": "bert"}, {"kind": "transformers", "class": "os", "config": {}}, {**MEDIA, "heads": 5}):
        with pytest.raises(ValueError, match=r"kind|class|heads=5"):
            build_media_encoder(spec)


def media_of(counts, width=None, seed=0):
    """Random media of items with that many frames, padded with garbage."""
    random = torch.Generator().manual_seed(seed)
    shape = (width,) if width else (3, 32, 32)
    frames = torch.randint(0, 255, (len(counts), max(counts), *shape), generator=random, dtype=torch.uint8)
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    return Media(frames.float() if width else frames, mask)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
@pytest.mark.parametrize("spec", [MEDIA, FEATURES], ids=["tiny", "features"])
def test_an_item_is_encoded_alike_alone_and_beside_others(spec, counts):
    torch.manual_seed(0)
    encoder = build_media_encoder(spec).eval()
    media = media_of(counts, spec.get("input_dim"))
    tokens_BND, mask_BN, pool_BN = encoder(media)
    torch.testing.assert_close(pool_BN.sum(1), torch.ones(len(counts)))
    for place, count in enumerate(counts):
        alone_1ND, alone_1N, weights_1N = encoder(
            Media(media.frames[place : place + 1, :count], media.mask[place : place + 1, :count])
        )
        length = int(mask_BN[place].sum())
        assert length == alone_1ND.shape[1] == int(alone_1N.sum())
        torch.testing.assert_close(tokens_BND[place, :length], alone_1ND[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(pool_BN[place, :length], weights_1N[0])
        assert not pool_BN[place, length:].any()


def test_every_parameter_is_trained_by_the_summary_alone():
    """Otherwise a plain two-tower model would hold up the other processes."""
    frames = torch.randint(0, 255, (2, 1, 3, 32, 32), dtype=torch.uint8)
    media, text = build_media_encoder(MEDIA), build_text_encoder(text_spec(VOCABULARY))
    tokens_BND, _, pool_BN = media(Media(frames, torch.ones(2, 1, dtype=torch.bool)))
    _, pooled_BD = text(Texts(torch.randint(3, VOCABULARY, (2, 8)), torch.ones(2, 8, dtype=torch.bool)))
    pooled = ((tokens_BND * pool_BN[..., None]).sum(1), pooled_BD)
    sum((x * torch.randn_like(x)).sum() for x in pooled).backward()
    assert not [name for part in (media, text) for name, w in part.named_parameters() if w.grad is None]
