import dataclasses
import io
import itertools
import struct

import numpy as np
import pytest
from PIL import Image

from pipeline.media import images
from pipeline.sources.scenes.content import BACKGROUNDS, Group, Sampler, Scene
from pipeline.sources.scenes.drawing import (
    FRAMES,
    FRAMES_PER_S,
    SKIES,
    VARIANTS,
    _place_objects,
    _side,
    avi,
    background,
    frames,
)
from pipeline.sources.scenes.shapes import FILLS

SIZE = 64


def drawn(scene, size=SIZE, seed=0):
    return [np.asarray(frame).astype(int) for frame in frames(scene, size, np.random.default_rng(seed))]


def where(pixels, colour):
    """Mean place (x, y) of the pixels of a colour, as shares."""
    rows, columns = np.nonzero(np.abs(pixels - FILLS[colour]).max(2) < 50)
    assert len(rows)
    return columns.mean() / pixels.shape[1], rows.mean() / pixels.shape[0]


def area(pixels, colour):
    return int((np.abs(pixels - FILLS[colour]).max(2) < 50).sum())


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_relations_can_be_seen(size, count):
    one, two = Group("ball", "red", size, count), Group("cup", "purple", size, 4 - count)
    for seed in range(5):
        (pixels,) = drawn(Scene("meadow", (one, two), "left"), seed=seed)
        assert where(pixels, "red")[0] < 0.5 < where(pixels, "purple")[0]
        (pixels,) = drawn(Scene("meadow", (one, two), "above"), seed=seed)
        assert where(pixels, "red")[1] < 0.5 < where(pixels, "purple")[1]


def test_places_can_be_seen():
    for seed in range(5):
        x = [
            where(drawn(Scene("meadow", (Group("ball", "red", "small", 2),), place=p), seed=seed)[0], "red")[0]
            for p in ("left", "middle", "right")
        ]
        assert x[0] < 0.4 < x[1] < 0.6 < x[2]


def test_sizes_and_counts_can_be_seen():
    for count in (1, 2, 3, 4):
        small, large = (
            area(drawn(Scene("meadow", (Group("ball", "red", size, count),), place="left"))[0], "red")
            for size in ("small", "large")
        )
        assert large > 2 * small
    areas = [area(drawn(Scene("night", (Group("car", "red", "small", n),), place="left"))[0], "red") for n in (1, 2)]
    assert areas[1] > 1.4 * areas[0]


@pytest.mark.parametrize("motion", ["left", "right", "up", "down"])
def test_what_moves_crosses_the_picture(motion):
    shown = drawn(Scene("meadow", (Group("ball", "red", "large", 2),), motion=motion))
    assert len(shown) == FRAMES
    axis, sign = (0 if motion in ("left", "right") else 1), (1 if motion in ("right", "down") else -1)
    places = [where(pixels, "red")[axis] * sign for pixels in shown]
    assert places == sorted(places) and places[-1] - places[0] > 0.3
    across = [where(pixels, "red")[1 - axis] for pixels in shown]
    assert max(across) - min(across) < 0.02


@pytest.mark.parametrize("mover", [0, 1])
def test_of_two_groups_one_moves_above_or_below_the_other(mover):
    pair = (Group("ball", "red", "large", 2), Group("cup", "purple", "small", 2))
    shown = drawn(Scene("meadow", pair, "above", motion="right", mover=mover))
    red, purple = ([where(pixels, colour) for pixels in shown] for colour in ("red", "purple"))
    assert all(one[1] < 0.5 < two[1] for one, two in zip(red, purple, strict=True))
    moving, still = (red, purple) if mover == 0 else (purple, red)
    assert moving[-1][0] - moving[0][0] > (0.25 if mover == 0 else 0.5)  # two large ones have less room
    assert max(x for x, _ in still) - min(x for x, _ in still) < 0.02


def test_objects_of_a_group_do_not_cover_one_another():
    rng = np.random.default_rng(0)
    for scene in Sampler(rng, 0.3).scenes(300):
        for number, group in enumerate(scene.groups):
            corners, side = _place_objects(scene, number, SIZE, rng), _side(scene, group, SIZE)
            assert len(corners) == group.count
            for one, two in itertools.combinations(corners, 2):
                assert max(abs(one[0] - two[0]), abs(one[1] - two[1])) >= 0.85 * side
            assert all(-2 <= at <= SIZE - side + 2 for corner in corners for at in corner)


def test_things_lie_a_little_otherwise_each_time():
    scene = Scene("snow", (Group("ball", "red", "small", 1),), place="left")
    places = [where(drawn(scene, seed=seed)[0], "red") for seed in range(10)]
    assert all(np.std(axis) > 0.01 for axis in zip(*places, strict=True))


def test_nothing_leaves_a_clip():
    for scene in Sampler(np.random.default_rng(0), 1.0).scenes(60):
        mover = scene.groups[scene.mover]
        if mover.colour in ("red", "purple", "yellow") and mover.kind in ("ball", "star", "car", "hat"):
            areas = [area(pixels, mover.colour) for pixels in drawn(scene)]
            assert min(areas) > 0.8 * max(areas)


def test_backgrounds_differ_and_vary():
    assert set(SKIES) == set(BACKGROUNDS)
    means = {name: np.asarray(background(name, SIZE, 0)).astype(int) for name in BACKGROUNDS}
    for one in BACKGROUNDS:
        for two in BACKGROUNDS:
            assert one == two or np.abs(means[one] - means[two]).mean() > 8, (one, two)
        assert len({background(one, SIZE, variant).tobytes() for variant in range(VARIANTS)}) == VARIANTS


def test_the_same_numbers_give_the_same_pixels_and_others_do_not():
    scene = Scene("snow", (Group("ball", "red", "small", 2),), place="left")
    assert np.array_equal(drawn(scene, seed=1), drawn(scene, seed=1))
    assert not np.array_equal(drawn(scene, seed=1), drawn(scene, seed=2))
    other = dataclasses.replace(scene, place="right")
    assert not np.array_equal(drawn(scene, seed=1), drawn(other, seed=1))


@pytest.mark.parametrize("size", [16, 64, 224])
def test_any_size(size):
    for scene in Sampler(np.random.default_rng(0), 0.5).scenes(12):
        shown = drawn(scene, size)
        assert all(pixels.shape == (size, size, 3) for pixels in shown)


def test_four_stand_two_by_two():
    rng = np.random.default_rng(0)
    scene = Scene("snow", (Group("ball", "red", "large", 4),), place="left")
    corners = _place_objects(scene, 0, SIZE, rng)
    assert all(abs(corners[at][0] - corners[at + 2][0]) < SIZE / 4 for at in (0, 1))
    assert all(corners[at + 2][1] - corners[at][1] > SIZE / 4 for at in (0, 1))
    assert all(corners[at + 1][0] > corners[at][0] for at in (0, 2))


def test_a_clip_is_a_video_to_the_pipeline():
    shown = [Image.new("RGB", (48, 32), (40 * at, 90, 200 - 30 * at)) for at in range(5)]
    stream = io.BytesIO(avi(shown))
    seen = images.probe(stream)
    assert (seen.media_type, seen.width, seen.height, seen.num_frames) == ("video", 48, 32, 5)
    assert seen.duration_s == 5 / FRAMES_PER_S
    decoded = images.frames(stream, "video", max_pixels=10_000, count=9)
    assert [frame.timestamp_s for frame in decoded] == [at / FRAMES_PER_S for at in range(5)]
    for frame, wanted in zip(decoded, shown, strict=True):
        assert np.abs(np.asarray(frame.image).astype(int) - np.asarray(wanted)).max() < 12


def test_the_index_points_at_the_frames():
    data = avi([Image.new("RGB", (16, 16), (at, 0, 0)) for at in range(4)])
    start, index = data.index(b"movi"), data.index(b"idx1")
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
    entries = [struct.unpack("<4sIII", data[at : at + 16]) for at in range(index + 8, len(data), 16)]
    assert len(entries) == 4
    for name, _flags, offset, size in entries:
        chunk = data[start + offset : start + offset + 8]
        assert chunk == name + struct.pack("<I", size)
        assert data[start + offset + 8 : start + offset + 10] == b"\xff\xd8"
