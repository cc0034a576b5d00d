"""Checkpoints of the families of many languages: real tokenizers and configurations, random weights."""

import json

import sentencepiece
import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    NllbTokenizer,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)
from transformers.convert_slow_tokenizer import generate_merges

from tests.marian import both_sides, toy_pairs

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]  # of the fairseq families, in the order of their ids
WIDTH = 32


def make_nllb(folder):
    folder.mkdir()
    spm = _sentencepiece(folder / "sentencepiece.bpe.model", model_type="bpe")
    scores = {spm.id_to_piece(i): spm.get_score(i) for i in range(3, spm.get_piece_size())}
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *scores])}
    tokenizer = NllbTokenizer(vocab=vocabulary, merges=generate_merges(scores, scores))
    tokenizer.save_pretrained(folder)
    _save_m2m(folder, len(tokenizer))
    return folder


def make_m2m100(folder):
    folder.mkdir()
    spm = _sentencepiece(folder / "sentencepiece.bpe.model", model_type="bpe")
    pieces = [spm.id_to_piece(i) for i in range(3, spm.get_piece_size())]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate([*SPECIAL, *pieces])}))
    files = {"vocab_file": str(folder / "vocab.json"), "spm_file": str(folder / "sentencepiece.bpe.model")}
    tokenizer = M2M100Tokenizer(**files, num_madeup_words=0)  # which random weights would put out
    tokenizer.save_pretrained(folder)
    _save_m2m(folder, len(SPECIAL) + len(pieces) + len(tokenizer.lang_token_to_id))
    return folder


def make_madlad(folder):
    folder.mkdir()
    ids = {"unk_id": 0, "pad_id": 1, "eos_id": 2, "bos_id": -1}
    tags = ["<2de>", "<2fr>", "<2zh_Hant>"]
    spm = _sentencepiece(folder / "spiece.model", user_defined_symbols=tags, **ids)
    pieces = [(spm.id_to_piece(i), spm.get_score(i)) for i in range(spm.get_piece_size())]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0)
    tokenizer.save_pretrained(folder)
    config = T5Config(
        vocab_size=len(pieces),
        d_model=WIDTH,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=0,
        tie_word_embeddings=False,
        initializer_factor=3.0,
    )
    _save(T5ForConditionalGeneration, config, folder)
    return folder


def _sentencepiece(path, **settings):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([source for source, _ in toy_pairs("de")[:600]]),
        model_prefix=str(path.with_suffix("")),
        vocab_size=100,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    path.with_suffix(".vocab").unlink()
    return sentencepiece.SentencePieceProcessor(str(path))


def _save_m2m(folder, num_tokens):
    config = M2M100Config(
        vocab_size=num_tokens,
        d_model=WIDTH,
        **both_sides(layers=2, attention_heads=2, ffn_dim=64),
        max_position_embeddings=128,
        init_std=0.5,
        scale_embedding=True,
    )
    _save(M2M100ForConditionalGeneration, config, folder)


def _save(model_class, config, folder):
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
