"""Pictures with texts: the contact sheet of a card, and the results of queries. Sizes are in pixels."""

import textwrap
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pipeline.card.samples import Sample
from pipeline.errors import MediaError, PipelineError
from pipeline.hashing import stream_hash
from pipeline.media.images import frames, open_media
from pipeline.storage.files import write_file

INK, FAINT, PAPER, WHITE, GREY = "#1a1a1a", "#5b6066", "#f3f4f5", "#ffffff", "#c9ccd0"
MARGIN, GAP = 20, 12

MAX_TILES, TILES_PER_ROW = 24, 6
HEADING = 76
THUMB_WIDTH, THUMB_HEIGHT = 264, 198
TILE_WIDTH, TILE_HEIGHT = THUMB_WIDTH + 12, THUMB_HEIGHT + 120
LINE_CHARACTERS, TEXT_LINES = 36, 5  # a line of ordinary text at size 13 fits into a tile
MAX_CHARACTERS = 1_000  # characters of a text that are drawn
FONT_PACKAGES = "manimgx_fonts", "noto_cjk_sans_otc"  # Noto Sans for nearly every script

Text = tuple[str, tuple[int, int], int, str]  # its top left corner, its size, and its colour


def with_texts(picture: Image.Image, texts: Iterable[Text]) -> tuple[Image.Image, bool]:
    """A picture with texts on it, in letters of all scripts, and whether installed fonts have all of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(picture.width / 100, picture.height / 100), dpi=100, facecolor="none")
    for text, (left, top), size, colour in texts:
        place, fonts = (left / picture.width, 1 - top / picture.height), "DejaVu Sans" if text.isascii() else _fonts()
        figure.text(*place, text, va="top", color=colour, fontsize=0.72 * size, fontfamily=fonts, parse_math=False)
    canvas: Any = FigureCanvasAgg(figure)
    with warnings.catch_warnings(record=True) as missing_glyphs:
        warnings.simplefilter("always")
        canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    return Image.alpha_composite(picture.convert("RGBA"), drawn).convert("RGB"), not missing_glyphs


@cache
def _fonts() -> list[str]:
    """Families that draw each letter which those before lack. DejaVu comes with matplotlib."""
    from matplotlib.font_manager import fontManager

    packages = [Path(spec.origin).parent for name in FONT_PACKAGES if (spec := find_spec(name)) and spec.origin]
    for path in sorted(path for package in packages for path in package.glob("*.tt[fc]")):
        fontManager.addfont(path)
    names = (font.name for font in fontManager.ttflist)
    return ["DejaVu Sans", *dict.fromkeys(name for name in names if name.startswith("Noto Sans"))]


def one_line(text: str) -> str:
    """The start of a text on one line, without control characters."""
    letters = " ".join(text.split())[:MAX_CHARACTERS]
    return "".join(letter for letter in letters if unicodedata.category(letter) not in ("Cc", "Cs"))


def write_contact_sheet(path: Path, title: str, subtitle: str, samples: Sequence[Sample]) -> None:
    """Write a PNG of less than 2 MB that shows the samples' pictures above their texts."""
    columns = max(3, min(TILES_PER_ROW, len(samples)))
    rows = max(1, -(-len(samples) // columns))
    size = (MARGIN + columns * (TILE_WIDTH + GAP), HEADING + MARGIN + rows * (TILE_HEIGHT + GAP))
    sheet = Image.new("RGB", size, PAPER)
    texts: list[Text] = [(one_line(title), (MARGIN, 12), 28, INK), (one_line(subtitle), (MARGIN, 48), 15, FAINT)]
    for number, sample in enumerate(samples):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * (TILE_WIDTH + GAP), HEADING + row * (TILE_HEIGHT + GAP)
        sheet.paste(WHITE, (left, top, left + TILE_WIDTH, top + TILE_HEIGHT))
        sheet.paste(_thumbnail(sample), (left + 6, top + 6))
        text = one_line(sample.text)
        wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
        characters = LINE_CHARACTERS * len(text) // (len(text) + wide or 1)
        lines = textwrap.wrap(text, max(characters, 2), max_lines=TEXT_LINES, placeholder=" …")
        below = left + 8, top + THUMB_HEIGHT + 29
        texts.append((one_line(sample.item["item_id"])[-44:], (left + 8, top + THUMB_HEIGHT + 12), 12, FAINT))
        texts.append(("\n".join(lines) or "(no text)", below, 13, INK if text else FAINT))
    with write_file(path) as stream:
        with_texts(sheet, texts)[0].quantize(256).save(stream, "PNG")  # a byte a pixel: even noise stays below 2 MB


def _thumbnail(sample: Sample) -> Image.Image:
    """The item letterboxed, of a video its middle frame; a grey tile where there is no picture or it has changed."""
    item, reason = sample.item, ""
    canvas = Image.new("RGB", (THUMB_WIDTH, THUMB_HEIGHT), GREY)
    pen = ImageDraw.Draw(canvas)
    if not item["width"]:
        reason = sample.size
    else:
        try:
            picture = _read_picture(item)
            canvas.paste(picture, ((THUMB_WIDTH - picture.width) // 2, (THUMB_HEIGHT - picture.height) // 2))
        except (MediaError, PipelineError) as error:
            reason = error.kind if isinstance(error, MediaError) else "unreadable"
    if reason:
        pen.text((12, THUMB_HEIGHT // 2 - 8), f"{item['media_type']}: {reason}", INK, font_size=15)
    if item["media_type"] == "video":
        seconds = int(item["duration_s"] or 0)
        pen.rectangle((6, THUMB_HEIGHT - 28, 96, THUMB_HEIGHT - 6), "#000000")
        pen.text((12, THUMB_HEIGHT - 25), f"video {seconds // 60}:{seconds % 60:02}", WHITE, font_size=13)
    return canvas


def _read_picture(item: Mapping[str, Any]) -> Image.Image:
    with open_media(item["uri"]) as stream:
        # A video may be gigabytes; a picture that changed would stand above another picture's description.
        if item["media_type"] == "image" and stream_hash(stream) != item["sha256"]:
            raise MediaError("changed", "other bytes than were ingested")
        scale = min(THUMB_WIDTH / item["width"], THUMB_HEIGHT / item["height"], 1)
        area = max(1, round(item["width"] * scale)) * max(1, round(item["height"] * scale))
        picture = frames(stream, item["media_type"], max_pixels=2 * area, count=1)[0].image
    picture.thumbnail((THUMB_WIDTH, THUMB_HEIGHT), Image.Resampling.LANCZOS)
    return picture
