"""Small dual encoders with random weights, saved as the big ones are: a family each, in its real format."""

import json
from pathlib import Path

import torch
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from model.modeling import LeccrModel
from model.processing import LeccrProcessor

PAD, START, END = 0, 1, 3
WIDTHS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
VISION = {**WIDTHS, "image_size": 32, "patch_size": 16}
MARKS = {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}
KINDS = ("clip", "siglip")
SHARED = {"vision_config": {**VISION, "projection_dim": 24}, "projection_dim": 24}


def _words(places, **more):
    return {**WIDTHS, **MARKS, "vocab_size": len(words_tokenizer("")), "max_position_embeddings": places, **more}


def _vision_text():
    text = hf.XLMRobertaConfig(**_words(16))
    vision = hf.CLIPVisionConfig(**VISION)
    config = hf.VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=24)
    return hf.VisionTextDualEncoderModel(config)


def _siglip(config, model, vision):
    return lambda: model(config(text_config=_words(64, projection_size=32), vision_config=vision))


MODELS = {
    "clip": lambda: hf.CLIPModel(hf.CLIPConfig(text_config=_words(16, projection_dim=24), **SHARED)),
    "metaclip_2": lambda: hf.MetaClip2Model(hf.MetaClip2Config(text_config=_words(16, projection_dim=24), **SHARED)),
    "chinese_clip": lambda: hf.ChineseCLIPModel(hf.ChineseCLIPConfig(text_config=_words(16, vocab_size=80), **SHARED)),
    "altclip": lambda: hf.AltCLIPModel(hf.AltCLIPConfig(text_config=_words(16, project_dim=28), **SHARED)),
    "clipseg": lambda: hf.CLIPSegModel(hf.CLIPSegConfig(text_config=_words(16), **SHARED)),
    "siglip": _siglip(hf.SiglipConfig, hf.SiglipModel, VISION),
    "siglip2": _siglip(hf.Siglip2Config, hf.Siglip2Model, {**WIDTHS, "patch_size": 8, "num_patches": 16}),
    "vision-text-dual-encoder": _vision_text,
}


def write_dual(folder: Path, kind: str) -> Path:
    torch.manual_seed(0)
    square = {"height": 32, "width": 32}
    if kind == "siglip2":  # NaFlex: pictures keep their shape
        image_processor = Siglip2ImageProcessorPil(max_num_patches=16, patch_size=8)
    elif kind == "siglip":
        image_processor = hf.SiglipImageProcessor(size=square)
    else:
        image_processor = hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square)
    for part in (MODELS[kind](), words_tokenizer(kind), image_processor):
        part.save_pretrained(folder)
    if kind == "chinese_clip":  # a vocabulary of characters
        for file in folder.glob("tokenizer*"):
            file.unlink()
        letters = "abcdefghijklmnopqrstuvwxyzäöü猫狗红"
        words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *letters, *("##" + letter for letter in letters)]
        (folder / "vocab.txt").write_text("\n".join(words))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


def adapted(folder, kind, **policy):
    """A dual encoder with heads that are no longer the identity, and its processor."""
    name = str(write_dual(folder / "dual", kind))
    torch.manual_seed(0)
    model, of = LeccrModel.create(name, name).eval(), LeccrProcessor.create(name, name, **policy)
    with torch.no_grad():
        for weights in (*model.text_head.parameters(), *model.media_head.parameters()):
            weights.add_(torch.randn_like(weights), alpha=0.3)
    return model, of


def words_tokenizer(kind: str) -> hf.PreTrainedTokenizerFast:
    """Letters and some words, with the marks of the beginning (but SigLIP) and the end. Capitals are unknown to it."""
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<pad>", "<start>", "<unk>", "<end>"])
    inner.train_from_iterator(["red green blue dark bright pale", "rot grün blau dunkel hell blass"] * 3, trainer)
    single = "$A <end>" if kind.startswith("siglip") else "<start> $A <end>"
    inner.post_processor = processors.TemplateProcessing(single, special_tokens=[("<start>", START), ("<end>", END)])
    special = {"pad_token": "<pad>", "bos_token": "<start>", "eos_token": "<end>", "unk_token": "<unk>"}
    return hf.PreTrainedTokenizerFast(tokenizer_object=inner, **special)
