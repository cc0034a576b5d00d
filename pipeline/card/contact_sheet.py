"""The contact sheet: one PNG that shows pictures of a corpus above what was written about them.

Items are taken at even distances over the whole corpus, so the same corpus gives the same sheet. Sizes are in pixels.
"""

import dataclasses
import io
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont

from pipeline.corpus.table import Table, atomic_writer, complete
from pipeline.errors import MediaError, PipelineError
from pipeline.hashing import stream_hash
from pipeline.media.images import frames, open_media

MAX_ITEMS = 24
COLUMNS = 6
TILE_WIDTH, TILE_HEIGHT = 276, 318
THUMB_WIDTH, THUMB_HEIGHT = 264, 198
MARGIN, GAP, HEADING = 20, 12, 96
TEXT_LINES = 5
MOST_CHARACTERS = 1_000  # of a text that are laid out: more than fit into a tile
MAX_BYTES = 1_900_000
INK, FAINT, PAPER, TILE, GREY = "#1a1a1a", "#63676c", "#f3f4f5", "#ffffff", "#c9ccd0"

# What Pillow's own font lacks and Unicode does not decompose; the rest of Latin loses its accents.
_LIKE = str.maketrans({**dict(zip("‚„–—−×łŁđĐøØıƒ", ',"---xlLdDoOif', strict=True)), "ß": "ss", "æ": "ae", "œ": "oe"})


@dataclasses.dataclass(frozen=True)
class Sample:
    """An item with what was written about it: rows of `items`, `descriptions` and `captions`."""

    item: dict[str, Any]
    descriptions: list[dict[str, Any]]
    captions: list[dict[str, Any]]

    @property
    def text(self) -> str:
        """The `short` view, else the first view, else the first caption, else nothing."""
        short = [row for row in self.descriptions if row["view"] == "short"]
        return next((row["text"] for row in (*short, *self.descriptions, *self.captions)), "")


def samples(corpus: Path, count: int) -> list[Sample]:
    """Up to `count` items at even distances over the corpus, in its order, with their texts where those are complete.

    Raises UsageError where table `items` is not complete.
    """
    items = Table(corpus, "items")
    others = {name: Table(corpus, name) for name in ("descriptions", "captions") if complete(corpus, name)}
    total = items.num_rows
    chosen = [total * (2 * i + 1) // (2 * count) for i in range(count)] if total > count else range(total)
    found, shard, before = [], 0, 0
    for row in chosen:
        while row >= before + items.manifest["shards"][shard]["rows"]:
            before += items.manifest["shards"][shard]["rows"]
            shard += 1
        item = items.shard(shard).slice(row - before, 1).to_pylist()[0]
        texts = {name: _of_item(table.shard(shard), item["item_id"]) for name, table in others.items()}
        found.append(Sample(item, texts.get("descriptions", []), texts.get("captions", [])))
    return found


def _of_item(shard: pa.Table, item_id: str) -> list[dict[str, Any]]:
    return shard.filter(pc.equal(shard["item_id"], item_id)).to_pylist()


def write_contact_sheet(corpus: Path, path: Path, title: str, lines: tuple[str, ...] = ()) -> None:
    """Draw the sheet of a corpus into `path`, a PNG of under 2 MB, with `title` and two `lines` as its heading."""
    content = _png(contact_sheet(samples(corpus, MAX_ITEMS), title, lines))
    with atomic_writer(path) as stream:
        stream.write(content)


def _png(picture: Image.Image) -> bytes:
    """The picture as PNG, with as many bits a channel, 7 to 4, as MAX_BYTES leave room for."""
    for dropped in (1, 2, 3, 4):
        kept = 256 - (1 << dropped)
        buffer = io.BytesIO()
        picture.point([value & kept | value >> (8 - dropped) for value in range(256)] * 3).save(
            buffer, "PNG", compress_level=4
        )
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()


def contact_sheet(shown: list[Sample], title: str, lines: tuple[str, ...] = ()) -> Image.Image:
    """The grid as an RGB picture: as wide as its columns need, at least three, so that the heading has room."""
    columns = max(3, min(COLUMNS, len(shown)))
    rows = -(-len(shown) // columns)
    width = 2 * MARGIN + columns * (TILE_WIDTH + GAP) - GAP
    sheet = Image.new("RGB", (width, HEADING + MARGIN + max(1, rows) * (TILE_HEIGHT + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 14), _fitting(printable(title), 28, width - 2 * MARGIN), INK, _font(28))
    for number, line in enumerate(lines[:2]):
        pen.text((MARGIN, 50 + 20 * number), _fitting(printable(line), 15, width - 2 * MARGIN), FAINT, _font(15))
    for number, sample in enumerate(shown):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * (TILE_WIDTH + GAP), HEADING + row * (TILE_HEIGHT + GAP)
        sheet.paste(_tile(sample), (left, top))
    return sheet


def _tile(sample: Sample) -> Image.Image:
    tile = Image.new("RGB", (TILE_WIDTH, TILE_HEIGHT), TILE)
    pen = ImageDraw.Draw(tile)
    border = (TILE_WIDTH - THUMB_WIDTH) // 2
    tile.paste(_thumbnail(sample.item), (border, border))
    left, top, width = border + 2, border + THUMB_HEIGHT + 6, THUMB_WIDTH - 4
    pen.text((left, top), _fitting(printable(sample.item["item_id"]), 12, width, keep_end=True), FAINT, _font(12))
    text = _readable(sample.text[:MOST_CHARACTERS]) if sample.text else "(nothing written about it)"
    for number, line in enumerate(wrapped(text, 14, width, TEXT_LINES)):
        pen.text((left, top + 17 + 17 * number), line, INK if sample.text else FAINT, _font(14))
    return tile


def _thumbnail(item: dict[str, Any]) -> Image.Image:
    """The item letterboxed; of a video the middle frame, marked; a grey tile where it cannot be opened any more, or
    never had a picture."""
    thumb = Image.new("RGB", (THUMB_WIDTH, THUMB_HEIGHT), "#e6e8ea")
    pen = ImageDraw.Draw(thumb)
    if not item["width"]:
        there = f"{item['num_frames']:,} × features" if item["uri"] else "not there"
        _grey(pen, f"{item['media_type']}: {there}", "Without a picture.")
        return thumb
    try:
        picture = _picture(item)
    except (MediaError, PipelineError) as error:
        reason = error.kind if isinstance(error, MediaError) else "cannot be read here"
        _grey(pen, f"{item['media_type']}: {reason}", "No longer as it was ingested.")
    else:
        thumb.paste(picture, ((THUMB_WIDTH - picture.width) // 2, (THUMB_HEIGHT - picture.height) // 2))
    if item["media_type"] == "video":
        _mark_video(pen, item["duration_s"])
    return thumb


def _grey(pen: ImageDraw.ImageDraw, what: str, why: str) -> None:
    pen.rectangle((0, 0, THUMB_WIDTH, THUMB_HEIGHT), GREY)
    pen.text((12, THUMB_HEIGHT // 2 - 18), printable(what), INK, _font(15))
    pen.text((12, THUMB_HEIGHT // 2 + 2), why, FAINT, _font(13))


def _picture(item: dict[str, Any]) -> Image.Image:
    with open_media(item["uri"]) as stream:
        # A video may be gigabytes; a picture that changed would stand above another picture's description.
        if item["media_type"] == "image" and stream_hash(stream) != item["sha256"]:
            raise MediaError("changed", "other bytes than were ingested")
        scale = min(THUMB_WIDTH / item["width"], THUMB_HEIGHT / item["height"], 1)
        area = max(1, round(item["width"] * scale)) * max(1, round(item["height"] * scale))
        picture = frames(stream, item["media_type"], max_pixels=2 * area, count=1)[0].image
    picture.thumbnail((THUMB_WIDTH, THUMB_HEIGHT), Image.Resampling.LANCZOS)
    return picture


def _mark_video(pen: ImageDraw.ImageDraw, duration_s: float | None) -> None:
    label = f"{int(duration_s) // 60}:{int(duration_s) % 60:02}" if duration_s is not None else "video"
    right, bottom = 34 + int(_font(13).getlength(label)), THUMB_HEIGHT - 6
    pen.rounded_rectangle((6, bottom - 22, right, bottom), 5, "#000000")
    pen.polygon([(13, bottom - 17), (13, bottom - 5), (23, bottom - 11)], "#ffffff")
    pen.text((28, bottom - 19), label, "#ffffff", _font(13))


@cache
def _font(size: int) -> Any:
    """Pillow's own font: there on every machine, so that the sheet's bytes do not depend on what is installed."""
    return ImageFont.load_default(size)


@cache
def _has_glyph(character: str) -> bool:
    font = _font(14)
    return bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))


def printable(text: str) -> str:
    """The text on one line in letters that the font has: accents dropped, and □ (its missing glyph) for the rest."""
    shown = []
    for character in " ".join(text.split()):
        if _has_glyph(character):
            shown.append(character)
            continue
        plain = unicodedata.normalize("NFKD", character.translate(_LIKE)).translate(_LIKE)
        plain = "".join(part for part in plain if not unicodedata.combining(part) and part.isprintable())
        invisible = unicodedata.category(character) in ("Mn", "Cf", "Cc")
        shown.append(plain if plain and all(map(_has_glyph, plain)) else "" if invisible else "□")
    return "".join(shown)


def _readable(text: str) -> str:
    """What can be shown of the text, or, of a script that the font lacks, that it is there."""
    shown = printable(text)
    if shown.count("□") <= len(shown.replace(" ", "")) / 3:
        return shown
    return f"({len(text):,} characters in a script that this sheet's font lacks: see the table)"


def wrapped(text: str, size: int, width: float, max_lines: int) -> list[str]:
    """The text in lines no wider than `width`, broken at spaces, within words only where it must; cut with …."""
    font, lines, line = _font(size), [], ""
    for piece in _pieces(text, size, width):
        longer = f"{line} {piece}" if line else piece
        if font.getlength(longer) <= width:
            line = longer
            continue
        lines.append(line)
        line = piece
        if len(lines) > max_lines:
            break
    lines = [*lines, line] if line else lines
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], _fitting(" ".join(lines[max_lines - 1 :]), size, width)]
    return lines


def _pieces(text: str, size: int, width: float) -> Iterator[str]:
    """Words; one wider than a line in pieces that are not."""
    font = _font(size)
    for word in text.split():
        while font.getlength(word) > width:
            cut = next(end for end in range(len(word) - 1, 0, -1) if end == 1 or font.getlength(word[:end]) <= width)
            yield word[:cut]
            word = word[cut:]
        yield word


def _fitting(text: str, size: int, width: float, keep_end: bool = False) -> str:
    """The text, or as much of its start (or end) as fits into `width` with a … for what was cut."""
    font, kept = _font(size), text
    while kept and font.getlength(text if kept == text else f"{kept}…") > width:
        kept = kept[1:] if keep_end else kept[:-1]
    if kept == text:
        return text
    return f"…{kept}" if keep_end else f"{kept.rstrip()}…"
