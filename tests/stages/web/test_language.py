import pytest

from stages.web.language import guess_languages, language_note


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("eine Katze schläft auf dem Sofa", ["de"]),
        ("一只猫", ["zh"]),
        ("猫がいる", ["ja"]),
        ("قطة سوداء", ["ar"]),
        ("кіт їсть", ["uk"]),
    ],
)
def test_a_clear_language_is_named(text, tags):
    assert guess_languages(text) == tags


@pytest.mark.parametrize("text", ["", "   ", "123", "😀😀", "x", "\x00\u202e"])
def test_there_is_no_note_without_words(text):
    assert language_note(text) == ""


def test_two_languages_that_are_as_likely_are_both_named():
    assert language_note("a cat").count(" or ") == 1
    assert language_note("eine Katze schläft auf dem Sofa") == "Your words look like German."


def test_a_language_that_the_index_does_not_know_is_pointed_out():
    czech, german = "kočka spí na pohovce", "eine Katze schläft auf dem Sofa"
    assert language_note(czech, frozenset(("de",))).endswith("results may be far off.")
    assert language_note(german, frozenset(("de",))) == "Your words look like German."
