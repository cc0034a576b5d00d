"""The objects as drawings, in their colours, with an outline that is visible on any ground; their shapes are data."""

import functools
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw

from pipeline.sources.scenes.content import FACTS

FINE = 6  # drawn this many times larger, then reduced, for smooth edges
FILLS: dict[str, str] = FACTS["colours"]
DARK, LIGHT = (40, 34, 34), (225, 225, 225)


@functools.cache
def shapes() -> dict[str, list[dict[str, Any]]]:
    """The steps that draw each kind, in their order."""
    steps: dict[str, list[dict[str, Any]]] = yaml.safe_load(
        Path(__file__).with_name("shapes.yaml").read_text(encoding="utf-8")
    )
    return steps


@functools.lru_cache(4096)
def sprite(kind: str, colour: str, size: int) -> Image.Image:
    """The object as RGBA, `size` pixels square."""
    image = Image.new("RGBA", (size * FINE, size * FINE))
    draw = ImageDraw.Draw(image)
    for step in shapes()[kind]:
        _draw_step(draw, step, colour, size * FINE)
    return image.reduce(FINE)


def _draw_step(draw: ImageDraw.ImageDraw, step: dict[str, Any], colour: str, size: int) -> None:
    shape = next(iter(step))
    points = [share * (size - 1) for share in step[shape]]
    line, outline = LIGHT if colour == "black" else DARK, max(2, round(size * 0.04))
    fill = step.get("clashes", {}).get(colour) or step.get("fill") or FILLS[colour]
    width = round(step.get("width", 0.06) * size)
    match shape:
        case "polygon":
            draw.polygon(points, fill, line, outline)
        case "ellipse":
            draw.ellipse(points, fill, line, outline)
        case "blot":
            draw.ellipse(points, fill)
        case "box":
            draw.rectangle(points, fill, line, outline)
        case "dome":
            draw.chord(points, 180, 360, fill, line, outline)
        case "line":
            draw.line(points, step.get("fill", line), max(2, width), "curve")
        case "arc":
            start, end = step["angles"]
            draw.arc(points, start, end, line, max(2, width))
        case "ring":  # `width` is without its two outlines
            x0, y0, x1, y1 = map(round, points)
            draw.ellipse((x0, y0, x1, y1), outline=line, width=width + 2 * outline)
            inner = (x0 + outline, y0 + outline, x1 - outline, y1 - outline)
            draw.ellipse(inner, outline=fill, width=width)
