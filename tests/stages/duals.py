"""Small CLIP and SigLIP models with random weights, saved as the big ones are."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
)

PAD, START, END = 0, 1, 2
WIDTHS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
VISION = {**WIDTHS, "image_size": 32, "patch_size": 16}
KINDS = ("clip", "siglip")


def write_dual(folder: Path, kind: str) -> Path:
    torch.manual_seed(0)
    tokenizer = words_tokenizer(kind)
    text = {**WIDTHS, "vocab_size": len(tokenizer), "pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}
    if kind == "clip":
        model = CLIPModel(
            CLIPConfig(
                text_config=CLIPTextConfig(**text, max_position_embeddings=16, projection_dim=24).to_dict(),
                vision_config=CLIPVisionConfig(**VISION, projection_dim=24).to_dict(),
                projection_dim=24,
            )
        )
        image_processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    else:
        model = SiglipModel(
            SiglipConfig(
                text_config=SiglipTextConfig(**text, max_position_embeddings=64, projection_size=32).to_dict(),
                vision_config=SiglipVisionConfig(**VISION).to_dict(),
            )
        )
        image_processor = SiglipImageProcessor(size={"height": 32, "width": 32})
    for part in (model, tokenizer, image_processor):
        part.save_pretrained(folder)
    return folder


def words_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Letters and some words, with the marks of the beginning (CLIP) and the end. Capitals are unknown to it."""
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<pad>", "<start>", "<end>", "<unk>"])
    inner.train_from_iterator(["red green blue dark bright pale", "rot grün blau dunkel hell blass"] * 3, trainer)
    single = "<start> $A <end>" if kind == "clip" else "$A <end>"
    inner.post_processor = processors.TemplateProcessing(single, special_tokens=[("<start>", START), ("<end>", END)])
    special = {"pad_token": "<pad>", "bos_token": "<start>", "eos_token": "<end>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)
