import pytest

from stages.web import page_language


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
def test_what_is_clear_is_told(text, tags):
    assert page_language.guessed(text) == tags


@pytest.mark.parametrize("text", ["", "   ", "123", "😀😀", "x", "\x00\u202e"])
def test_nothing_is_told_of_what_has_no_words(text):
    assert page_language.told(text) == ""


def test_two_languages_that_are_as_likely_are_both_told():
    assert page_language.told("a cat").count(" or ") == 1
    assert page_language.told("eine Katze schläft auf dem Sofa") == "Your words look like German."


def test_a_language_that_cannot_be_searched_in_is_told():
    czech, german = "kočka spí na pohovce", "eine Katze schläft auf dem Sofa"
    assert page_language.told(czech, frozenset(("de",))).endswith(
        "Czech. This index was not made for that: results may be far off."
    )
    assert page_language.told(german, frozenset(("de",))) == "Your words look like German."
