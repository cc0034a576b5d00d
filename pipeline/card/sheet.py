"""The contact sheet of a card: pictures of the corpus with their texts.

Drawn with Pillow's own font, so that the bytes depend on the corpus only. Sizes are in pixels.
"""

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

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
LINE_CHARACTERS, TEXT_LINES = 36, 5  # a line of ordinary text at size 14 fits into a tile
MAX_CHARACTERS = 1_000  # characters of a text that are drawn
INVISIBLE = ("Mn", "Cf", "Cc")  # Unicode categories of accents, format and control characters

# What Pillow's font lacks and Unicode does not decompose; the rest of Latin loses its accents.
LOOKALIKES = str.maketrans(
    {**dict(zip("‚„–—−×łŁđĐøØıƒ", ',"---xlLdDoOif', strict=True)), "ß": "ss", "æ": "ae", "œ": "oe"}
)


def write_contact_sheet(path: Path, title: str, subtitle: str, samples: Sequence[Sample]) -> None:
    """Write a PNG of less than 2 MB that shows the samples' pictures above their texts."""
    columns = max(3, min(TILES_PER_ROW, len(samples)))
    rows = max(1, -(-len(samples) // columns))
    size = (MARGIN + columns * (TILE_WIDTH + GAP), HEADING + MARGIN + rows * (TILE_HEIGHT + GAP))
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 12), printable(title), INK, _font(28))
    pen.text((MARGIN, 48), printable(subtitle), FAINT, _font(15))
    for number, sample in enumerate(samples):
        row, column = divmod(number, columns)
        sheet.paste(_tile(sample), (MARGIN + column * (TILE_WIDTH + GAP), HEADING + row * (TILE_HEIGHT + GAP)))
    with write_file(path) as stream:
        sheet.quantize(256).save(stream, "PNG")  # a byte a pixel, so that even noise stays below 2 MB


def _tile(sample: Sample) -> Image.Image:
    tile = Image.new("RGB", (TILE_WIDTH, TILE_HEIGHT), WHITE)
    pen = ImageDraw.Draw(tile)
    tile.paste(_thumbnail(sample), (6, 6))
    pen.text((8, THUMB_HEIGHT + 12), printable(sample.item["item_id"])[-44:], FAINT, _font(12))
    text = printable(sample.text) or "(no text)"
    if text.count("□") > len(text) / 4:
        text = f"({len(sample.text):,} characters in a script that this sheet's font lacks)"
    lines = textwrap.wrap(text, LINE_CHARACTERS, max_lines=TEXT_LINES, placeholder=" …")
    pen.multiline_text((8, THUMB_HEIGHT + 29), "\n".join(lines), INK if sample.text else FAINT, _font(14), spacing=3)
    return tile


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
        pen.text((12, THUMB_HEIGHT // 2 - 8), printable(f"{item['media_type']}: {reason}"), INK, _font(15))
    if item["media_type"] == "video":
        seconds = int(item["duration_s"] or 0)
        pen.rectangle((6, THUMB_HEIGHT - 28, 96, THUMB_HEIGHT - 6), "#000000")
        pen.text((12, THUMB_HEIGHT - 25), f"video {seconds // 60}:{seconds % 60:02}", WHITE, _font(13))
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


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


@cache
def _has_glyph(character: str) -> bool:
    return bytes(_font(14).getmask(character)) != bytes(_font(14).getmask("\uffff"))


def printable(text: str) -> str:
    """The text on one line in letters that the font has: without accents, and □ (its missing glyph) for the rest."""
    text = " ".join(text.split())[:MAX_CHARACTERS].translate(LOOKALIKES)
    letters = [
        letter if _has_glyph(letter) else "" if unicodedata.category(letter) in INVISIBLE else "□"
        for letter in unicodedata.normalize("NFKD", text).translate(LOOKALIKES)
    ]
    return "".join(letters)
