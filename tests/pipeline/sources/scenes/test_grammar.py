import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.sources.scenes.content import (
    BACKGROUNDS,
    BESIDE,
    COUNTS,
    FORMS,
    KINDS,
    MOTIONS,
    PLACES,
    RELATIONS,
    Group,
    Message,
    Sampler,
    draw_messages,
    mistaken,
)
from pipeline.sources.scenes.grammar import LANGUAGES, TARGETS, caption, check_languages, grammar


def group(text):
    """`2 red car`, or with a size `2 small red car`."""
    count, *rest = text.split()
    size, colour, kind = rest if len(rest) == 3 else ("small", *rest)
    return Group(kind, colour, size, int(count))


def message(form, *groups, **facts):
    return Message(form, tuple(map(group, groups)), any(len(text.split()) == 4 for text in groups), **facts)


# Between them they need every case, gender and agreement.
MESSAGES = [
    message("related", "2 red car", "1 blue ball", relation="left"),
    message("related", "1 large white bird", "2 small yellow apple", relation="above"),
    message("related_there", "1 black hat", "1 orange star", relation="right", background="beach"),
    message("listed", "3 green fish", "1 purple umbrella", background="snow"),
    message("shown", "1 red bird", "1 yellow fish"),
    message("placed", "1 orange apple", place="left"),
    message("placed", "4 small white mushroom", place="middle"),
    message("there", "2 black house", background="night"),
    message("moving", "3 small red fish", motion="left"),
    message("moving_there", "1 green car", background="street", motion="up"),
    message("passing", "1 black bird", "4 white tree", relation="above", motion="right"),
    message("related_there", "2 green bird", "1 red tree", relation="left", background="meadow"),
    message("beside", "2 small purple hat", "1 black boat", relation="beside"),
]
SENTENCES = {
    "en": """
Two red cars are to the left of a blue ball.
A large white bird is above two small yellow apples.
On a beach, a black hat is to the right of an orange star.
Three green fish and a purple umbrella in the snow.
The picture shows a red bird and a yellow fish.
An orange apple on the left side of the picture.
Four small white mushrooms in the middle of the picture.
There are two black houses under the night sky.
Three small red fish are moving to the left.
On a street, a green car is moving upwards.
A black bird is moving to the right above four white trees.
In a meadow, two green birds are to the left of a red tree.
Two small purple hats are next to a small black boat.
""",
    "de": """
Zwei rote Autos befinden sich links von einem blauen Ball.
Ein großer weißer Vogel befindet sich über zwei kleinen gelben Äpfeln.
Am Strand befindet sich ein schwarzer Hut rechts von einem orangefarbenen Stern.
Drei grüne Fische und ein violetter Regenschirm im Schnee.
Das Bild zeigt einen roten Vogel und einen gelben Fisch.
Ein orangefarbener Apfel auf der linken Seite des Bildes.
Vier kleine weiße Pilze in der Mitte des Bildes.
Unter dem Nachthimmel sieht man zwei schwarze Häuser.
Drei kleine rote Fische bewegen sich nach links.
Auf einer Straße bewegt sich ein grünes Auto nach oben.
Ein schwarzer Vogel bewegt sich über vier weißen Bäumen nach rechts.
Auf einer Wiese befinden sich zwei grüne Vögel links von einem roten Baum.
Zwei kleine violette Hüte befinden sich neben einem kleinen schwarzen Boot.
""",
    "cs": """
Dvě červená auta jsou nalevo od modrého míče.
Velký bílý pták je nad dvěma malými žlutými jablky.
Na pláži je černý klobouk napravo od oranžové hvězdy.
Tři zelené ryby a fialový deštník ve sněhu.
Na obrázku vidíme červeného ptáka a žlutou rybu.
Oranžové jablko v levé části obrázku.
Čtyři malé bílé houby uprostřed obrázku.
Pod noční oblohou jsou dva černé domy.
Tři malé červené ryby se pohybují doleva.
Na ulici se zelené auto pohybuje nahoru.
Černý pták se pohybuje doprava nad čtyřmi bílými stromy.
Na louce jsou dva zelení ptáci nalevo od červeného stromu.
Dva malé fialové klobouky jsou vedle malé černé lodi.
""",
    "zh": """
两辆红色的汽车在一个蓝色的球左边。
一只白色的大鸟在两个黄色的小苹果上方。
沙滩上，一顶黑色的帽子在一颗橙色的星星右边。
雪地里有三条绿色的鱼和一把紫色的雨伞。
图中可以看到一只红色的鸟和一条黄色的鱼。
图片左侧有一个橙色的苹果。
图片中间有四个白色的小蘑菇。
夜空下有两座黑色的房子。
三条红色的小鱼正在向左移动。
街道上，一辆绿色的汽车正在向上移动。
一只黑色的鸟在四棵白色的树上方，正在向右移动。
草地上，两只绿色的鸟在一棵红色的树左边。
两顶紫色的小帽子在一艘黑色的小船旁边。
""",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_by_hand(language):
    assert [caption(message, language) for message in MESSAGES] == SENTENCES[language].split("\n")[1:-1]


@pytest.mark.parametrize(
    ("text", "case", "expected"),
    [
        ("2 black star", "gen", "dvou černých hvězd"),
        ("2 white apple", "nom", "dvě bílá jablka"),
        ("3 orange bird", "acc", "tři oranžové ptáky"),
        ("4 blue bird", "nom", "čtyři modří ptáci"),
        ("3 red boat", "ins", "třemi červenými loděmi"),
        ("2 small white hat", "ins", "dvěma malými bílými klobouky"),
    ],
)
def test_czech_noun_phrases_by_hand(text, case, expected):
    assert grammar("cs").write_group(group(text), len(text.split()) == 4, case) == expected


def test_different_facts_give_different_captions():
    rng = np.random.default_rng(1)
    for scene in Sampler(rng, 0.3).scenes(200):
        for original in draw_messages(scene, rng, 3):
            other = mistaken(original, rng, 0.15)
            for language in LANGUAGES:
                assert (caption(original, language) == caption(other, language)) == (original == other)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_grammar_has_every_word(language):
    words = grammar(language)
    for table, keys in (
        (words.nouns, KINDS),
        (words.numbers, COUNTS),
        (words.templates, FORMS),
        (words.backgrounds, BACKGROUNDS),
        (words.relations, (*RELATIONS, BESIDE)),
        (words.places, PLACES),
        (words.motions, MOTIONS),
    ):
        assert set(table) == set(keys)


def test_languages_are_checked_and_put_in_order():
    assert check_languages(["cs", "de", "cs"]) == ("de", "cs")
    assert check_languages(TARGETS) == TARGETS
    for languages, word in ((["de", "fr"], "'fr'.*de, cs, zh"), (["en"], "'en'"), ([], "no language")):
        with pytest.raises(UsageError, match=word):
            check_languages(languages)
