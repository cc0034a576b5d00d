"""A page of texts and axes, placed by inches from its upper left corner; texts are measured, so that none runs over.

N words
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from stages.scoring.explain_fonts import Fonts, right_to_left
from stages.scoring.explain_words import Word, unspaced

POINTS = 72  # an inch
LEADING = 1.45  # of a line, times its letters' size
SIZES = (11.0, 9.5, 8.0, 7.0)  # of marked words: the largest with which all have room
CUT = "…"


class Page:
    """Axes have no place before the page is finished: its height is what was put on it."""

    def __init__(self, width: float, fonts: Fonts):
        self.width, self.fonts = width, fonts
        self.figure = Figure(figsize=(width, 1), dpi=100)
        self._canvas = FigureCanvasAgg(self.figure)
        self._placed: list[Callable[[float], Any]] = []
        self._widths: dict[tuple[str, float, bool], float] = {}

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        axis = self.figure.add_axes((0, 0, 1, 1), label=f"{left:.3f} {top:.3f}")
        self._placed.append(
            lambda page: axis.set_position(
                (left / self.width, 1 - (top + height) / page, width / self.width, height / page)
            )
        )
        return axis

    def line(
        self,
        left: float,
        top: float,
        text: str,
        instead: str = "",
        size: float = 10,
        bold: bool = False,
        colour: str = "black",
        width: float | None = None,
    ) -> None:
        """One line, its middle left out where it is longer than `width`; `instead` where no font has its letters."""
        shown, families = self.fonts.shown(text, instead or text)
        self._put(left, top, self._elided(shown, families, size, bold, width), families, size, bold, colour)

    def wrapped(self, left: float, top: float, width: float, text: str, instead: str, size: float, most: int) -> float:
        """At most so many lines, from the right where the script runs so; where they end."""
        shown, families = self.fonts.shown(text, instead)
        lines = self._lines(shown, families, size, width)
        if len(lines) > most:
            lines = [*lines[: most - 1], self._cut(" ".join(lines[most - 1 :]), families, size, width)]
        turned = right_to_left(shown)
        height = size * LEADING / POINTS
        for number, line in enumerate(lines):
            self._put(left + width if turned else left, top + number * height, line, families, size, turned=turned)
        return top + len(lines) * height

    def marked(
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        words: Sequence[Word],
        weights_N: np.ndarray,
        colour: str,
    ) -> None:
        """Words with their weights as the depth of a colour behind them, in the largest letters with which all have
        room; where none do, the last ones are left out, and it says so.
        """
        shown = [self.fonts.shown(word.text, f"(word {number})") for number, word in enumerate(words, 1)]
        for size in SIZES:
            places, used = self._flow(shown, words, size, width)
            if used <= height:
                break
        line = size * LEADING / POINTS
        kept = [place for place, (_, y, _) in enumerate(places) if y + line <= height or used <= height]
        if len(kept) < len(words):
            kept = [place for place in kept if places[place][1] + 2 * line <= height]
            rest = float(weights_N.sum() - weights_N[kept].sum())
            told = f"{CUT} and {len(words) - len(kept):,} words more, {rest:.1%} of the weight"
            self._put(left, top + height - line, told, [], size, colour="0.4")
        largest = float(weights_N.max()) or 1.0
        for place in kept:
            x, y, wide = places[place]
            text, families = shown[place]
            self.box(left + x, top + y, wide, line * 0.9, float(weights_N[place]) / largest, colour)
            self._put(left + x, top + y, text, families, size)

    def rule(self, left: float, top: float, width: float) -> None:
        line = Line2D([], [], color="0.8", linewidth=1, transform=self.figure.transFigure)
        self.figure.add_artist(line)
        ends = (left / self.width, (left + width) / self.width)
        self._placed.append(lambda page: line.set_data(ends, [1 - top / page] * 2))

    def finished(self, height: float) -> Figure:
        self.figure.set_size_inches(self.width, height)
        for place in self._placed:
            place(height)
        return self.figure

    def _put(
        self,
        left: float,
        top: float,
        text: str,
        families: Sequence[str],
        size: float,
        bold: bool = False,
        colour: str = "black",
        turned: bool = False,
    ) -> None:
        """A line; `turned`: it ends at `left`. Dollars are dollars, no formula."""
        made = self._text(text, families, size, bold)
        made.set(color=colour, va="baseline", ha="right" if turned else "left")
        baseline = top + size * 1.05 / POINTS  # one for all letters of a line
        self._placed.append(lambda page: made.set_position((left / self.width, 1 - baseline / page)))

    def _text(self, text: str, families: Sequence[str], size: float, bold: bool) -> Text:
        more: dict[str, Any] = {"family": list(families)} if families else {}
        weight = "bold" if bold else "normal"
        return self.figure.text(0, 0, text, fontsize=size, fontweight=weight, **more, parse_math=False)

    def box(self, left: float, top: float, width: float, height: float, depth: float, colour: str) -> None:
        box = Rectangle(
            (0, 0), 0, 0, color=colour, alpha=depth, linewidth=0, transform=self.figure.transFigure, zorder=0
        )
        self.figure.add_artist(box)
        self._placed.append(
            lambda page: box.set(
                x=left / self.width, y=1 - (top + height) / page, width=width / self.width, height=height / page
            )
        )

    def _measured(self, text: str, families: Sequence[str], size: float, bold: bool = False) -> float:
        """Width in inches."""
        key = text, size, bold
        if key not in self._widths:
            made = self._text(text, families, size, bold)
            self._widths[key] = made.get_window_extent(self._canvas.get_renderer()).width / self.figure.dpi
            made.remove()
        return self._widths[key]

    def _elided(self, text: str, families: Sequence[str], size: float, bold: bool, width: float | None) -> str:
        if width is None or self._measured(text, families, size, bold) <= width:
            return text
        low, high = 0, len(text)  # characters that are kept, more of them at the end: names differ there
        while low + 1 < high:
            kept = (low + high) // 2
            low, high = (
                (kept, high)
                if self._measured(_without_middle(text, kept), families, size, bold) <= width
                else (low, kept)
            )
        return _without_middle(text, low)

    def _cut(self, text: str, families: Sequence[str], size: float, width: float) -> str:
        while text and self._measured(text + CUT, families, size) > width:
            text = text[: -max(1, len(text) // 20)].rstrip()
        return text + CUT

    def _lines(self, text: str, families: Sequence[str], size: float, width: float) -> list[str]:
        lines = [""]
        for unit in units(text):
            candidate = lines[-1] + unit
            if self._measured(candidate.rstrip(), families, size) <= width:
                lines[-1] = candidate
                continue
            if lines[-1]:
                lines.append("")
            for character in unit:  # of a unit that is longer than a line, characters
                if self._measured(lines[-1] + character, families, size) > width and lines[-1]:
                    lines.append("")
                lines[-1] += character
        return [line.strip() for line in lines if line.strip()]

    def _flow(
        self, shown: Sequence[tuple[str, list[str]]], words: Sequence[Word], size: float, width: float
    ) -> tuple[list[tuple[float, float, float]], float]:
        """Where words stand (left, top, width) one after the other, each view on lines of its own; the height used."""
        line, gap = size * LEADING / POINTS, size * 0.35 / POINTS
        turned = right_to_left(" ".join(text for text, _ in shown))
        places, x, y = list[tuple[float, float, float]](), 0.0, 0.0
        for number, ((text, families), word) in enumerate(zip(shown, words, strict=True)):
            wide = self._measured(text, families, size)
            next_view = number > 0 and word.view != words[number - 1].view
            if next_view or (x and x + wide > width):
                x, y = 0.0, y + line * (1.4 if next_view else 1)
            places.append((width - x - wide if turned else x, y, wide))
            x += wide + (gap / 4 if unspaced(text[:1]) else gap)
        return places, y + line


def _without_middle(text: str, kept: int) -> str:
    head = kept // 3
    return text[:head] + CUT + text[len(text) - (kept - head) :]


def units(text: str) -> list[str]:
    """What a line may be broken between: words with the space after them, and every letter of scripts without spaces.

    >>> units("a cat 猫が。")
    ['a ', 'cat ', '猫', 'が。']
    """
    found: list[str] = []
    for character in text:
        opens = not found or found[-1].endswith(" ") or unspaced(character)
        opens = opens or (unspaced(found[-1][-1]) and character.isalnum())
        if opens and character != " ":
            found.append(character)
        elif found:
            found[-1] += character
    return found
