"""What bench/translate.py translates, and with what: distinct captions, corpora of them, Marian models."""

import gzip
import itertools
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.common import DATA
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import shard_name, write_manifest, write_shard
from pipeline.hashing import short_hash
from stages.ingest import Ingest

MULTI30K = DATA / "multi30k"
SOURCES = ("task1/raw/train.en", "task1/raw/val.en", *(f"task2/raw/val.{number}.en" for number in range(1, 6)))
CAPTIONS_PER_ITEM = 5  # as in COCO and Flickr30K
SHARD_TEXTS = 1_000 * CAPTIONS_PER_ITEM
OPUS_VOCABULARY, LAYERS = 58_101, 6  # of opus-mt-en-de
TIED = ("embed_tokens.weight", "lm_head.weight")  # one with model.shared.weight


def captions(count: int, named: Path | None) -> tuple[list[str], str]:
    """`count` distinct captions in a random order, and what they are. Raises SystemExit where `named` has too few."""
    generator = random.Random(0)
    if named is not None:
        lines = [line.strip() for line in named.read_text(encoding="utf-8").splitlines()]
        texts = list(dict.fromkeys(filter(None, lines)))
        if len(texts) < count:
            raise SystemExit(
                f"--captions: {named} has {len(texts):,} distinct lines, not {count:,}: give smaller --sizes"
            )
        return texts[:count], f"the first of {named.name}"
    if not MULTI30K.is_dir():
        return list(
            itertools.islice(dict.fromkeys(_by_grammar(generator, 4 * count)), count)
        ), "made by a small grammar"
    texts = list(dict.fromkeys(line for name in SOURCES for line in _lines(name) if line))
    generator.shuffle(texts)
    real = len(texts)
    distinct = dict.fromkeys(texts)
    while len(distinct) < count:
        first, second = (text.split() for text in generator.sample(texts, 2))
        distinct[" ".join(first[: len(first) // 2] + second[len(second) // 2 :])] = None
    taken = list(distinct)[:count]
    return taken, f"Multi30K's {real:,}" + (", further ones joined of their halves" if count > real else "")


def _by_grammar(generator: random.Random, count: int) -> Iterator[str]:
    from tests.marian import toy_pairs

    sentences = [source.rstrip(".") for source, _ in toy_pairs("de")]
    for _ in range(count):
        first, second = generator.sample(sentences, 2)
        yield f"{first}, while {second[0].lower()}{second[1:]}."


def _lines(name: str) -> list[str]:
    with gzip.open(MULTI30K / f"{name}.gz", "rt", encoding="utf-8") as stream:
        return [line.strip() for line in stream]


def write_corpus(folder: Path, texts: Sequence[str]) -> None:
    """A corpus as stage ingest leaves it, but for its media and its state: stage translate opens no media."""
    parts = [texts[at : at + SHARD_TEXTS] for at in range(0, len(texts), SHARD_TEXTS)]
    entries: dict[str, list[dict[str, Any]]] = {"items": [], "captions": []}
    for index, part in enumerate(parts):
        owned = [part[at : at + CAPTIONS_PER_ITEM] for at in range(0, len(part), CAPTIONS_PER_ITEM)]
        ids = [f"{index:04d}/{number:04d}.jpg" for number in range(len(owned))]
        pairs = list(zip(ids, owned, strict=True))
        rows = {
            "items": [_item(item_id) for item_id in ids],
            "captions": [row for pair in pairs for row in _rows(*pair)],
        }
        for table, table_rows in rows.items():
            (folder / table).mkdir(parents=True, exist_ok=True)
            path = folder / table / shard_name(index, len(parts))
            entry = write_shard(path, pa.Table.from_pylist(table_rows, SCHEMAS[table]))
            entries[table].append({**entry, "parent": "", "items": len(ids)})
    ingest = Ingest()
    made_by = {"settings": ingest.settings(), "fingerprint": ingest.fingerprint, "tools": {}}
    for table in ("captions", "items"):
        write_manifest(folder, table, **made_by, parents={}, shards=entries[table], failures=[])


def _item(item_id: str) -> dict[str, Any]:
    media = {"width": 640, "height": 480, "num_frames": 1, "duration_s": None, "sha256": 4 * short_hash(item_id)}
    origin = {"split": "train", "source": "bench", "license": ""}
    return {"item_id": item_id, "media_type": "image", "uri": item_id, **media, **origin}


def _rows(item_id: str, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(texts):
        of_item = {"item_id": item_id, "language": "en", "origin": "human", "split": "train"}
        yield {"caption_id": f"{item_id}#en#{number}", "text": text, **of_item}


def train(folder: Path, minutes: float) -> str:
    """A small Marian model, en to de, made on the spot; returns a description."""
    from transformers.utils import logging

    from tests.marian import make_marian, toy_pairs

    logging.disable_progress_bar()
    if MULTI30K.is_dir():
        pairs = list(zip(*(_lines(f"task1/raw/train.{language}") for language in ("en", "de")), strict=True))
        pairs, origin, vocabulary = [pair for pair in pairs if all(pair)], "Multi30K", 6_000
    else:
        pairs, origin, vocabulary = toy_pairs("de"), "a small grammar", 800
    shape = {"vocabulary": vocabulary, "width": 256, "layers": 2, "rate": 1e-3}
    make_marian(folder, pairs, steps=1_000_000, minutes=minutes, **shape)
    return f"trained here for {minutes:g} minutes on {origin}"


def widen(folder: Path, wide: Path) -> str:
    """The Marian model in `folder` in the shape of OPUS-MT's: twice as wide, LAYERS deep, OPUS_VOCABULARY tokens.

    It computes the same, so its translations are as long as those of a trained model, and a step costs as much as one
    of OPUS-MT's: every channel is there twice, added layers do nothing, added tokens are never chosen.
    Returns its size.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import MarianMTModel, MarianTokenizer

    small = MarianMTModel.from_pretrained(folder)
    pad, extra = small.config.pad_token_id, max(0, OPUS_VOCABULARY - small.config.vocab_size)
    if pad != small.config.vocab_size - 1 or not small.config.share_encoder_decoder_embeddings:
        raise SystemExit(f"--size base: {folder} must have <pad> as its last token and one vocabulary for both sides")
    config = small.config.__class__.from_dict(small.config.to_dict())
    depths = {side: getattr(config, f"{side}_layers") for side in ("encoder", "decoder")}
    config.d_model *= 2
    for side in depths:
        setattr(config, f"{side}_layers", LAYERS)
        setattr(config, f"{side}_attention_heads", 2 * getattr(config, f"{side}_attention_heads"))
        setattr(config, f"{side}_ffn_dim", 2 * getattr(config, f"{side}_ffn_dim"))
    config.vocab_size = config.decoder_vocab_size = pad + extra + 1
    config.pad_token_id = config.decoder_start_token_id = pad + extra
    torch.manual_seed(0)
    weights = {name: weight.clone() for name, weight in MarianMTModel(config).state_dict().items()}
    for name, old in small.state_dict().items():
        if name.endswith(TIED):
            continue
        if name == "final_logits_bias":
            weights[name] = torch.cat([old[:, :-1], torch.full((1, extra), -1e4), old[:, -1:]], 1)
        elif name == "model.shared.weight":
            rows = torch.cat([old[:-1], 0.05 * torch.randn(extra, old.shape[1]), old[-1:]])
            weights[name] = torch.cat([rows, rows], 1) / 2**0.5
        elif "embed_positions" in name:
            weights[name] = torch.cat([old, old], 1)
        else:
            weights[name] = torch.block_diag(old, old) if old.dim() == 2 else torch.cat([old, old])
    for side, depth in depths.items():
        _pass_on(weights, f"model.{side}.layers", depth)
    weights[f"model.decoder.layers.{LAYERS - 1}.final_layer_norm.weight"] /= 2**0.5
    weights[f"model.decoder.layers.{LAYERS - 1}.final_layer_norm.bias"] /= 2**0.5
    shutil.copytree(folder, wide, ignore=shutil.ignore_patterns("*.safetensors", "vocab.json", "tokenizer*.json"))
    config.save_pretrained(wide)
    small.generation_config.update(
        pad_token_id=pad + extra, decoder_start_token_id=pad + extra, bad_words_ids=[[pad + extra]]
    )
    small.generation_config.save_pretrained(wide)
    untied = {name: weight.contiguous() for name, weight in weights.items() if not name.endswith(TIED)}
    save_file(untied, wide / "model.safetensors", {"format": "pt"})
    tokens = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    tokens.update({f"<unused-{number}>": pad + number for number in range(extra)}, **{"<pad>": pad + extra})
    (wide / "vocab.json").write_text(json.dumps(tokens), encoding="utf-8")
    files = {"source_spm": "source.spm", "target_spm": "target.spm", "vocab": "vocab.json"}
    MarianTokenizer(**{name: str(wide / file) for name, file in files.items()}).save_pretrained(wide)
    return f"{sum(weight.numel() for name, weight in untied.items() if 'positions' not in name) / 1e6:.0f} M parameters"


def _pass_on(weights: dict[str, Any], layers: str, depth: int) -> None:
    """Make the layers from `depth` on do nothing: what goes through their norms is normal already."""
    for name, weight in weights.items():
        added = name.startswith(layers) and int(name.removeprefix(f"{layers}.").split(".")[0]) >= depth
        if added and ("out_proj" in name or "fc2" in name):
            weight.mul_(1e-6 if weight.dim() == 2 else 0)  # not zero, of which 8-bit weights have no scale
    for kind in ("weight", "bias"):
        last = weights[f"{layers}.{depth - 1}.final_layer_norm.{kind}"]
        if depth < LAYERS:  # scale and shift move to the last of the added layers
            weights[f"{layers}.{LAYERS - 1}.final_layer_norm.{kind}"].copy_(last)
            last.fill_(kind == "weight")
