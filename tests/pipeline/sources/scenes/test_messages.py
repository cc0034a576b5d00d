import numpy as np
import pytest

from pipeline.sources.scenes.content import Group, Sampler, Scene
from pipeline.sources.scenes.messages import FORMS, forms_of, message, messages, mistaken

OPPOSITE = {"left": "right", "above": "below"}


def sampled(count, videos):
    return Sampler(np.random.default_rng(1), videos).scenes(count)


def is_true(said, scene):
    """Whether a message is true of a scene; told without the code that makes them."""
    if not set(said.groups) <= set(scene.groups):
        return False
    if said.relation == "beside":
        if scene.relation != "left" or set(said.groups) != set(scene.groups):
            return False
    elif said.relation:
        here = scene.relation, scene.groups
        turned = OPPOSITE.get(scene.relation), tuple(reversed(scene.groups))
        if (said.relation, said.groups) not in (here, turned):
            return False
    if said.motion and (said.motion != scene.motion or said.groups[0] != scene.groups[scene.mover]):
        return False
    return said.background in ("", scene.background) and said.place in ("", scene.place)


def test_every_message_is_true_and_of_another_form():
    found = set()
    rng = np.random.default_rng(2)
    for scene in sampled(400, 0.4):
        said = messages(scene, rng, 3)
        assert len({one.form for one in said}) == 3
        assert all(is_true(one, scene) for one in said)
        found |= {one.form for one in said}
    assert found == set(FORMS)


def test_what_sets_a_scene_apart_is_always_said():
    rng = np.random.default_rng(2)
    for scene in sampled(300, 0.4):
        said = messages(scene, rng, 2)
        for fact in ("motion", "place", "relation"):
            if getattr(scene, fact) and not (scene.motion and fact == "relation"):
                assert any(getattr(one, fact) not in ("", "beside") for one in said)


def test_both_groups_come_first_by_turns():
    rng = np.random.default_rng(0)
    scene = Scene("snow", (Group("car", "red", "small", 2), Group("star", "blue", "large", 1)), "left")
    said = [one for _ in range(40) for one in messages(scene, rng, 3)]
    assert {one.groups for one in said} == {scene.groups, scene.groups[::-1]}
    assert {one.sized for one in said} == {True, False}
    turned = message(scene, "related", sized=False, turned=True)
    assert (turned.groups[0].kind, turned.relation) == ("star", "right")


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_mistakes_come_at_their_rate(rate):
    rng = np.random.default_rng(4)
    wrong = total = 0
    for scene in sampled(300, 0.3):
        for form in forms_of(scene):
            said = message(scene, form, sized=True, turned=False)
            other = mistaken(said, rng, rate)
            assert other.form == said.form and len(other.groups) == len(said.groups)
            for one, two in zip(said.groups, other.groups, strict=True):
                for name in ("kind", "colour", "size", "count"):
                    wrong += getattr(one, name) != getattr(two, name)
                    total += 1
            for name in ("background", "relation", "place", "motion"):
                assert bool(getattr(other, name)) == bool(getattr(said, name)), name
                if getattr(said, name):
                    wrong += getattr(other, name) != getattr(said, name)
                    total += 1
    assert abs(wrong / total - rate) < 0.03
    assert rate not in (0.0, 1.0) or wrong / total == rate


def test_a_mistaken_clip_stays_one_that_can_be():
    rng = np.random.default_rng(4)
    for scene in sampled(100, 1.0):
        if scene.relation:
            other = mistaken(message(scene, "passing", sized=False, turned=False), rng, 1.0)
            assert other.relation in ("above", "below") and other.motion in ("left", "right")


def test_what_is_mistaken_for_beside_is_neither_left_nor_right():
    rng = np.random.default_rng(4)
    scene = Scene("snow", (Group("car", "red", "small", 2), Group("star", "blue", "large", 1)), "left")
    said = message(scene, "beside", sized=False, turned=True)
    assert {mistaken(said, rng, 1.0).relation for _ in range(40)} == {"above", "below"}
    above = Scene("snow", scene.groups, "above")
    assert "beside" not in forms_of(above)
