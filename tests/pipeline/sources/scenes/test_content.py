import dataclasses
from collections import Counter

import numpy as np

from pipeline.sources.scenes.content import (
    COLOURS,
    KINDS,
    PAIR_COUNTS,
    Group,
    Sampler,
    Scene,
    changed,
    generator,
)


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
    scene = Scene("snow", (Group("car", "red", "small", 2), Group("star", "blue", "large", 1)), "above", "", "left", 1)
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
