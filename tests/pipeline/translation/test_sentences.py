"""Texts are cut into sentences and put together again; nothing is lost between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.translation.sentences import MAX_BYTES, join, split
from tests.worked_examples import each_example

LANGUAGES = st.sampled_from(["en", "de", "zh", "ja", "ar", "th", "pt-BR", "tlh"])
TEXTS = st.text(st.sampled_from("ab Z.!?,。、！\n\t\u202e😀ש\ud800'\"3"), max_size=200) | st.text(
    st.characters(), max_size=80
)


@given(text=TEXTS, language=LANGUAGES)
def test_parts_give_the_text_back(text, language):
    parts = split(text, language)
    assert "".join(sentence + gap for sentence, gap in parts) == text
    assert not any(gap.strip() for _, gap in parts)
    assert all(sentence and sentence == sentence.strip() for sentence, _ in parts[1:])


@pytest.mark.parametrize("word", ["walks ", "walks, ", "走", "😀", "x", "走，"])
def test_long_texts_are_cut_to_what_engines_take(word):
    sizes = [len(sentence.encode("utf-8")) for sentence, _ in split(word * (20_000 // len(word)), "en")]
    assert max(sizes) <= MAX_BYTES and min(sizes) > MAX_BYTES // 5


def test_where_sentences_end():
    assert split("A dog runs. A man sits.\n\nDr. Smith sees 3.5 cats!", "en") == [
        ("A dog runs.", " "),
        ("A man sits.", "\n\n"),
        ("Dr. Smith sees 3.5 cats!", ""),
    ]
    assert [sentence for sentence, _ in split("一只狗在跑。一个人坐着。", "zh")] == ["一只狗在跑。", "一个人坐着。"]
    assert split("Why?\x1fSo. \x1f", "en") == [("Why?", "\x1f"), ("So.", " \x1f")]


@each_example("joined", "parts, target, text")
def test_translations_are_joined_the_way_the_target_language_does(parts, target, text):
    assert join(parts, target) == text
