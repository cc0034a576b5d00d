"""The objects as drawings: each kind in a unit square, in its colour, with an outline that is visible on any ground."""

import functools
import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw

FINE = 6  # drawn this many times larger, then reduced, for smooth edges
FILLS = {
    "red": (214, 39, 40),
    "blue": (38, 84, 210),
    "green": (30, 150, 60),
    "yellow": (250, 214, 30),
    "orange": (245, 130, 20),
    "purple": (135, 50, 170),
    "white": (250, 250, 250),
    "black": (22, 22, 24),
}
DARK, LIGHT, WOOD, GLASS = (40, 34, 34), (225, 225, 225), (120, 78, 40), (196, 226, 244)
Point = tuple[float, float]
Colour = tuple[int, int, int]


class Pen:
    """Draws in a unit square of `size` pixels: x to the right, y downwards.

    Shapes have the object's colour unless `fill` is given, and an outline.
    """

    def __init__(self, size: int, colour: str):
        self.image = Image.new("RGBA", (size, size))
        self.fill, self.line = FILLS[colour], LIGHT if colour == "black" else DARK
        self._draw, self._size = ImageDraw.Draw(self.image), size
        self._width = max(2, round(size * 0.04))

    def _at(self, points: Sequence[Point]) -> list[Point]:
        return [(x * (self._size - 1), y * (self._size - 1)) for x, y in points]

    def polygon(self, *points: Point, fill: Colour | None = None) -> None:
        """A closed polygon."""
        self._draw.polygon(self._at(points), fill or self.fill, self.line, self._width)

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, fill: Colour | None = None) -> None:
        """The ellipse in a box."""
        self._draw.ellipse(self._at([(x0, y0), (x1, y1)]), fill or self.fill, self.line, self._width)

    def blot(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """An ellipse without an outline."""
        self._draw.ellipse(self._at([(x0, y0), (x1, y1)]), self.fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour | None = None) -> None:
        """A rectangle."""
        self._draw.rectangle(self._at([(x0, y0), (x1, y1)]), fill or self.fill, self.line, self._width)

    def dome(self, x0: float, y0: float, x1: float, y1: float, fill: Colour | None = None) -> None:
        """The upper half of an ellipse, closed below."""
        box = self._at([(x0, y0), (x1, y1)])
        self._draw.chord(box, 180, 360, fill or self.fill, self.line, self._width)

    def stroke(self, *points: Point, width: float = 0.06, fill: Colour | None = None) -> None:
        """A line of the outline's colour, or of `fill`."""
        self._draw.line(self._at(points), fill or self.line, max(2, round(width * self._size)), "curve")

    def arc(self, x0: float, y0: float, x1: float, y1: float, start: int, end: int, width: float = 0.06) -> None:
        """A part of the ellipse in a box, from one angle to another in degrees."""
        box = self._at([(x0, y0), (x1, y1)])
        self._draw.arc(box, start, end, self.line, max(2, round(width * self._size)))

    def ring(self, x0: float, y0: float, x1: float, y1: float, width: float) -> None:
        """An outlined ring of the object's colour, `width` without its two lines."""
        side, line = round(self._size * width), self._width
        x0, y0, x1, y1 = (round(value * (self._size - 1)) for value in (x0, y0, x1, y1))
        self._draw.ellipse((x0, y0, x1, y1), outline=self.line, width=side + 2 * line)
        self._draw.ellipse((x0 + line, y0 + line, x1 - line, y1 - line), outline=self.fill, width=side)


def _house(pen: Pen) -> None:
    pen.box(0.14, 0.45, 0.86, 0.97)
    pen.polygon((0.02, 0.48), (0.5, 0.04), (0.98, 0.48))
    pen.box(0.42, 0.64, 0.6, 0.97, WOOD)
    pen.box(0.2, 0.58, 0.35, 0.75, GLASS)
    pen.box(0.67, 0.58, 0.81, 0.75, GLASS)


def _tree(pen: Pen) -> None:
    pen.box(0.42, 0.62, 0.58, 0.99, WOOD)
    pen.ellipse(0.06, 0.28, 0.54, 0.74)
    pen.ellipse(0.46, 0.28, 0.94, 0.74)
    pen.ellipse(0.22, 0.02, 0.78, 0.56)
    pen.blot(0.27, 0.27, 0.73, 0.66)


def _car(pen: Pen) -> None:
    pen.polygon((0.16, 0.46), (0.3, 0.12), (0.7, 0.12), (0.86, 0.46))
    pen.polygon((0.31, 0.42), (0.38, 0.22), (0.47, 0.22), (0.47, 0.42), fill=GLASS)
    pen.polygon((0.55, 0.42), (0.55, 0.22), (0.63, 0.22), (0.72, 0.42), fill=GLASS)
    pen.polygon((0.01, 0.44), (0.95, 0.42), (1.0, 0.8), (0.01, 0.8))
    for x in (0.14, 0.62):
        pen.ellipse(x, 0.64, x + 0.26, 0.9, (50, 50, 54))
        pen.ellipse(x + 0.08, 0.72, x + 0.18, 0.82, LIGHT)


def _ball(pen: Pen) -> None:
    pen.ellipse(0.06, 0.06, 0.94, 0.94)
    pen.arc(0.3, 0.06, 0.7, 0.94, 90, 270)
    pen.arc(0.3, 0.06, 0.7, 0.94, 270, 90)
    pen.stroke((0.07, 0.5), (0.93, 0.5))


def _star(pen: Pen) -> None:
    points = []
    for at in range(10):
        radius, angle = (0.5 if at % 2 == 0 else 0.2), math.pi * at / 5
        points.append((0.5 + radius * math.sin(angle), 0.52 - radius * math.cos(angle)))
    pen.polygon(*points)


def _cup(pen: Pen) -> None:
    pen.ring(0.54, 0.28, 0.99, 0.73, 0.06)
    pen.polygon((0.08, 0.2), (0.76, 0.2), (0.68, 0.92), (0.16, 0.92))
    pen.ellipse(0.08, 0.1, 0.76, 0.3, LIGHT)


def _boat(pen: Pen) -> None:
    pen.stroke((0.48, 0.05), (0.48, 0.72), width=0.07)
    pen.polygon((0.54, 0.06), (0.54, 0.6), (0.94, 0.6), fill=(245, 240, 225))
    pen.polygon((0.42, 0.14), (0.42, 0.6), (0.08, 0.6))
    pen.polygon((0.02, 0.68), (0.98, 0.68), (0.8, 0.96), (0.2, 0.96))


def _fish(pen: Pen) -> None:
    pen.polygon((0.66, 0.5), (0.98, 0.22), (0.98, 0.78))
    pen.polygon((0.32, 0.3), (0.48, 0.1), (0.62, 0.32))
    pen.ellipse(0.02, 0.24, 0.76, 0.78)
    pen.ellipse(0.14, 0.38, 0.27, 0.51, LIGHT)
    pen.arc(0.22, 0.3, 0.44, 0.72, 300, 60)


def _flower(pen: Pen) -> None:
    pen.stroke((0.5, 0.5), (0.5, 0.98), width=0.07, fill=(40, 120, 40))
    pen.stroke((0.5, 0.84), (0.74, 0.7), width=0.1, fill=(60, 160, 60))
    for at in range(5):
        x, y = 0.5 + 0.21 * math.sin(math.tau * at / 5), 0.38 - 0.21 * math.cos(math.tau * at / 5)
        pen.ellipse(x - 0.17, y - 0.17, x + 0.17, y + 0.17)
    pen.ellipse(0.39, 0.27, 0.61, 0.49, (250, 190, 40) if pen.fill != FILLS["yellow"] else WOOD)


def _umbrella(pen: Pen) -> None:
    pen.stroke((0.5, 0.04), (0.5, 0.86), width=0.06)
    pen.arc(0.5, 0.76, 0.74, 0.98, 0, 180)
    pen.dome(0.02, 0.1, 0.98, 0.94)
    for x in (0.02, 0.34, 0.66):
        pen.arc(x, 0.42, x + 0.32, 0.62, 180, 360, 0.04)
    pen.arc(0.33, 0.1, 0.67, 0.94, 180, 360, 0.03)


def _bird(pen: Pen) -> None:
    pen.stroke((0.44, 0.78), (0.4, 0.97), width=0.05)
    pen.stroke((0.58, 0.78), (0.58, 0.97), width=0.05)
    pen.polygon((0.26, 0.56), (0.0, 0.4), (0.04, 0.68))
    pen.polygon((0.86, 0.22), (1.0, 0.32), (0.86, 0.4), fill=(245, 160, 30))
    pen.ellipse(0.12, 0.36, 0.8, 0.84)
    pen.ellipse(0.54, 0.1, 0.9, 0.48)
    pen.ellipse(0.7, 0.2, 0.8, 0.3, LIGHT)
    pen.polygon((0.24, 0.5), (0.6, 0.5), (0.34, 0.72))


def _apple(pen: Pen) -> None:
    pen.ellipse(0.08, 0.26, 0.6, 0.94)
    pen.ellipse(0.4, 0.26, 0.92, 0.94)
    pen.blot(0.28, 0.36, 0.72, 0.84)
    pen.stroke((0.5, 0.36), (0.54, 0.06), width=0.07, fill=WOOD)
    pen.polygon((0.56, 0.2), (0.72, 0.04), (0.92, 0.08), (0.78, 0.24), fill=(60, 160, 60))


def _mushroom(pen: Pen) -> None:
    pen.polygon((0.38, 0.5), (0.62, 0.5), (0.7, 0.96), (0.3, 0.96), fill=(240, 230, 205))
    pen.dome(0.02, 0.06, 0.98, 1.02)
    spot = (250, 245, 235) if pen.fill != FILLS["white"] else (200, 170, 140)
    for x, y, radius in ((0.3, 0.34, 0.08), (0.55, 0.22, 0.09), (0.75, 0.4, 0.07)):
        pen.ellipse(x - radius, y - radius, x + radius, y + radius, spot)


def _hat(pen: Pen) -> None:
    pen.ellipse(0.0, 0.66, 1.0, 0.92)
    pen.polygon((0.24, 0.16), (0.76, 0.16), (0.8, 0.76), (0.2, 0.76))
    band = (240, 240, 235) if pen.fill not in (FILLS["white"], FILLS["yellow"]) else (90, 60, 60)
    pen.polygon((0.215, 0.58), (0.785, 0.58), (0.8, 0.74), (0.2, 0.74), fill=band)


SHAPES: dict[str, Callable[[Pen], None]] = {
    "house": _house,
    "tree": _tree,
    "car": _car,
    "ball": _ball,
    "star": _star,
    "cup": _cup,
    "boat": _boat,
    "fish": _fish,
    "flower": _flower,
    "umbrella": _umbrella,
    "bird": _bird,
    "apple": _apple,
    "mushroom": _mushroom,
    "hat": _hat,
}


@functools.lru_cache(4096)
def sprite(kind: str, colour: str, size: int) -> Image.Image:
    """The object as RGBA, `size` pixels square."""
    pen = Pen(size * FINE, colour)
    SHAPES[kind](pen)
    return pen.image.reduce(FINE)
