import pytest

from pipeline.quality.languages import base, confidences, facts, script_share, usual_ratio

EXPECTED = ("en", "de", "fr", "cs")
CAPTIONS = {
    "en": "A man in an orange hat staring at something.",
    "de": "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
    "fr": "Un homme avec un chapeau orange regardant quelque chose.",
    "cs": "Muž v oranžovém klobouku na něco zírá.",
}


@pytest.mark.parametrize("language", ["de", "fr", "cs"])
def test_a_caption_is_in_its_own_language_and_in_no_other(language):
    pytest.importorskip("lingua")
    sure = dict(zip(CAPTIONS, confidences(list(CAPTIONS.values()), [language] * 4, EXPECTED), strict=True))
    assert sure.pop(language) > 0.8
    assert max(sure.values()) < 0.2


def test_the_score_depends_little_on_the_expected_languages():
    pytest.importorskip("lingua")
    texts, tags = list(CAPTIONS.values()), list(CAPTIONS)
    together = confidences(texts, tags, EXPECTED)
    assert [confidences([text], [tag], EXPECTED)[0] for text, tag in zip(texts, tags, strict=True)] == pytest.approx(
        together
    )
    assert confidences(texts[::-1], tags[::-1], EXPECTED) == pytest.approx(together[::-1])
    many = (*EXPECTED, "nl", "es", "it", "pt", "da", "ca", "pl", "ja", "sv")
    assert confidences(texts, tags, many) == pytest.approx(together, abs=0.05)
    unsure = "Un chien court au bord de l'eau."  # the more languages share its words, the less lingua gives to French
    few = confidences([unsure], ["fr"], EXPECTED)
    assert few == pytest.approx([0.6], abs=0.01)
    assert few == pytest.approx(confidences([unsure], ["fr"], many))


def test_o_with_acute_does_not_rule_czech_out():
    pytest.importorskip("lingua")
    (sure,) = confidences(["Tři muži stojí na pódiu a zpívají."], ["cs"], EXPECTED)
    assert sure > 0.4


def test_neighbouring_and_common_languages_are_rivals_too():
    pytest.importorskip("lingua")
    spanish = "Dos hombres caminan por la calle con sus perros y hablan."
    slovak = "Dvaja muži kráčajú po ulici so svojimi psami a rozprávajú sa."
    assert confidences([spanish], ["pt"], ("en", "pt"))[0] < 0.3
    german = "Ein Mann steht vor einem Haus und liest eine Zeitung."
    assert confidences([slovak], ["cs"], ("en", "cs"))[0] < 0.3
    assert confidences([german], ["fr"], ("en", "fr"))[0] < 0.1  # a language that is common in corpora


@pytest.mark.parametrize(("text", "tag"), [("Taxi.", "de"), ("", "de"), ("2016", "de"), ("👍" * 30, "de")])
def test_a_text_of_few_letters_is_in_no_language(text, tag):
    pytest.importorskip("lingua")
    assert confidences([text], [tag], EXPECTED) == [None]


def test_a_language_that_lingua_does_not_know_is_not_measured():
    pytest.importorskip("lingua")
    assert confidences([CAPTIONS["de"], CAPTIONS["de"]], ["gsw", "de"], EXPECTED)[0] is None
    assert confidences([CAPTIONS["de"]], ["pt-BR"], ("en", "pt-BR"))[0] is not None


@pytest.mark.parametrize(
    ("text", "tag", "expected"),
    [
        (CAPTIONS["de"], "de", 1.0),
        ("犬が走る", "ja", 1.0),
        ("二つのケーキ", "ja", 1.0),
        ("一只狗在跑", "zh", 1.0),
        ("一只狗在跑", "de", 0.0),
        ("Две собаки", "ru", 1.0),
        ("Две собаки", "uk", 1.0),
        ("כלב רץ", "he", 1.0),
        ("كلب يجري", "ar", 1.0),
        ("หมา", "th", 1.0),
        ("개가 달린다", "ko", 1.0),
        ("Pas trči", "sr-Latn", 1.0),
        ("Pas trči", "sr", 0.0),
        ("abвг", "de", 0.5),
        ("12 !", "de", None),
        ("ߒߞߏ", "nqo", None),
    ],
)
def test_script(text, tag, expected):
    assert script_share(text, tag) == expected


def test_usual_lengths():
    assert usual_ratio("en", "de") == facts()["usual_length"]["de"] == pytest.approx(1 / usual_ratio("de", "en"))
    assert usual_ratio("en", "zh-Hant") == facts()["usual_length"]["zh"]
    assert usual_ratio("en", "tlh") == 1
    assert [base(tag) for tag in ("pt-BR", "no", "iw", "zh-Hant-TW")] == ["pt", "nb", "he", "zh"]
