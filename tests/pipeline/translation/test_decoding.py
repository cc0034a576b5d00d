"""What engines have in common, with a model whose answers are written down."""

import re

import pytest

from pipeline.translation.decoding import MAX_SOURCE_TOKENS, loops, token_limit, translate
from pipeline.translation.translator import Translated, Untranslated, plain


class Written:
    """One token a word. Answers `answers[text]`, a pair for a careful second answer, else the words in capitals."""

    def __init__(self, answers=(), positions=None):
        self.answers, self.positions, self.asked = dict(answers), positions, []

    def encode(self, texts, source, target):
        return [text.split() for text in texts]

    def generate(self, groups, target, careful):
        self.asked += [(len(rows), limit, careful) for rows, limit in groups]
        return [[self._answer(" ".join(row), careful) for row in rows] for rows, _ in groups]

    def _answer(self, text, careful):
        found = self.answers.get(text, Translated(text.upper()))
        return found[careful] if isinstance(found, tuple) else found


def test_each_sentence_has_its_translation_in_order():
    sentences = ["a b c", "", "a", "  b\n", "...", "a b"]
    model = Written({"...": Translated("something"), "": Translated("something")})  # as models do
    assert [result.text for result in translate(model, sentences, "en", "de")] == [
        "A B C",
        "",
        "A",
        "B",
        "...",
        "A B",
    ]


def test_sentences_of_like_length_share_a_limit():
    model = Written()
    translate(model, ["w " * n for n in (3, 20, 16, 17, 100)], "en", "de")
    assert model.asked == [(1, 272, False), (2, 80, False), (2, 48, False)]


@pytest.mark.parametrize(
    ("tokens", "positions", "limit"), [(1, None, 48), (16, None, 48), (17, None, 80), (33, 512, 144), (256, 512, 510)]
)
def test_limits_grow_with_the_source(tokens, positions, limit):
    assert token_limit(tokens, positions) == limit


LOOP = "ein Hund ein Hund ein Hund"


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (Translated(LOOP), Translated("ein Hund"), "ein Hund"),
        (Translated(LOOP), Translated("ein", finished=False), LOOP),
        (Translated("ein", finished=False), Translated("ein Hund"), "ein Hund"),
        (Translated("ein", finished=False), Translated("zwei", finished=False), "ein"),
        (Translated(LOOP, finished=False), Translated("zwei", finished=False), "zwei"),
        (Translated(""), Translated("ein Hund"), "ein Hund"),
        (Untranslated("engine", "it failed"), Translated("ein Hund"), "ein Hund"),
    ],
)
def test_what_loops_or_does_not_end_is_decoded_again(first, second, kept):
    model = Written({"a dog": (first, second)})
    found = translate(model, ["a dog", "a man"], "en", "de")
    assert [result.text for result in found] == [kept, "A MAN"]
    assert model.asked == [(2, 48, False), (1, 48, True)]
    assert found[0] in (first, second)


def test_a_source_that_repeats_may_be_translated_so():
    model = Written({"no no no": Translated("nein nein nein")})
    assert translate(model, ["no no no"], "en", "de") == [Translated("nein nein nein")]
    assert len(model.asked) == 1


def test_long_sentences_are_cut_to_what_the_model_takes():
    model = Written(positions=34)
    text = "a dog runs, " * 50
    (found,) = translate(model, [text], "en", "de")
    assert found == Translated(text.upper().strip())
    assert sum(rows for rows, _, _ in model.asked) > 4
    assert all(limit <= 32 for _, limit, _ in model.asked)
    (found,) = translate(Written(), ["w " * (MAX_SOURCE_TOKENS + 1)], "en", "de")
    assert found.text.split() == ["W"] * (MAX_SOURCE_TOKENS + 1)


def test_a_part_that_fails_fails_its_sentence():
    parts = {"a bb": Untranslated("engine", "it failed")}
    assert translate(Written(parts, positions=4), ["a bb c d", "c"], "en", "de") == [parts["a bb"], Translated("C")]


@pytest.mark.parametrize(
    ("text", "does"),
    [
        ("a dog a dog a dog", True),
        ("Ein Hund, ein Hund, ein Hund.", True),
        ("the the the", True),
        ("er geht und geht und geht und geht weiter", True),
        ("狗在跑狗在跑狗在跑狗在跑狗在跑狗在跑", True),
        ("a dog a dog", False),
        ("a dog a dog in a park", False),
        ("A dog runs and a man walks and a child sits.", False),
        ("10 10 10", False),
        (". . . .", False),
        ("", False),
        ("一只狗在公园里跑，一个人坐在长椅上看着它。", False),
    ],
)
def test_loops_are_phrases_three_times_on_end(text, does):
    assert loops(text) is does


def test_plain_text_keeps_what_can_be_read():
    assert plain("a\x00b\ud800c\u202ed😀\r\n") == "a bc\u202ed😀"
    assert not re.search("[\ud800-\udfff]", plain("\ud83d\ude00"))
