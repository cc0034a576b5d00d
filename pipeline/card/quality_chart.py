"""The figure of a card's translations: a histogram of `quality` a language, kept and dropped pairs in two colours.

Drawn with Pillow's own font, so that its bytes depend on the corpus alone. Sizes are in points of SCALE pixels.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from pipeline.card.translations import Survey
from pipeline.corpus.table import atomic_writer

SCALE = 2
BINS = 20
COLUMNS, MAX_PANELS = 2, 40  # 40 languages are 6,700 points of height: what viewers still open
MARGIN, GAP, HEADING = 24, 28, 84
PANEL_WIDTH, PANEL_HEIGHT = 700, 310
LEFT, TOP, BOTTOM = 52, 64, 46  # within a panel, around its bars
INK, FAINT, LINE, PAPER = "#1a1a1a", "#5b6066", "#e3e5e8", "#ffffff"
KEPT, DROPPED = "#3d74ad", "#d9792b"
KEPT_INK, DROPPED_INK = "#2c5a8a", "#a9520f"


def write_chart(path: Path, surveys: Mapping[str, Survey]) -> None:
    """Draw the figure into `path`, a PNG; the same surveys give the same bytes."""
    with atomic_writer(path) as stream:
        chart(surveys).save(stream, "PNG", optimize=True)


def chart(surveys: Mapping[str, Survey]) -> Image.Image:
    """One panel a language, in the order given, at most MAX_PANELS of them, as an RGB picture."""
    shown = [(language, survey) for language, survey in surveys.items() if survey.measured][:MAX_PANELS]
    columns = max(1, min(COLUMNS, len(shown)))
    rows = -(-len(shown) // columns)
    width = 2 * MARGIN + columns * (PANEL_WIDTH + GAP) - GAP
    height = HEADING + rows * (PANEL_HEIGHT + GAP) - GAP + MARGIN
    picture = Image.new("RGB", (width * SCALE, max(HEADING, height) * SCALE), PAPER)
    pen = _Pen(picture)
    left_out = sum(1 for survey in surveys.values() if survey.measured) - len(shown)
    pen.text(MARGIN, 18, "Quality of the translations", 22, INK)
    _legend(pen, MARGIN, 52, f" ({left_out:,} more languages: see the tables)" if left_out else "")
    for number, (language, survey) in enumerate(shown):
        row, column = divmod(number, columns)
        left, upper = MARGIN + column * (PANEL_WIDTH + GAP), HEADING + row * (PANEL_HEIGHT + GAP)
        _panel(pen, left, upper, language, survey)
    return picture


def _legend(pen: "_Pen", left: float, upper: float, remark: str) -> None:
    for colour, label in ((KEPT, "kept"), (DROPPED, "dropped by at least one rule")):
        pen.box(left, upper + 1, left + 13, upper + 14, colour)
        pen.text(left + 19, upper, label, 14, INK)
        left += 19 + pen.width(label, 14) + 24
    pen.text(left, upper, f"numbers over the bars are pairs; each language has its own scale{remark}", 14, FAINT)


def _panel(pen: "_Pen", left: float, upper: float, language: str, survey: Survey) -> None:
    bars, dropped = survey.histogram(BINS), survey.pairs - survey.kept
    top = _round_up(max(map(sum, zip(*bars, strict=True))) / survey.measured)
    told = f"{survey.pairs:,} pairs · {dropped:,} dropped ({dropped / survey.pairs:.1%}) · median {survey.median:.2f}"
    pen.text(left, upper, language, 20, INK)
    pen.text(left + pen.width(language, 20) + 14, upper + 5, told, 14, FAINT)
    x0, x1 = left + LEFT, left + PANEL_WIDTH
    y0, y1 = upper + PANEL_HEIGHT - BOTTOM, upper + TOP
    pen.text(left, upper + 32, "share of pairs", 12, FAINT)
    for tick in range(5):
        y = y0 - (y0 - y1) * tick / 4
        pen.box(x0, y, x1, y + 0.5, FAINT if tick == 0 else LINE)
        pen.text(x0 - 8, y - 8, f"{top * tick // 4}%", 12, FAINT, "right")
    for tick in range(BINS + 1):
        x = x0 + (x1 - x0) * tick / BINS
        pen.box(x - 0.25, y0, x + 0.25, y0 + (6 if tick % 4 == 0 else 3), FAINT)
        if tick % 4 == 0:
            pen.text(x, y0 + 8, f"{tick / BINS:.1f}", 12, FAINT, "centre")
    pen.text((x0 + x1) / 2, y0 + 25, "quality", 13, FAINT, "centre")
    wide = (x1 - x0) / BINS
    for index, (kept, dropped) in enumerate(zip(*bars, strict=True)):
        _bar(pen, x0 + wide * index, wide, y0, (y0 - y1) * 100 / top / survey.measured, kept, dropped)


def _bar(pen: "_Pen", left: float, wide: float, floor: float, per_pair: float, kept: int, dropped: int) -> None:
    """Kept pairs stand on the floor, dropped ones on them; the numbers of both over the bar, in their colours."""
    y = floor
    for count, colour in ((kept, KEPT), (dropped, DROPPED)):
        if count:
            high = max(1, count * per_pair)  # even one pair of a million is to be seen
            pen.box(left + 1.5, y - high, left + wide - 1.5, y, colour)
            y -= high
    for count, colour in ((kept, KEPT_INK), (dropped, DROPPED_INK)):
        if count:
            y -= 14
            pen.text(left + wide / 2, y, _short(count), 11.5, colour, "centre")


def _short(count: int) -> str:
    """At most four characters.

    >>> [_short(count) for count in (7, 999, 1_234, 56_789, 1_234_567)]
    ['7', '999', '1.2k', '56k', '1.2M']
    """
    for unit, size in (("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)):
        if count >= size:
            return f"{count // (size // 10) / 10:.1f}{unit}" if count < 10 * size else f"{count // size}{unit}"
    return str(count)


def _round_up(share: float) -> int:
    """A share as the next percentage whose quarters are whole numbers."""
    return next(percent for percent in (*range(8, 40, 4), *range(40, 100, 20), 100) if percent >= 100 * min(1, share))


class _Pen:
    """Draws in points."""

    def __init__(self, picture: Image.Image):
        self.draw = ImageDraw.Draw(picture)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        left, upper, right, lower = (round(value * SCALE) for value in (x0, y0, x1, y1))
        self.draw.rectangle((left, upper, max(left, right - 1), max(upper, lower - 1)), colour)

    def text(self, x: float, y: float, text: str, size: float, colour: str, align: str = "left") -> None:
        shift = {"left": 0.0, "centre": 0.5, "right": 1.0}[align] * self.width(text, size)
        self.draw.text((round((x - shift) * SCALE), round(y * SCALE)), text, colour, _font(size))

    def width(self, text: str, size: float) -> float:
        return float(_font(size).getlength(text)) / SCALE


@cache
def _font(size: float) -> Any:
    return ImageFont.load_default(size * SCALE)
