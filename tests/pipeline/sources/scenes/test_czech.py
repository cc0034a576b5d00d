import pytest

from pipeline.sources.scenes import czech
from tests.pipeline.sources.scenes.told import check, group


def test_sentences_by_hand():
    check(
        "cs",
        """
        Dvě červená auta jsou nalevo od modrého míče.
        Velký bílý pták je nad dvěma malými žlutými jablky.
        Na pláži je černý klobouk napravo od oranžové hvězdy.
        Tři zelené ryby a fialový deštník ve sněhu.
        Na obrázku vidíme červeného ptáka a žlutou rybu.
        Na obrázku vidíme dva velké modré ptáky.
        Oranžové jablko v levé části obrázku.
        Čtyři malé bílé houby uprostřed obrázku.
        Pod noční oblohou jsou dva černé domy.
        Na vodě je žlutá loď.
        Tři malé červené ryby se pohybují doleva.
        Na ulici se zelené auto pohybuje nahoru.
        Černý pták se pohybuje doprava nad čtyřmi bílými stromy.
        Tři velké fialové květiny jsou pod třemi malými oranžovými hrnky.
        Na louce jsou dva zelení ptáci nalevo od červeného stromu.
        Zelený deštník je napravo od bílé hvězdy.
        Červený hrnek je pod žlutou květinou.
        Na obrázku vidíme bílý dům a modrou květinu.
        Čtyři velcí červení ptáci jsou nalevo od čtyř malých bílých lodí.
        Dva malé fialové klobouky jsou vedle malé černé lodi.
        Žlutá ryba je vedle tří zelených ptáků.
        """,
    )


@pytest.mark.parametrize(
    ("given", "case", "expected"),
    [
        ("2 black star", "gen", "dvou černých hvězd"),
        ("2 black star", "acc", "dvě černé hvězdy"),
        ("2 black star", "ins", "dvěma černými hvězdami"),
        ("3 blue house", "gen", "tří modrých domů"),
        ("4 purple apple", "gen", "čtyř fialových jablek"),
        ("2 white apple", "nom", "dvě bílá jablka"),
        ("3 orange bird", "nom", "tři oranžoví ptáci"),
        ("3 orange bird", "acc", "tři oranžové ptáky"),
        ("4 blue bird", "nom", "čtyři modří ptáci"),
        ("2 yellow bird", "gen", "dvou žlutých ptáků"),
        ("1 green bird", "ins", "zeleným ptákem"),
        ("1 red boat", "gen", "červené lodi"),
        ("3 red boat", "ins", "třemi červenými loděmi"),
        ("1 white mushroom", "acc", "bílou houbu"),
        ("4 white mushroom", "gen", "čtyř bílých hub"),
        ("1 black cup", "gen", "černého hrnku"),
        ("2 small white hat", "ins", "dvěma malými bílými klobouky"),
        ("1 large green car", "ins", "velkým zeleným autem"),
    ],
)
def test_noun_phrases_by_hand(given, case, expected):
    assert czech.noun(group(given), len(given.split()) == 4, case) == expected


def test_every_noun_has_four_cases_of_each_number():
    for gender, singular, plural in czech.NOUNS.values():
        assert len(singular.split()) == len(plural.split()) == len(czech.CASES)
        accusative = singular.split()[2]
        if gender in ("m", "n"):
            assert accusative == singular.split()[0]
        if gender == "ma":
            assert accusative == singular.split()[1]
