"""Sub-words are joined to the words that they are of; what the slots read of each is found by its tokens."""

import pytest

from model.processing import LeccrProcessor, Policy
from stages.scoring.explain_words import joined, words
from tests.model.towers import processor
from tests.stages.duals import words_tokenizer


def test_a_word_ends_at_a_space_or_where_its_script_has_none():
    assert joined([None, " a", " so", "fa", ".", None]) == [("a", [1]), ("sofa.", [2, 3, 4])]
    assert joined([" 猫", "が", "。", "cat"]) == [("猫", [0]), ("が。", [1, 2]), ("cat", [3])]
    assert joined([" ", "é", "", " b"]) == [("é", [0, 1, 2]), ("b", [3])]


def test_views_lie_one_after_the_other():
    of = processor()
    views = ["a red cat", "", "ein Hund"]
    length = of.descriptions([views]).tokens.shape[-1]
    found = words(of, views, length)
    assert [(word.text, word.view) for word in found][:3] == [("a", 0), ("red", 0), ("cat", 0)]
    assert {word.view for word in found} == {0, 2}
    mask = of.descriptions([views]).mask.flatten()
    assert all(mask[place] for word in found for place in word.tokens)
    assert all(place // length == word.view for word in found for place in word.tokens)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_transformers_tokenizer_says_where_its_words_are(kind):
    of = LeccrProcessor(Policy("transformers", 32, pad_to=12 if kind == "siglip" else 0), words_tokenizer(kind))
    found = words(of, ["red greenblue dark"], 12)
    assert [word.text for word in found] == ["red", "greenblue", "dark"]
    assert [place for word in found for place in word.tokens] == list(range(kind == "clip", 4 + (kind == "clip")))


def test_of_sentence_vectors_each_token_is_a_sentence_or_phrase():
    found = words(LeccrProcessor(Policy("embedded")), ["A cat, asleep. It is grey."], 5)
    assert [word.text for word in found] == ["A cat, asleep.", "A cat", "asleep", "It is grey."]
    assert [word.tokens for word in found] == [(0,), (1,), (2,), (3,)]
