"""Adapt a dual encoder to a corpus with descriptions, compare it with what it was, and use it in Sentence Transformers.

    python examples/adapt_encoder.py demo/corpus OUTPUT          # a tiny CLIP with random weights: seconds
    python examples/adapt_encoder.py CORPUS OUTPUT openai/clip-vit-base-patch32

The corpus needs descriptions in English and their translations, no captions. It is trained and scored on the same
pictures, so that it runs on the nine sample photos of `make demo`: for your own, leave out `select_on=train`.
"""

import argparse
import json
from pathlib import Path

import pyarrow.ipc as ipc
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from stages import score, train

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
MARKS = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<start>", "eos_token": "<end>"}  # CLIP: 2 is no end
RECIPE = ("extra_views=all", "select_on=train", "batch_size=8", "steps=40", "validate_every=20", "lr=1e-3")


def make_encoder(corpus: Path, folder: Path) -> Path:
    """Save a tiny CLIP with random weights, and a tokenizer of the corpus, as the Hub has models."""
    torch.manual_seed(0)
    shards = [ipc.open_stream(path).read_all() for path in sorted((corpus / "translations").glob("*.arrow"))]
    texts = [text for shard in shards for name in ("source_text", "text") for text in shard[name].to_pylist()]
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=500, special_tokens=[*MARKS.values()], initial_alphabet=alphabet)
    )
    words.post_processor = processors.TemplateProcessing(
        "<start> $A <end>", special_tokens=[(mark, words.token_to_id(mark)) for mark in ("<start>", "<end>")]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **MARKS)
    ids = {name.replace("token", "token_id"): words.token_to_id(mark) for name, mark in MARKS.items()}
    text = {**SIZES, **ids, "vocab_size": words.get_vocab_size(), "max_position_embeddings": 64}
    vision = {**SIZES, "image_size": 64, "patch_size": 16}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    for part in (transformers.CLIPModel(config), tokenizer, pictures):
        part.save_pretrained(folder)
    return folder


def adapt(corpus: Path, output: Path, encoder: str, *settings: str) -> dict[str, float]:
    """Train with recipe `adapt` and further `key=value` settings, and compare with the encoder.

    Returns:
        SumR, the mean over languages, of the adapted model, of it without descriptions, and of the encoder without and
        with late fusion.
    """
    run, data = str(output / "run"), ["--data", str(corpus)]
    towers = [f"media={encoder}", f"text={encoder}"]
    assert train.main(["--recipe", "adapt", *data, "--output", run, "--overwrite", *towers, *RECIPE, *settings]) == 0
    compared = ["--checkpoint", run, *data, "--split", "train", "--baselines", encoder, "--fuse", "train", "--card"]
    assert score.main([*compared, "--output", str(output / "scores.json")]) == 0
    arms = json.loads((output / "scores.json").read_text())["arms"]
    return {f"{arm['name']}{', late fusion' if arm['fusion'] else ''}": arm["mean"] for arm in arms}


def main() -> None:
    """Adapt, compare, and ask the adapted model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("encoder", nargs="?", help="a dual encoder; a tiny one with random weights if not given")
    options = parser.parse_args()
    adapt(options.corpus, options.output, options.encoder or str(make_encoder(options.corpus, options.output / "tiny")))
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(options.output / "run" / "best-st"))
    print(f"a query as a vector of Sentence Transformers: {model.encode(['uma xícara de café']).shape}")


if __name__ == "__main__":
    main()
