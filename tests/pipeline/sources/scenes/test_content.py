import dataclasses
from collections import Counter

import numpy as np
import pytest

from pipeline.sources.scenes.content import (
    COLOURS,
    FORMS,
    KINDS,
    OPPOSITE,
    PAIR_COUNTS,
    Group,
    Sampler,
    Scene,
    changed,
    draw_messages,
    forms_of,
    generator,
    message,
    mistaken,
)

PAIR = (Group("car", "red", "small", 2), Group("star", "blue", "large", 1))


def sampled(count, videos=0.0, seed=0):
    return Sampler(np.random.default_rng(seed), videos).scenes(count)


def facts(scene):
    """What a scene says, one by one."""
    told = {("background", scene.background), ("place", scene.place), ("motion", scene.motion)}
    for at, group in enumerate(scene.groups):
        told |= {(at, *fact) for fact in dataclasses.asdict(group).items()}
    return told


def test_no_scene_comes_twice_whatever_its_split():
    sampler = Sampler(np.random.default_rng(3), 0.3)
    scenes = [scene for count in (200, 100, 300) for scene in sampler.scenes(count)]
    assert len(scenes) == len(set(scenes)) == 600


def test_scenes_have_one_spelling():
    for scene in sampled(400, videos=0.4):
        assert len(scene.groups) == (2 if scene.relation else 1)
        assert scene.relation in ("", "left", "above")  # not right or below: that would be the same scene again
        assert (scene.place == "") == bool(scene.relation or scene.motion)
        assert scene.mover == 0 or scene.motion  # nothing moves, so nothing tells which
        assert len({group.kind for group in scene.groups}) == len(scene.groups)
        if scene.relation:
            assert all(group.count in PAIR_COUNTS for group in scene.groups)
        if scene.relation and scene.motion:
            assert scene.groups[scene.mover].count <= 2
            assert scene.motion in ("left", "right")


def test_half_of_the_scenes_differ_from_another_in_one_fact():
    scenes = sampled(300)
    near = 0
    for at, scene in enumerate(scenes[1:], 1):
        before = [facts(other) for other in scenes[max(0, at - 12) : at]]
        near += any(1 <= len(facts(scene) - other) <= 2 for other in before)
    assert 90 < near < 210


def test_every_kind_and_colour_is_common():
    groups = [group for scene in sampled(1500) for group in scene.groups]
    for values, found in ((KINDS, [g.kind for g in groups]), (COLOURS, [g.colour for g in groups])):
        counts = Counter(found)
        assert set(counts) == set(values)
        assert min(counts.values()) > 0.5 * len(groups) / len(values)


def test_the_share_of_clips_is_what_was_asked_for():
    assert not any(scene.motion for scene in sampled(200))
    assert all(scene.motion for scene in sampled(200, videos=1.0))
    assert 60 < sum(bool(scene.motion) for scene in sampled(300, videos=0.3)) < 130


def test_a_changed_scene_is_another_one():
    rng = np.random.default_rng(0)
    for scene in sampled(200, videos=0.3):
        other = changed(scene, rng)
        same_colours = scene.relation and scene.groups[0].colour == scene.groups[1].colour  # trading changes nothing
        assert other != scene or same_colours


def test_truth_names_every_object_and_both_relations():
    scene = Scene("snow", PAIR, "above", "", "left", 1)
    assert scene.truth() == {
        "background": "snow",
        "objects": [
            {"kind": "car", "colour": "red", "size": "small", "count": 2, "position": "above", "motion": ""},
            {"kind": "star", "colour": "blue", "size": "large", "count": 1, "position": "below", "motion": "left"},
        ],
        "relations": [[0, "above", 1], [1, "below", 0]],
    }


def test_generators_depend_on_every_part():
    first = [float(generator(*parts).random()) for parts in ((0, "a", "de"), (1, "a", "de"), (0, "b", "de"), (0, "a"))]
    assert len(set(first)) == 4
    assert float(generator(0, "a", "de").random()) == first[0]


def is_true(said, scene):
    """Whether a message is true of a scene; told without the code that makes them."""
    if not set(said.groups) <= set(scene.groups):
        return False
    if said.relation == "beside":
        if scene.relation != "left" or set(said.groups) != set(scene.groups):
            return False
    elif said.relation:
        here = scene.relation, scene.groups
        turned = OPPOSITE[scene.relation], tuple(reversed(scene.groups))
        if (said.relation, said.groups) not in (here, turned):
            return False
    if said.motion and (said.motion != scene.motion or said.groups[0] != scene.groups[scene.mover]):
        return False
    return said.background in ("", scene.background) and said.place in ("", scene.place)


def test_every_message_is_true_and_of_another_form():
    found = set()
    rng = np.random.default_rng(2)
    for scene in sampled(400, 0.4, 1):
        said = draw_messages(scene, rng, 3)
        assert len({one.form for one in said}) == 3
        assert all(is_true(one, scene) for one in said)
        found |= {one.form for one in said}
    assert found == set(FORMS)


def test_what_sets_a_scene_apart_is_always_said():
    rng = np.random.default_rng(2)
    for scene in sampled(300, 0.4, 1):
        said = draw_messages(scene, rng, 2)
        for fact in ("motion", "place", "relation"):
            if getattr(scene, fact) and not (scene.motion and fact == "relation"):
                assert any(getattr(one, fact) not in ("", "beside") for one in said)


def test_both_groups_come_first_by_turns():
    rng = np.random.default_rng(0)
    scene = Scene("snow", PAIR, "left")
    said = [one for _ in range(40) for one in draw_messages(scene, rng, 3)]
    assert {one.groups for one in said} == {scene.groups, scene.groups[::-1]}
    assert {one.sized for one in said} == {True, False}
    turned = message(scene, "related", sized=False, turned=True)
    assert (turned.groups[0].kind, turned.relation) == ("star", "right")


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_mistakes_come_at_their_rate(rate):
    rng = np.random.default_rng(4)
    wrong = total = 0
    for scene in sampled(300, 0.3, 1):
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
    for scene in sampled(100, 1.0, 1):
        if scene.relation:
            other = mistaken(message(scene, "passing", sized=False, turned=False), rng, 1.0)
            assert other.relation in ("above", "below") and other.motion in ("left", "right")


def test_what_is_mistaken_for_beside_is_neither_left_nor_right():
    rng = np.random.default_rng(4)
    scene = Scene("snow", PAIR, "left")
    said = message(scene, "beside", sized=False, turned=True)
    assert {mistaken(said, rng, 1.0).relation for _ in range(40)} == {"above", "below"}
    above = Scene("snow", scene.groups, "above")
    assert "beside" not in forms_of(above)
