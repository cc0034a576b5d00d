import re

import numpy as np
import pytest

from pipeline.sources.scenes.content import COLOURS, KINDS, Group, Message, Sampler, Scene, draw_messages
from pipeline.sources.scenes.grammar import GRAMMARS, TARGETS, caption
from pipeline.sources.scenes.grammar.english import NOUNS
from pipeline.sources.scenes.noise import VIEWS, _disturb, changed_share, descriptions, translation

PICTURE = Scene("beach", (Group("car", "red", "small", 2), Group("fish", "blue", "large", 1)), "left")
CLIP = Scene("night", (Group("bird", "black", "large", 1), Group("hat", "white", "small", 3)), "above", "", "left", 1)
MESSAGE = Message("related", (Group("car", "red", "small", 2), Group("ball", "blue", "large", 1)), relation="left")


def many(noise, language="de", seed=0):
    rng = np.random.default_rng(1)
    said = [one for scene in Sampler(rng, 0.1).scenes(200) for one in draw_messages(scene, rng, 3)]
    return [(one, translation(one, language, noise, seed, f"{at}#en#0")) for at, one in enumerate(said)]


@pytest.mark.parametrize("language", TARGETS)
def test_without_noise_it_is_the_grammars_sentence(language):
    assert all(done.text == caption(said, language) for said, done in many(0.0, language))


def test_it_depends_on_seed_caption_and_language_alone():
    first = translation(MESSAGE, "de", 0.5, 0, "a#en#0")
    assert first == translation(MESSAGE, "de", 0.5, 0, "a#en#0")
    texts = {translation(MESSAGE, "de", 0.5, seed, f"{name}#en#0").text for seed in range(3) for name in "abc"}
    assert len(texts) > 3
    qualities = {translation(MESSAGE, language, 0.0, 0, "a").quality for language in TARGETS}
    assert len(qualities) > 1


def test_more_noise_changes_more():
    shares = []
    for noise in (0.0, 0.1, 0.2, 0.5, 1.0):
        wrong = [done.text != caption(said, "de") for said, done in many(noise)]
        shares.append(sum(wrong) / len(wrong))
    assert shares[0] == 0
    assert shares == sorted(shares) and 0.4 < shares[2] < 0.9 and shares[4] > 0.98


def test_every_kind_of_fault_occurs():
    dropped = swapped = wrong = 0
    for said, done in many(0.3):
        clean, got = caption(said, "de").lower().rstrip(".").split(), done.text.lower().rstrip(".").split()
        dropped += len(got) < len(clean) and set(got) < set(clean)
        swapped += got != clean and sorted(got) == sorted(clean)
        wrong += bool(set(got) - set(clean))
    assert min(dropped, swapped, wrong) > 20


def test_quality_is_honest_on_average_and_wrong_in_the_single_case():
    found = []
    for said, done in many(0.4):
        words, clean = done.text.rstrip(".").split(), GRAMMARS["de"].words(said)
        words[0] = words[0].lower() if words[0].lower() in clean else words[0]
        found.append((1 - changed_share(clean, words), done.quality))
    true, told = np.array(found).T
    assert ((told > 0) & (told <= 1)).all()
    assert abs((true - told).mean()) < 0.05
    assert 0.04 < (true - told).std() < 0.12
    assert np.corrcoef(true, told)[0, 1] > 0.8


def test_something_is_left_at_the_highest_level():
    rng = np.random.default_rng(0)
    assert {tuple(_disturb(["rot"], 1.0, rng)) for _ in range(50)} == {("rot",)}
    assert {len(_disturb(["ein", "Auto"], 1.0, rng)) for _ in range(200)} == {1, 2}


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ("a b c d", "a b c d", 0.0),
        ("a b c d", "a c d", 0.25),
        ("a b c d", "a c b d", 0.5),
        ("a b", "a b c d", 0.5),
        ("a b c d", "x y", 1.0),
        ("a a a", "a a", 1 / 3),
        ("a b c d e", "a x c y e", 0.4),
    ],
)
def test_changed_share(one, two, expected):
    assert changed_share(one.split(), two.split()) == pytest.approx(expected)
    assert changed_share(two.split(), one.split()) == pytest.approx(expected)


def test_a_picture_by_hand():
    assert descriptions(PICTURE, 0.0, 0, "a") == {
        "short": "On a beach, two red cars are to the left of a blue fish.",
        "detail": "The picture shows two small red cars and a large blue fish. The two cars are to the left of the "
        "fish. In the background is a beach by the sea.",
        "objects": "Two cars, one fish, a beach by the sea.",
        "attributes": "The two cars are red and small. The fish is blue and large.",
        "actions": "Nothing moves. The two cars are to the left of the fish.",
    }


def test_a_clip_by_hand():
    assert descriptions(CLIP, 0.0, 0, "a") == {
        "short": "Under the night sky, three white hats are moving to the left.",
        "detail": "The picture shows a large black bird and three small white hats. The bird is above the three hats. "
        "In the background is the night sky. The three hats are moving to the left. The bird does not move.",
        "objects": "One bird, three hats, the night sky.",
        "attributes": "The bird is black and large. The three hats are white and small.",
        "actions": "The three hats are moving to the left. The bird does not move.",
    }


def test_a_single_group_by_hand():
    told = descriptions(Scene("snow", (Group("apple", "orange", "small", 1),), place="middle"), 0.0, 0, "a")
    assert told["short"] == "There is an orange apple in the snow."
    assert told["actions"] == "Nothing moves. The apple is in the middle of the picture."


@pytest.mark.parametrize("errors", [0.1, 0.5, 1.0])
def test_errors_come_at_their_rate_in_each_view(errors):
    wrong = dict.fromkeys(("attributes", "objects"), 0)
    scenes = Sampler(np.random.default_rng(0), 0.0).scenes(600)
    for at, scene in enumerate(scenes):
        told = descriptions(scene, errors, 0, str(at))
        colour = re.search(rf"(?:is|are) ({'|'.join(COLOURS)}) and", told["attributes"])[1]
        wrong["attributes"] += colour != scene.groups[0].colour
        kinds = {NOUNS[kind][many]: kind for kind in KINDS for many in (0, 1)}
        name = told["objects"].split(",")[0].split()[1]
        wrong["objects"] += kinds[name] != scene.groups[0].kind
    for count in wrong.values():
        assert abs(count / len(scenes) - errors) < 0.06


def test_views_err_independently_and_always_alike():
    told = descriptions(PICTURE, 0.5, 0, "a")
    assert told == descriptions(PICTURE, 0.5, 0, "a")
    assert list(told) == list(VIEWS)
    assert told != descriptions(PICTURE, 0.5, 1, "a") and told != descriptions(PICTURE, 0.5, 0, "b")


def test_one_view_is_wrong_where_another_is_right():
    told = [descriptions(PICTURE, 0.2, 0, str(at)) for at in range(300)]
    red = {(" red " in one["detail"], " red and" in one["attributes"]) for one in told}
    assert {(True, False), (False, True), (True, True)} <= red


def test_texts_are_whole_sentences():
    for at, scene in enumerate(Sampler(np.random.default_rng(0), 0.4).scenes(300)):
        for text in descriptions(scene, 0.3, 0, str(at)).values():
            assert text.endswith(".") and text[0].isupper() and "  " not in text and "None" not in text
