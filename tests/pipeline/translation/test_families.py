"""Tokenizers of converted models: their vocabulary, and text to tokens and back."""

import json

import pytest
import sentencepiece

from pipeline.errors import UsageError
from pipeline.translation.checkpoints import convert_model
from pipeline.translation.ctranslate import ModelTokenizer, read_vocabulary


def test_tokens_that_only_the_source_side_has_decode_to_text(marian, cache):
    tokenizer = ModelTokenizer(convert_model(marian, cache, "int8"))
    source, target = (
        sentencepiece.SentencePieceProcessor(str(marian / f"{side}.spm")) for side in ("source", "target")
    )
    own = [source.id_to_piece(i) for i in range(3, source.get_piece_size())]
    foreign = next(piece for piece in own if piece.startswith("▁") and target.is_unknown(target.piece_to_id(piece)))
    rows = [[foreign, *target.encode("rennt", out_type=str), "</s>"], [], ["</s>"]]
    assert tokenizer.decode(rows) == [f"{foreign[1:]} rennt", "", ""]
    assert tokenizer.decode([]) == [] and tokenizer.prefix("de") == []


def test_vocabularies_of_older_and_newer_converters(tmp_path):
    with pytest.raises(UsageError, match=r"shared_vocabulary.json cannot be read"):
        read_vocabulary(tmp_path)
    (tmp_path / "shared_vocabulary.txt").write_text("</s>\n<unk>\na\n")
    assert read_vocabulary(tmp_path)[:3] == ["</s>", "<unk>", "a"]
    (tmp_path / "source_vocabulary.json").write_text(json.dumps(["</s>", "b"]))
    assert read_vocabulary(tmp_path) == ["</s>", "b"]
