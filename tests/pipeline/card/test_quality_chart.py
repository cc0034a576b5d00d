"""The histogram of quality, read back from its pixels: which colours stand where, and how high."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from pipeline.card import quality_chart as charts
from pipeline.card.quality_chart import chart, write_chart
from pipeline.card.translations import STEPS, Survey


def survey(kept: dict[float, int], dropped: dict[float, int] | None = None) -> Survey:
    """A survey of so many pairs at each quality."""
    made = Survey()
    for index, counts in enumerate((dropped or {}, kept)):
        for quality, count in counts.items():
            made.steps[index, round(quality * STEPS)] += count
            made.pairs += count
            made.kept += count * index
    return made


def heights(picture: Image.Image, colour: str, panel: int = 0) -> list[int]:
    """Pixels of a colour in the middle of each bin of a panel, from the axis up."""
    row, column = divmod(panel, charts.COLUMNS)
    left = charts.MARGIN + column * (charts.PANEL_WIDTH + charts.GAP) + charts.LEFT
    upper = charts.HEADING + row * (charts.PANEL_HEIGHT + charts.GAP)
    wide = (charts.PANEL_WIDTH - charts.LEFT) / charts.BINS
    bars = slice((upper + charts.TOP) * charts.SCALE, (upper + charts.PANEL_HEIGHT - charts.BOTTOM) * charts.SCALE)
    pixels = np.asarray(picture)[bars] == np.array(ImageColor.getrgb(colour))
    return [int(pixels[:, round((left + wide * (i + 0.5)) * charts.SCALE)].all(-1).sum()) for i in range(charts.BINS)]


def test_bars_are_as_high_as_their_share_of_pairs():
    picture = chart({"de": survey({0.97: 60, 0.93: 30}, {0.93: 10, 0.12: 20})})
    kept, dropped = heights(picture, charts.KEPT), heights(picture, charts.DROPPED)
    assert [i for i, high in enumerate(kept) if high] == [18, 19]
    assert [i for i, high in enumerate(dropped) if high] == [2, 18]
    assert kept[19] / kept[18] == pytest.approx(2, rel=0.05)
    assert dropped[2] / dropped[18] == pytest.approx(2, rel=0.05)
    assert kept[18] / dropped[18] == pytest.approx(3, rel=0.05)
    full = (charts.PANEL_HEIGHT - charts.TOP - charts.BOTTOM) * charts.SCALE
    assert kept[19] / full == pytest.approx(0.5 / 0.6, abs=0.02)  # half of the pairs; the axis ends at 60%


def test_one_pair_of_a_million_is_seen_and_quality_one_is_in_the_last_bin():
    picture = chart({"de": survey({1.0: 1_000_000}, {0.0: 1})})
    assert heights(picture, charts.DROPPED)[0] > 0
    assert heights(picture, charts.KEPT)[19] > 300


def test_each_language_has_its_own_panel_and_scale():
    picture = chart({"cs": survey({0.5: 1}), "de": survey({0.5: 900, 0.6: 100}), "fr": survey({0.1: 3})})
    assert heights(picture, charts.KEPT, 0)[10] > 350
    assert heights(picture, charts.KEPT, 2)[2] > 350
    assert sum(map(bool, heights(picture, charts.KEPT, 1))) == 2


@pytest.mark.parametrize("count", [1, 2, 3, charts.MAX_PANELS, charts.MAX_PANELS + 7])
def test_the_picture_grows_with_the_languages_up_to_a_limit(count):
    picture = chart({f"x{i:02}": survey({0.5: 10}) for i in range(count)})
    rows = -(-min(count, charts.MAX_PANELS) // charts.COLUMNS)
    height = charts.HEADING + rows * (charts.PANEL_HEIGHT + charts.GAP) - charts.GAP + charts.MARGIN
    assert picture.height == height * charts.SCALE
    last = np.asarray(picture)[-charts.MARGIN * charts.SCALE :]
    assert (last == 255).all()  # nothing is cut off below


def test_languages_without_a_measured_quality_are_left_out(tmp_path):
    unmeasured = Survey(pairs=5, kept=5)
    assert chart({"de": unmeasured, "fr": survey({0.5: 10})}).tobytes() == chart({"fr": survey({0.5: 10})}).tobytes()
    write_chart(tmp_path / "none.png", {"de": unmeasured})
    with Image.open(tmp_path / "none.png") as picture:
        assert picture.height == charts.HEADING * charts.SCALE


@pytest.mark.parametrize(
    "count, shown",
    [(7, "7"), (999, "999"), (1_000, "1.0k"), (9_999, "9.9k"), (56_789, "56k"), (999_999, "999k"), (1_234_567, "1.2M")],
)
def test_counts_are_short_and_never_rounded_up(count, shown):
    assert charts._short(count) == shown


@pytest.mark.parametrize(
    "share, top", [(0.05, 8), (0.08, 8), (0.081, 12), (0.36, 36), (0.37, 40), (0.81, 100), (1, 100)]
)
def test_axes_end_in_quarters_of_whole_percent(share, top):
    assert charts._round_up(share) == top
