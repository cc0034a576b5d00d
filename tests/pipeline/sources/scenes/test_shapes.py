import itertools

import numpy as np
import pytest

from pipeline.sources.scenes.content import COLOURS, KINDS
from pipeline.sources.scenes.shapes import FILLS, SHAPES, sprite


def test_every_kind_has_a_shape_and_every_colour_a_fill():
    assert set(SHAPES) == set(KINDS)
    assert set(FILLS) == set(COLOURS)


@pytest.mark.parametrize("kind", KINDS)
def test_its_colour_is_what_is_seen_most(kind):
    for colour in COLOURS:
        pixels = np.asarray(sprite(kind, colour, 28)).reshape(-1, 4)
        solid = pixels[pixels[:, 3] > 250, :3].astype(int)
        assert len(solid) > 0.15 * 28 * 28
        near = {name: (np.abs(solid - fill).max(1) < 40).sum() for name, fill in FILLS.items()}
        others = {name: count for name, count in near.items() if name not in (colour, "white", "black")}
        assert near[colour] > 0.08 * 28 * 28 and near[colour] > 2 * max(others.values())


def test_black_has_a_light_outline_and_every_other_colour_a_dark_one():
    for colour in COLOURS:
        pixels = np.asarray(sprite("star", colour, 60)).astype(int)
        outermost = pixels[np.arange(60), (pixels[:, :, 3] > 200).argmax(1), :3][10:40]
        assert (np.median(outermost) > 180) == (colour == "black")


def test_kinds_look_unlike_one_another():
    """At 16 pixels, as in a picture of 64: any two differ in a sixth of their pixels or more."""
    shown = {kind: np.asarray(sprite(kind, "red", 16)).astype(int) for kind in KINDS}
    for one, two in itertools.combinations(KINDS, 2):
        assert (np.abs(shown[one] - shown[two]).max(2) > 60).mean() > 1 / 6, (one, two)


def test_the_handle_of_a_cup_has_the_cups_colour():
    """On a dark ground a handle of nothing but outline is lost."""
    pixels = np.asarray(sprite("cup", "red", 60)).astype(int)[:, :, :3]
    rows, columns = np.nonzero(np.abs(pixels - FILLS["red"]).max(2) < 40)
    assert columns.max() > 0.9 * 60 and np.ptp(rows[columns > 0.82 * 60]) > 0.25 * 60
