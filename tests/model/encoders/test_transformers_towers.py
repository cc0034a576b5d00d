"""Families beyond the common ones; weights that are not there; what is refused."""

import json

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

from model.batch import Texts
from model.encoders import build_media_encoder, build_text_encoder, load_media_encoder, load_text_encoder
from model.encoders.transformers_towers import patches
from tests.model.towers import PLACES, SIZES, VOCABULARY, ids_batch, saved, text_towers, vision_towers, whole

PICTURE = {**SIZES, "image_size": 32, "patch_size": 8}
WORDS = {**SIZES, "vocab_size": VOCABULARY, "max_position_embeddings": PLACES + 2}
CAUSAL = {**WORDS, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 1}
FLEXIBLE = {**SIZES, "patch_size": 8, "num_patches": 16}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}

WHOLE = {
    "clip": lambda: whole("clip"),
    "siglip": lambda: whole("siglip"),
    "chinese_clip": lambda: hf.ChineseCLIPModel(hf.ChineseCLIPConfig(vision_config=PICTURE, text_config=WORDS)),
    "altclip": lambda: hf.AltCLIPModel(
        hf.AltCLIPConfig(vision_config=PICTURE, text_config={**WORDS, "project_dim": 24})
    ),
    "metaclip2": lambda: hf.MetaClip2Model(hf.MetaClip2Config(vision_config=PICTURE, text_config=CAUSAL)),
    "siglip2": lambda: hf.Siglip2Model(hf.Siglip2Config(vision_config=FLEXIBLE, text_config=CAUSAL)),
}
VISION = {
    **vision_towers(),
    "registers": lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**PICTURE, num_register_tokens=4)),
    "swinv2": lambda: hf.Swinv2Model(
        hf.Swinv2Config(image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4)
    ),
    "convnext": lambda: hf.ConvNextModel(hf.ConvNextConfig(**STAGES, num_stages=2, image_size=32)),
    "resnet": lambda: hf.ResNetModel(hf.ResNetConfig(**STAGES, embedding_size=8)),
    "mae": lambda: hf.ViTMAEModel(hf.ViTMAEConfig(**PICTURE)),
    "classifier": lambda: hf.ViTForImageClassification(hf.ViTConfig(**PICTURE)),
    "headless": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**PICTURE, vision_use_head=False)),
    "altclip": lambda: hf.AltCLIPVisionModel(hf.AltCLIPVisionConfig(**PICTURE)),
    "metaclip2": lambda: hf.MetaClip2VisionModel(hf.MetaClip2VisionConfig(**PICTURE)),
    "siglip2": lambda: hf.Siglip2VisionModel(hf.Siglip2VisionConfig(**FLEXIBLE)),
}
TEXT = {
    **text_towers(),
    "masked_language_model": lambda: hf.XLMRobertaForMaskedLM(hf.XLMRobertaConfig(**WORDS)),
    "altclip": lambda: hf.AltCLIPTextModel(hf.AltCLIPTextConfig(**WORDS, project_dim=24)),
    "chinese_clip": lambda: hf.ChineseCLIPTextModel(hf.ChineseCLIPTextConfig(**WORDS)),
    "metaclip2": lambda: hf.MetaClip2TextModel(hf.MetaClip2TextConfig(**CAUSAL)),
    "siglip2": lambda: hf.Siglip2TextModel(hf.Siglip2TextConfig(**CAUSAL, projection_size=24)),
    "modernbert": lambda: hf.ModernBertModel(
        hf.ModernBertConfig(**SIZES, vocab_size=VOCABULARY, **dict.fromkeys(("pad_token_id", "bos_token_id"), 1))
    ),
}


def idle(encoder, *outputs):
    """Parameters that these outputs do not train."""
    encoder.zero_grad()
    sum((x * torch.randn_like(x)).sum() for x in outputs).backward()
    return [name for name, weights in encoder.named_parameters() if weights.requires_grad and weights.grad is None]


def normalised(encoder, media):
    return (media.frames[:, 0].float() / 255 - encoder.mean) / encoder.std


@pytest.mark.parametrize("family", sorted({*VISION, *WHOLE}))
def test_a_vision_tower(tmp_path, family):
    saved({**VISION, **WHOLE}[family], tmp_path)
    encoder, spec = load_media_encoder(str(tmp_path))
    media = ids_batch(frames=3, size=32).media
    tokens_BND, mask_BN, pool_BN = encoder(media)
    assert mask_BN.sum(1).tolist() == [21 if family == "registers" else 17, 3]
    assert tokens_BND.shape[2] == encoder.width
    assert not idle(encoder, tokens_BND * mask_BN[..., None])
    assert not idle(encoder, (encoder(media)[0] * pool_BN[..., None]).sum(1))  # a plain two-tower model
    built = build_media_encoder(json.loads(json.dumps(spec)))
    built.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(built.eval()(media)[0], encoder.eval()(media)[0], rtol=0, atol=0)
    assert str(tmp_path) not in json.dumps(spec)


@pytest.mark.parametrize("family", sorted({*TEXT, *WHOLE}))
def test_a_text_tower(tmp_path, family):
    saved({**TEXT, **WHOLE}[family], tmp_path)
    encoder, spec = load_text_encoder(str(tmp_path))
    texts = ids_batch().source
    states_BTD, pooled_BD = encoder(texts)
    assert states_BTD.shape == (2, 10, encoder.width) and pooled_BD.shape == (2, encoder.pooled_width)
    assert not idle(encoder, pooled_BD)
    assert all(torch.isfinite(x).all() for x in encoder(Texts(texts.tokens, torch.zeros_like(texts.mask))))
    built = build_text_encoder(json.loads(json.dumps(spec)))
    built.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(built.eval()(texts), encoder.eval()(texts), rtol=0, atol=0)


@pytest.mark.parametrize("family", WHOLE)
def test_towers_of_a_whole_model_have_its_weights(tmp_path, family):
    model, batch = saved(WHOLE[family], tmp_path), ids_batch(size=32)
    media, text = load_media_encoder(str(tmp_path))[0].eval(), load_text_encoder(str(tmp_path))[0].eval()
    pixels = normalised(media, batch.media)
    given = patches(pixels, 8) if family == "siglip2" else {"pixel_values": pixels}
    project_media, project_text = (
        getattr(model, name, nn.Identity()) for name in ("visual_projection", "text_projection")
    )
    picture = project_media(model.vision_model(**given).pooler_output)
    torch.testing.assert_close(media(batch.media)[0][:, 0], picture)
    ids = batch.source.tokens
    ids[:, 6] = 2  # the end of a text
    expected = model.text_model(input_ids=ids)
    summary = expected.last_hidden_state[:, 0] if family == "chinese_clip" else expected.pooler_output
    torch.testing.assert_close(text(Texts(ids, torch.ones_like(ids, dtype=torch.bool)))[1], project_text(summary))


def test_every_token_of_clip_goes_through_its_last_norm_and_its_projection(tmp_path):
    model, batch = saved(WHOLE["clip"], tmp_path), ids_batch(size=32)
    encoder = load_media_encoder(str(tmp_path))[0].eval()
    vision = model.vision_model
    states = vision(pixel_values=normalised(encoder, batch.media)).last_hidden_state
    expected = model.visual_projection(vision.post_layernorm(states))
    tokens, _, _ = encoder(batch.media)
    assert tokens.shape == (2, 17, 16)
    torch.testing.assert_close(tokens, expected)


@pytest.mark.parametrize("family", ["clip", "siglip", "metaclip2", "altclip", "chinese_clip"])
@pytest.mark.parametrize("size", [48, 32, 24, 50])
def test_positions_interpolated_once_give_the_same_as_in_every_step(tmp_path, family, size):
    saved({**VISION, **WHOLE}[family], tmp_path)
    media = ids_batch(frames=1, size=size).media
    encoder, spec = load_media_encoder(str(tmp_path), size)
    in_every_step = load_media_encoder(str(tmp_path))[0].eval()
    torch.testing.assert_close(encoder.eval()(media), in_every_step(media), rtol=0, atol=1e-6)
    places = [x for name, x in encoder.named_parameters() if name.endswith("position_embedding.weight")]
    assert len(places[0]) - (family != "siglip") == (size // 8) ** 2 and places[0].requires_grad
    built = build_media_encoder(json.loads(json.dumps(spec))).eval()
    built.load_state_dict(encoder.state_dict())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "interpolate", None)  # never called again
        torch.testing.assert_close(built(media), encoder(media), rtol=0, atol=0)


def test_patches_are_those_of_the_models_own_processor():
    pixels = torch.randn(2, 3, 24, 40)
    found = patches(pixels, 8)
    for row, picture in zip(found["pixel_values"], pixels, strict=True):
        assert torch.equal(row, torch.from_numpy(convert_image_to_patches(picture.numpy(), 8)))
    assert found["spatial_shapes"].tolist() == [[3, 5]] * 2 and found["pixel_attention_mask"].all()


@pytest.mark.parametrize("family", ["siglip", "siglip2"])
def test_siglip_reads_its_padding(tmp_path, family):
    """As it was trained; its summary is at the last place, and would otherwise see nothing there."""
    saved(TEXT[family], tmp_path)
    encoder = load_text_encoder(str(tmp_path))[0].eval()
    tokens = torch.randint(3, VOCABULARY, (1, 6))
    masks = (torch.ones(1, 6, dtype=torch.bool), torch.arange(6)[None] < 3)
    assert torch.equal(encoder(Texts(tokens, masks[0]))[1], encoder(Texts(tokens, masks[1]))[1])


def without(folder, prefix):
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(prefix)}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def test_of_a_whole_model_only_the_tower_asked_for_must_be_there(tmp_path):
    saved(WHOLE["altclip"], tmp_path)
    without(tmp_path, "vision_model.embeddings.class")
    load_text_encoder(str(tmp_path))
    with pytest.raises(ValueError, match=r"lacks 1 weights of AltCLIPVisionModel, such as embeddings\.class_embedding"):
        load_media_encoder(str(tmp_path))


def test_code_beside_the_weights_is_never_run(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}')
    (tmp_path / "own.py").write_text("raise SystemExit('run')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ValueError, match="is not a Transformers model"):
        load_media_encoder(str(tmp_path))
