"""BCP 47 tags at the edge, and the spellings of model families."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES as M2M100
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB

from pipeline.errors import UsageError
from pipeline.translation.tags import check_language, language_of, model_tag
from tests.worked_examples import each_example

M2M100_TAGS = [f"__{code}__" for code in M2M100["m2m100"]]


@each_example("canonical_tags", "tag, canonical")
def test_tags_have_one_spelling(tag, canonical):
    assert check_language(tag, "--languages") == canonical


@each_example("similar_tags", "tag, similar")
def test_a_similar_tag_is_suggested(tag, similar):
    with pytest.raises(UsageError) as caught:
        check_language(tag, "--languages")
    assert f"did you mean {similar}?" in str(caught.value)


@given(st.text(max_size=12) | st.from_regex(r"[a-z]{2,3}(-[A-Za-z]{2,4})?", fullmatch=True))
def test_a_tag_is_canonical_or_refused(text):
    try:
        tag = check_language(text, "--languages")
    except UsageError as error:
        assert str(error).startswith("--languages: ")
    else:
        assert check_language(tag, "--languages") == tag
        assert language_of(tag) == language_of(text)


@each_example("family_tags", "tag, nllb, m2m")
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
        code = {"ns": "nso"}.get(token.strip("_"), token.strip("_"))  # ns is not a tag
        assert model_tag(check_language(code, "--languages"), M2M100_TAGS, "__{}__") == token


@each_example("model_tags", "tag, known, template, token")
def test_tags_of_madlad_and_opus(tag, known, template, token):
    assert model_tag(tag, known.split(), template) == token
