"""BCP 47 tags at the edge, and the spellings of model families."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES as M2M100
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB

from pipeline.errors import UsageError
from pipeline.translation.tags import (
    check_language,
    language_of,
    model_tag,
    name_language,
)

M2M100_TAGS = [f"__{code}__" for code in M2M100["m2m100"]]


@pytest.mark.parametrize(
    ("tag", "canonical"),
    [("de", "de"), ("deu", "de"), ("DE", "de"), ("zh-TW", "zh-TW"), ("zh_tw", "zh-TW"), ("cmn", "zh"), ("iw", "he"),
     ("pt-br", "pt-BR"), ("arb", "ar"), ("yue", "yue"), ("sr-Latn", "sr-Latn"), ("nb", "nb"), ("zho", "zh")],
)  # fmt: skip
def test_tags_have_one_spelling(tag, canonical):
    assert check_language(tag, "--languages") == canonical


@pytest.mark.parametrize(
    ("tag", "near"),
    [("gr", "el (Greek)"), ("jp", "ja (Japanese)"), ("cz", "cs (Czech)"), ("german", "de (German)"),
     ("Deutsch", "de (German)"), ("us", "en (English)")],
)  # fmt: skip
def test_a_similar_tag_is_suggested(tag, near):
    with pytest.raises(UsageError) as caught:
        check_language(tag, "--languages")
    assert str(caught.value) == f"--languages: {tag!r} is not a language tag: did you mean {near}?"


def test_tags_have_names():
    assert name_language("dee") == "dee (Dewoin)"
    assert name_language("zh-Hant-TW") == "zh-Hant-TW (Chinese, Traditional, Taiwan)"


@pytest.mark.parametrize("tag", ["", "qq", "und", "mul", "x-mine", "de-", "\ud800", "pt_PTT", "123", "\x00de"])
def test_without_a_suggestion_the_message_shows_what_tags_look_like(tag):
    with pytest.raises(UsageError, match="give a BCP 47 tag such as de"):
        check_language(tag, "--languages")


@given(st.text(max_size=12) | st.from_regex(r"[a-z]{2,3}(-[A-Za-z]{2,4})?", fullmatch=True))
def test_a_tag_is_canonical_or_refused(text):
    try:
        tag = check_language(text, "--languages")
    except UsageError as error:
        assert str(error).startswith("--languages: ")
    else:
        assert check_language(tag, "--languages") == tag
        assert language_of(tag) == language_of(text)


@pytest.mark.parametrize(
    ("tag", "nllb", "m2m"),
    [("de", "deu_Latn", "__de__"), ("zh", "zho_Hans", "__zh__"), ("zh-TW", "zho_Hant", "__zh__"),
     ("zh-Hant", "zho_Hant", "__zh__"), ("ar", "arb_Arab", "__ar__"), ("fa", "pes_Arab", "__fa__"),
     ("cs", "ces_Latn", "__cs__"), ("pt-BR", "por_Latn", "__pt__"), ("sr", "srp_Cyrl", "__sr__"),
     ("nb", "nob_Latn", "__no__"), ("no", "nob_Latn", "__no__"), ("fil", "tgl_Latn", "__tl__"),
     ("et", "est_Latn", "__et__"), ("lv", "lvs_Latn", "__lv__"), ("sw", "swh_Latn", "__sw__"),
     ("ms", "zsm_Latn", "__ms__"),
     ("he", "heb_Hebr", "__he__"), ("ja", "jpn_Jpan", "__ja__"), ("ko", "kor_Hang", "__ko__"),
     ("uz", "uzn_Latn", "__uz__"),
     ("yue", "yue_Hant", None), ("tlh", None, None), ("sr-Latn", None, "__sr__")],
)  # fmt: skip
def test_tags_of_nllb_and_m2m100(tag, nllb, m2m):
    assert model_tag(tag, NLLB, "{}") == nllb
    assert model_tag(tag, M2M100_TAGS, "__{}__") == m2m


def test_every_language_of_nllb_and_m2m100_can_be_named():
    for token in NLLB:
        language, script = token.split("_")
        tag = model_tag(f"{language}-{script}", NLLB, "{}")
        assert tag and tag.split("_")[1] == script, token
        assert language_of(tag.split("_")[0]) == language_of(language), token
    for token in M2M100_TAGS:
        code = {"ns": "nso"}.get(token.strip("_"), token.strip("_"))  # ns is no tag
        assert model_tag(check_language(code, "--languages"), M2M100_TAGS, "__{}__") == token


@pytest.mark.parametrize(
    ("tag", "known", "template", "token"),
    [("de", "<2de> <2fr>", "<2{}>", "<2de>"), ("zh-TW", "<2zh> <2zh_Hant>", "<2{}>", "<2zh_Hant>"),
     ("zh", "<2zh> <2zh_Hant>", "<2{}>", "<2zh>"), ("de", ">>deu<< >>fra<<", ">>{}<<", ">>deu<<"),
     ("zh-TW", ">>cmn_Hans<< >>cmn_Hant<<", ">>{}<<", ">>cmn_Hant<<"),
     ("pt-BR", ">>por<< >>pt_br<<", ">>{}<<", ">>pt_br<<"), ("cs", ">>deu<<", ">>{}<<", None)],
)  # fmt: skip
def test_tags_of_madlad_and_opus(tag, known, template, token):
    assert model_tag(tag, known.split(), template) == token
