"""Tokens of converted models: which vocabulary they come from, which text they give."""

import json

import pytest
import sentencepiece

from pipeline.errors import UsageError
from pipeline.translation.conversion import converted
from pipeline.translation.families import M2M100, MADLAD, MARIAN, NLLB, Tokens, family_of, vocabularies


@pytest.fixture
def tokens(marian, cache):
    return Tokens(converted(marian, cache, "int8"))


def test_text_comes_back_from_its_own_side(tokens, marian):
    spm = sentencepiece.SentencePieceProcessor(str(marian / "target.spm"))
    text = "Eine Frau rennt am Fenster."
    assert tokens.decode([[*spm.encode(text, out_type=str), "</s>"], [], ["</s>"]]) == [text, "", ""]
    assert tokens.decode([]) == []


def test_a_token_of_the_source_side_alone_is_text_too(tokens, marian):
    source, target = (
        sentencepiece.SentencePieceProcessor(str(marian / f"{side}.spm")) for side in ("source", "target")
    )
    own = [source.id_to_piece(i) for i in range(3, source.get_piece_size())]
    foreign = next(piece for piece in own if piece.startswith("▁") and target.is_unknown(target.piece_to_id(piece)))
    ends = target.encode("rennt", out_type=str)
    assert tokens.decode([[foreign, *ends]]) == [f"{foreign[1:]} rennt"]


def test_sources_end_and_have_no_language_token_where_the_model_has_none(tokens):
    (row,) = tokens.encode(["A man."], "en", "de")
    assert row[-1] == "</s>" and "".join(row[:-1]).replace("▁", " ").strip() == "A man."
    assert tokens.tags == [] and tokens.prefix("de") == []


@pytest.mark.parametrize(
    ("token", "family"),
    [("deu_Latn", NLLB), ("__de__", M2M100), ("<2zh_Hant>", MADLAD), (">>deu<<", MARIAN), ("a", MARIAN)],
)
def test_the_family_is_told_by_the_language_tokens(tmp_path, token, family):
    with pytest.raises(UsageError, match=f"has no {family.spm[0]}, with which a model of the family {family.name}"):
        family_of(tmp_path, ["</s>", token])
    for name in family.spm:
        (tmp_path / name).touch()
    assert family_of(tmp_path, ["</s>", token]) is family


def test_vocabularies_of_older_and_newer_converters(tmp_path):
    with pytest.raises(UsageError, match=r"no vocabulary \(shared_vocabulary.json, or source_vocabulary.json\)"):
        vocabularies(tmp_path)
    (tmp_path / "shared_vocabulary.txt").write_text("</s>\n<unk>\na\n")
    assert vocabularies(tmp_path)[0][:3] == vocabularies(tmp_path)[1][:3] == ["</s>", "<unk>", "a"]
    (tmp_path / "source_vocabulary.json").write_text(json.dumps(["</s>", "b"]))
    (tmp_path / "target_vocabulary.json").write_text(json.dumps(["</s>", "c"]))
    assert vocabularies(tmp_path) == (["</s>", "b"], ["</s>", "c"])
