"""Small models and batches for tests; tiny towers of Transformers written to a folder as the Hub has them."""

import json

import numpy as np
import torch
import transformers as hf
from PIL import Image

from model.batch import Batch, Media, Texts
from model.modeling import LeccrModel
from model.processing import LeccrProcessor
from model.settings import FAITHFUL_OBJECTIVE, RELEASED_WEIGHTS, ObjectiveConfig
from model.tokenizer import train_tokenizer

TEXTS = ["a red cat on a sofa", "ein roter Hund im Haus", "一只猫在沙发上", "猫がソファの上にいる", "un chien bleu"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
VOCABULARY, PLACES = 60, 24
MEDIA = {"kind": "tiny", "image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 4}


def processor(**policy):
    return LeccrProcessor.create(
        "tiny", "tiny", train_tokenizer(TEXTS * 3, 400), **{"image_size": 32, "max_tokens": 16} | policy
    )


def text_spec(vocabulary, **more):
    return {"kind": "tiny", "vocab_size": vocabulary, "max_tokens": 16, "width": 32, "layers": 2, "heads": 4} | more


PAPER = ObjectiveConfig(**RELEASED_WEIGHTS)
FAITHFUL = ObjectiveConfig(**RELEASED_WEIGHTS, **FAITHFUL_OBJECTIVE)  # with the faults of the released code
VIEWS = {"slots": "views", "heads": "aligned", "views": ("caption", "objects")}
RELEASED = {"slots": "queries", "heads": "random", "init_temperature": 0.07}  # the architecture of the paper


def tiny_model(vocabulary=300, seed=0, **settings):
    torch.manual_seed(seed)
    small = {"embed_dim": 16, "num_heads": 4, "num_slots": 3, "slot_layers": 1, "interaction_layers": 1}
    settings = RELEASED | small | settings
    return LeccrModel.create(MEDIA, text_spec(vocabulary), **settings)


def picture(seed, size=(40, 60)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))


def batch(of=None):
    """An image, a video of three frames, an image without description; the last two have no target text."""
    of = of or processor()
    return Batch(
        of.media([[picture(0)], [picture(1), picture(2), picture(3)], [picture(4)]]),
        of.texts(TEXTS[:3]),
        of.texts(["ein Haus", "", ""]),
        of.descriptions([["a cat", "a red cat on it"], ["a dog"], []]),
        torch.tensor([1, 2, 3]),
        torch.tensor([1.0, 0.0, 0.0]),
    )


def ids_batch(frames=1, size=48):
    """For towers whose vocabulary is VOCABULARY: two items, the second one's texts shorter."""
    random = torch.Generator().manual_seed(0)
    mask = torch.tensor([[True] * 10, [True] * 6 + [False] * 4])

    def texts():
        return Texts(torch.randint(3, VOCABULARY, (2, 10), generator=random), mask)

    pixels = torch.randint(0, 255, (2, frames, 3, size, size), generator=random, dtype=torch.uint8)
    shown = torch.ones(2, frames, dtype=torch.bool)
    shown[0, 1:] = False
    described = texts()
    return Batch(
        Media(pixels, shown),
        texts(),
        texts(),
        Texts(described.tokens[:, None], described.mask[:, None]),
        torch.tensor([1, 2]),
        torch.ones(2),
    )


def write_picture_settings(folder, **more):
    """The preprocessor_config.json of a CLIP for pictures of 32 pixels, with other values for some keys."""
    values = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "do_center_crop": True}
    values |= {"crop_size": {"height": 32, "width": 32}, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]}
    (folder / "preprocessor_config.json").write_text(json.dumps(values | more))


def saved(make, folder):
    """A model of Transformers with random weights, written to a folder as the Hub has it."""
    torch.manual_seed(0)
    model = make().eval()
    model.save_pretrained(folder)
    write_picture_settings(folder)
    return model


def vision_towers():
    of = {**SIZES, "image_size": 32, "patch_size": 8}
    return {
        "clip": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**of)),
        "siglip": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**of)),
        "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(**of)),
        "dinov3": lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**of)),
        "vit": lambda: hf.ViTModel(hf.ViTConfig(**of)),
        "swin": lambda: hf.SwinModel(
            hf.SwinConfig(image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4)
        ),
    }


def text_towers():
    of = {**SIZES, "vocab_size": VOCABULARY, "max_position_embeddings": PLACES + 2}
    marks = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 1}
    return {
        "xlm_roberta": lambda: hf.XLMRobertaModel(hf.XLMRobertaConfig(**of)),
        "bert": lambda: hf.BertModel(hf.BertConfig(**of)),
        "distilbert": lambda: hf.DistilBertModel(
            hf.DistilBertConfig(vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=4, hidden_dim=48)
        ),
        "clip": lambda: hf.CLIPTextModel(hf.CLIPTextConfig(**of, **marks)),
        "siglip": lambda: hf.SiglipTextModel(hf.SiglipTextConfig(**of, **marks, projection_size=24)),
    }


def whole(kind):
    """A CLIP or SigLIP with both towers."""
    vision, text = ({**SIZES, "image_size": 32, "patch_size": 8}, {**SIZES, "vocab_size": VOCABULARY})
    text |= {"max_position_embeddings": PLACES, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 1}
    if kind == "clip":
        return hf.CLIPModel(hf.CLIPConfig(vision_config=vision, text_config=text, projection_dim=16))
    text["projection_size"] = 32
    return hf.SiglipModel(hf.SiglipConfig(vision_config=vision, text_config=text))
