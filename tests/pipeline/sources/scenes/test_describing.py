import re

import numpy as np
import pytest

from pipeline.sources.scenes import english
from pipeline.sources.scenes.content import COLOURS, KINDS, Group, Sampler, Scene
from pipeline.sources.scenes.describing import VIEWS, descriptions

PICTURE = Scene("beach", (Group("car", "red", "small", 2), Group("fish", "blue", "large", 1)), "left")
CLIP = Scene("night", (Group("bird", "black", "large", 1), Group("hat", "white", "small", 3)), "above", "", "left", 1)


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
        kinds = {english.NOUNS[kind][many]: kind for kind in KINDS for many in (0, 1)}
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
