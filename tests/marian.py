"""Makes a Marian model: sentencepiece vocabularies and weights trained on the spot, saved like an OPUS-MT folder.

A source that begins with a token such as `>>deu<<` makes a model of several target languages. As in published models,
the embedding of <pad>, with which decoding starts, is zero, and <pad> is never generated.
"""

import fcntl
import itertools
import json
import os
import random
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import yaml
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

Pair = tuple[str, str]
# Sentences of one grammar in three languages: enough for a small model to learn in seconds what it is to translate.
PHRASES = yaml.safe_load(Path(__file__).with_name("toy_phrases.yaml").read_text("utf-8"))


def toy_pairs(target: str) -> list[Pair]:
    """All sentences of the grammar, English and `target` (de or fr), in a random order."""
    sides = (_sentences("en"), _sentences(target))
    pairs = list(zip(*sides, strict=True))
    random.Random(0).shuffle(pairs)
    return pairs


def _sentences(language: str) -> list[str]:
    parts = [phrases.split("|") for phrases in PHRASES[language]]
    return [f"{' '.join(words)}." for words in itertools.product(*parts)]


def make_marian(
    folder: Path,
    pairs: Sequence[Pair],
    *,
    steps: int = 300,
    minutes: float = 5.0,
    vocabulary: int = 800,
    width: int = 64,
    layers: int = 2,
    batch: int = 64,
    rate: float = 3e-3,
) -> Path:
    """`folder` with a model that has seen `pairs` for `steps` batches, or for `minutes`, whichever ends first."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    tokenizer = _tokenizer(folder, pairs, vocabulary)
    pad = tokenizer.pad_token_id
    config = MarianConfig(
        vocab_size=len(tokenizer.encoder),
        d_model=width,
        **both_sides(layers=layers, attention_heads=4, ffn_dim=4 * width),
        max_position_embeddings=256,
        activation_function="swish",
        scale_embedding=True,
        pad_token_id=pad,
        eos_token_id=0,
        decoder_start_token_id=pad,
        init_std=width**-0.5,
    )
    model = MarianMTModel(config)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two get in each other's way at this size
    try:
        _train(model, _encoded(tokenizer, pairs), steps, 60 * minutes, batch, rate)
    finally:
        torch.set_num_threads(threads)
    model.generation_config.bad_words_ids = [[pad]]
    model.generation_config.forced_eos_token_id = 0
    model.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\nMade for tests.\n", encoding="utf-8")
    return folder


def shared_marian(factory: Any, name: str, pairs: Sequence[Pair], **training: Any) -> Path:
    """A model that the first of a test run's worker processes that needs it makes for all of them."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "models" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "README.md").exists():  # which is written last
            make_marian(folder, pairs, **training)
    return folder


def both_sides(**sizes: int) -> dict[str, int]:
    """Sizes of the encoder and the decoder, for a configuration."""
    return {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()}


def _tokenizer(folder: Path, pairs: Sequence[Pair], vocabulary: int) -> MarianTokenizer:
    tags = sorted({source.split()[0] for source, _ in pairs if source.startswith(">>")})
    sources = [source.removeprefix(source.split()[0]) if source.startswith(">>") else source for source, _ in pairs]
    pieces: dict[str, None] = {}
    for name, texts in (("source", sources), ("target", [target for _, target in pairs])):
        prefix = folder / name
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_prefix=str(prefix),
            vocab_size=vocabulary,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
        )
        (folder / f"{name}.vocab").unlink()
        path = (folder / f"{name}.model").rename(folder / f"{name}.spm")
        trained = sentencepiece.SentencePieceProcessor(str(path))
        pieces.update(dict.fromkeys(trained.id_to_piece(i) for i in range(3, trained.get_piece_size())))
    tokens = ["</s>", "<unk>", *pieces, *tags, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    with warnings.catch_warnings():  # it recommends a package that is of no use here
        warnings.simplefilter("ignore")
        files = {"source_spm": "source.spm", "target_spm": "target.spm", "vocab": "vocab.json"}
        tokenizer = MarianTokenizer(**{name: str(folder / file) for name, file in files.items()})
    tokenizer.save_pretrained(folder)
    return tokenizer


def _encoded(tokenizer: MarianTokenizer, pairs: Sequence[Pair]) -> list[tuple[list[int], list[int]]]:
    sources, targets = (list(side) for side in zip(*pairs, strict=True))
    return list(zip(tokenizer(sources)["input_ids"], tokenizer(text_target=targets)["input_ids"], strict=True))


def _train(
    model: MarianMTModel,
    encoded: list[tuple[list[int], list[int]]],
    steps: int,
    seconds: float,
    batch: int,
    rate: float,
) -> None:
    pad = model.config.pad_token_id
    order = random.Random(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    loss_of = torch.nn.CrossEntropyLoss(ignore_index=-100, label_smoothing=0.1)
    model.train()
    step, started = 0, time.monotonic()
    while step < steps and time.monotonic() < started + seconds:
        order.shuffle(encoded)
        pools = [encoded[i : i + 20 * batch] for i in range(0, len(encoded), 20 * batch)]
        batches = []
        for pool in pools:  # within a pool, batches of like lengths: little padding, still a random order
            pool.sort(key=lambda pair: len(pair[1]))
            batches += [pool[i : i + batch] for i in range(0, len(pool), batch)]
        order.shuffle(batches)
        for rows in batches:
            done = max(step / steps, (time.monotonic() - started) / seconds)
            if done >= 1:
                break
            for group in optimiser.param_groups:
                group["lr"] = rate * min((step + 1) / 100, max(1 - done, 0.02))
            inputs = _padded([source for source, _ in rows], pad)
            labels = _padded([target for _, target in rows], -100)
            logits = model(input_ids=inputs, attention_mask=inputs != pad, labels=labels).logits
            loss_of(logits.flatten(0, 1), labels.flatten()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            with torch.no_grad():  # the tied output layer would move it
                model.get_input_embeddings().weight[pad] = 0
            step += 1
    model.eval()


def _padded(rows: Sequence[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])
