import pytest

from pipeline.quality.languages import confidences, own_words, script_share
from pipeline.quality.rules import fired, thresholds
from tests.worked_examples import each_example

pytest.importorskip("lingua")

EXPECTED = ("en", "de", "fr", "cs")
CAPTIONS = {
    "en": "A man in an orange hat staring at something.",
    "de": "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
    "fr": "Un homme avec un chapeau orange regardant quelque chose.",
    "cs": "Muž v oranžovém klobouku na něco zírá.",
}


@pytest.mark.parametrize("language", ["de", "fr", "cs"])
def test_a_caption_is_in_its_own_language_and_in_no_other(language):
    sure = dict(zip(CAPTIONS, confidences(list(CAPTIONS.values()), [language] * 4, EXPECTED), strict=True))
    assert sure.pop(language) > 0.7
    assert max(sure.values()) < 0.2


def test_the_score_depends_little_on_the_expected_languages():
    texts, tags = list(CAPTIONS.values()), list(CAPTIONS)
    together = pytest.approx(confidences(texts, tags, EXPECTED))
    assert [confidences([text], [tag], EXPECTED)[0] for text, tag in zip(texts, tags, strict=True)] == together
    many = (*EXPECTED, "nl", "es", "it", "pt", "da", "ca", "pl", "ja", "sv")
    assert confidences(texts, tags, many) == pytest.approx(confidences(texts, tags, EXPECTED), abs=0.05)
    unsure = "Un chien court au bord de l'eau."  # the more languages share its words, the less lingua gives to French
    assert confidences([unsure], ["fr"], EXPECTED) == pytest.approx([0.54], abs=0.01)


@each_example("neighbouring_and_common_languages_are_rivals_too", "text, tag, low, high")
def test_neighbouring_and_common_languages_are_rivals_too(text, tag, low, high):
    assert low <= confidences([text], [tag], ("en", tag))[0] <= high


@pytest.mark.parametrize(("text", "tag"), [("Taxi.", "de"), ("👍" * 30, "de"), (CAPTIONS["de"], "gsw")])
def test_texts_of_few_letters_and_unknown_languages_are_not_measured(text, tag):
    assert confidences([text], [tag], EXPECTED) == [None]


@each_example("script", "text, tag, expected")
def test_script(text, tag, expected):
    assert script_share(text, tag) == expected


@each_example("right_language", "source, text, tag")
def test_short_texts_loan_words_and_close_languages_pass(source, text, tag):
    (language,) = confidences([text], [tag], ("en", tag), [source])
    script = script_share(own_words(text, source, tag), tag)
    assert fired({"language": language, "script": script}, thresholds(tag, None)) == []


@each_example("wrong_language", "source, text, tag")
def test_another_language_is_flagged_close_or_not(source, text, tag):
    scores = {"language": confidences([text], [tag], ("en", tag), [source])[0]}
    assert fired(scores, thresholds(tag, None)) == ["wrong_language"]
