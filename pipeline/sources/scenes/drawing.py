"""A scene as a picture, or as a clip: a background, and each group's objects in their part of it.

Objects are drawn in their colours, with an outline that is visible on any ground; their shapes are data.

A clip is written as Motion JPEG in AVI by hand, so that no codec is needed.
"""

import functools
import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

from pipeline.media.images import encode_jpeg
from pipeline.sources.scenes.content import FACTS, Group, Scene

FRAMES, FRAMES_PER_S = 6, 4  # length and rate of a clip
VARIANTS = 8  # variants of a background
KEYFRAME, HAS_INDEX = 0x10, 0x10  # flags of AVI
FINE = 6  # objects are drawn this many times larger, then reduced, for smooth edges
DARK, LIGHT = (40, 34, 34), (225, 225, 225)
SHAPES = yaml.safe_load(Path(__file__).with_name("shapes.yaml").read_text("utf-8"))  # the steps that draw each kind


def frames(scene: Scene, size: int, rng: np.random.Generator) -> list[Image.Image]:
    """The frames of a clip, or the single picture of a scene in which nothing moves.

    Args:
        scene: what is drawn.
        size: side of the square pictures in pixels.
        rng: moves things a little.

    Returns:
        Images in RGB.
    """
    ground = background(scene.background, size, int(rng.integers(VARIANTS)))
    layout = [_place_objects(scene, number, size, rng) for number in range(len(scene.groups))]
    images = []
    for number in range(FRAMES if scene.motion else 1):
        image = ground.copy()
        for at, (group, corners) in enumerate(zip(scene.groups, layout, strict=True)):
            side = _side(scene, group, size)
            shift = _shift(scene, corners, side, size, number) if scene.motion and at == scene.mover else (0, 0)
            drawn = sprite(group.kind, group.colour, side)
            for x, y in corners:
                image.paste(drawn, (x + shift[0], y + shift[1]), drawn)
        images.append(image)
    return images


def encode(images: Sequence[Image.Image]) -> bytes:
    """The bytes of a scene's file: PNG for a single picture, AVI for the frames of a clip."""
    if len(images) > 1:
        return avi(images)
    buffer = io.BytesIO()
    images[0].save(buffer, "PNG")
    return buffer.getvalue()


def _side(scene: Scene, group: Group, size: int) -> int:
    share: float = FACTS["sides"][group.size][group.count] * (FACTS["in_clips"][group.size] if scene.motion else 1)
    return max(4, round(share * size))


def _place_objects(scene: Scene, number: int, size: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """The upper left corners of a group's objects: in a column where their part is upright, else in a row.

    Four lie two by two. What moves past something keeps close together.
    """
    group, place = scene.groups[number], scene.position(number)
    side = _side(scene, group, size)
    if place == "moving":  # across its direction
        place = "left" if scene.motion in ("left", "right") else "above"
    rows = 2 if group.count == 4 else group.count if place in ("left", "middle", "right") else 1
    columns = group.count // rows
    x0, y0, x1, y1 = (share * size for share in FACTS["parts"][place])
    if scene.motion and scene.relation and number == scene.mover:
        x1 = 1.1 * side * columns
    width, height = (x1 - x0) / columns, (y1 - y0) / rows
    corners = []
    for at in range(group.count):
        row, column = divmod(at, columns)
        x = x0 + column * width + (width - side) * (0.5 + float(rng.uniform(-0.3, 0.3)))
        y = y0 + row * height + (height - side) * (0.5 + float(rng.uniform(-0.3, 0.3)))
        corners.append((round(x), round(y)))
    return corners


def _shift(scene: Scene, corners: list[tuple[int, int]], side: int, size: int, frame: int) -> tuple[int, int]:
    """How far a moving group is from its place in this frame: it crosses the picture from edge to edge."""
    across = scene.motion in ("left", "right")
    values = [corner[0 if across else 1] for corner in corners]
    low, high = -min(values), size - side - max(values)  # as far as it can go without leaving the picture
    share = frame / (FRAMES - 1)
    if scene.motion in ("left", "up"):
        share = 1 - share
    shift = round(low + (high - low) * share)
    return (shift, 0) if across else (0, shift)


@functools.lru_cache(4096)
def sprite(kind: str, colour: str, size: int) -> Image.Image:
    """The object as RGBA, `size` pixels square."""
    image = Image.new("RGBA", (size * FINE, size * FINE))
    draw = ImageDraw.Draw(image)
    for step in SHAPES[kind]:
        _draw_step(draw, step, colour, size * FINE)
    return image.reduce(FINE)


def _draw_step(draw: ImageDraw.ImageDraw, step: dict[str, Any], colour: str, size: int) -> None:
    shape = next(iter(step))
    points = [share * (size - 1) for share in step[shape]]
    line, outline = LIGHT if colour == "black" else DARK, max(2, round(size * 0.04))
    fill = step.get("clashes", {}).get(colour) or step.get("fill") or FACTS["colours"][colour]
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


@functools.lru_cache(256)
def background(name: str, size: int, variant: int) -> Image.Image:
    """Variant number `variant` of a background, in RGB; they differ a little in light and detail."""
    rng = np.random.default_rng([variant, sum(name.encode())])
    upper, lower, horizon, ground = FACTS["backgrounds"][name]
    fine = size * 3
    share = np.linspace(0, 1, fine)[:, None, None]
    column = np.array(upper) * (1 - share) + np.array(lower) * share
    light = float(rng.uniform(0.94, 1.05))
    pixels = np.clip(np.broadcast_to(column, (fine, fine, 3)) * light, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    line = (horizon + float(rng.uniform(-0.03, 0.03))) * fine
    if horizon < 1:
        draw.rectangle((0, line, fine, fine), ground)
    _details(name, draw, fine, line, rng)
    return image.reduce(3)


def _details(name: str, draw: ImageDraw.ImageDraw, fine: int, line: float, rng: np.random.Generator) -> None:
    """What a background is recognized by: blades of grass, waves, stars, flakes, lane marks, dunes."""

    def spots(count: int, top: float) -> list[tuple[float, float]]:
        return [(float(rng.uniform(0, fine)), float(rng.uniform(top, fine))) for _ in range(count)]

    unit = fine / 64
    match name:
        case "meadow":
            for x, y in spots(60, line):
                draw.line((x, y, x + unit, y - 3 * unit), (96, 172, 72), max(1, round(unit * 0.7)))
        case "beach":
            shore = (line + fine) / 2 - 4 * unit
            draw.polygon([(0, shore - 3 * unit), (fine, shore + 3 * unit), (fine, fine), (0, fine)], (240, 222, 170))
            draw.line((0, shore - 3 * unit, fine, shore + 3 * unit), (250, 250, 250), round(2 * unit))
        case "night":
            for x, y in spots(26, 0):
                draw.ellipse((x, y, x + 0.9 * unit, y + 0.9 * unit), (250, 250, 220))
            x = float(rng.uniform(0.1, 0.8)) * fine
            draw.ellipse((x, 3 * unit, x + 8 * unit, 11 * unit), (240, 236, 200))
        case "snow":
            for x, y in spots(70, 0):
                draw.ellipse((x, y, x + 1.6 * unit, y + 1.6 * unit), (255, 255, 255))
        case "street":
            draw.rectangle((0, line, fine, line + 4 * unit), (180, 178, 172))
            for at in range(4):
                x = (at + float(rng.uniform(0, 0.2))) * fine / 4
                draw.rectangle((x, fine * 0.68, x + 8 * unit, fine * 0.68 + 2 * unit), (245, 245, 235))
        case "desert":
            for at in range(3):
                x = (at - float(rng.uniform(0.2, 0.8))) * fine / 2
                draw.ellipse((x, line - 5 * unit, x + fine * 0.8, line + 26 * unit), (230, 184 - 8 * at, 118 - 8 * at))
            draw.ellipse((fine - 12 * unit, 2 * unit, fine - 4 * unit, 10 * unit), (255, 240, 150))
        case "water":
            for x, y in spots(34, line):
                draw.arc((x, y, x + 6 * unit, y + 3 * unit), 180, 360, (150, 205, 235), max(1, round(unit * 0.8)))


def avi(frames: Sequence[Image.Image]) -> bytes:
    """Frames (RGB, of one size) as the bytes of an AVI file."""
    width, height = frames[0].size
    pictures = [encode_jpeg(frame) for frame in frames]
    largest = max(map(len, pictures))
    microseconds, rate = 1_000_000 // FRAMES_PER_S, largest * FRAMES_PER_S
    main = struct.pack("<14I", microseconds, rate, 0, HAS_INDEX, len(frames), 0, 1, largest, width, height, 0, 0, 0, 0)
    stream = struct.pack(
        "<4s4sIHHIIIIIIII4H",
        *(b"vids", b"MJPG", 0, 0, 0, 0, 1, FRAMES_PER_S, 0, len(frames), largest, 0xFFFFFFFF, 0),
        *(0, 0, width, height),
    )
    form = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0)
    header = _list(b"hdrl", _chunk(b"avih", main) + _list(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", form)))
    chunks = [_chunk(b"00dc", picture) for picture in pictures]
    index, at = [], 4
    for chunk, picture in zip(chunks, pictures, strict=True):
        index.append(struct.pack("<4sIII", b"00dc", KEYFRAME, at, len(picture)))
        at += len(chunk)
    body = header + _list(b"movi", b"".join(chunks)) + _chunk(b"idx1", b"".join(index))
    return _chunk(b"RIFF", b"AVI " + body)


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _list(name: bytes, data: bytes) -> bytes:
    return _chunk(b"LIST", name + data)
