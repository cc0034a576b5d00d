"""The contact sheet, read back from its pixels."""

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from pipeline.card import sheet as layout
from pipeline.card.samples import Sample
from pipeline.card.sheet import one_line, with_texts, write_contact_sheet
from tests.corpora import item, picture

COLOURS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}
GREY = ImageColor.getrgb(layout.GREY)


@pytest.fixture
def sheet_of(tmp_path):
    def write(*items, title="title"):
        write_contact_sheet(tmp_path / "sheet.png", title, "subtitle", [Sample(row, [], []) for row in items])
        return Image.open(tmp_path / "sheet.png").convert("RGB")

    return write


def tile_pixel(sheet, column, x, y):
    left = layout.MARGIN + column * (layout.TILE_WIDTH + layout.GAP)
    return sheet.getpixel((left + x, layout.HEADING + y))


def centre(sheet, column):
    return tile_pixel(sheet, column, layout.TILE_WIDTH // 2, layout.THUMB_HEIGHT // 2)


def close_to(colour, expected):
    return max(abs(a - b) for a, b in zip(colour, expected, strict=True)) < 12


def test_pictures_are_letterboxed_not_stretched(tmp_path, sheet_of):
    sizes = {"wide.png": (900, 90), "tall.png": (90, 900), "tiny.png": (3, 2)}
    rows = [item(picture(tmp_path / name, "red", size), width=size[0], height=size[1]) for name, size in sizes.items()]
    sheet = np.asarray(sheet_of(*rows)).astype(int)
    red = (sheet[..., 0] > 200) & (sheet[..., 1] < 60)
    step = layout.TILE_WIDTH + layout.GAP
    boxes = []
    for column in range(3):
        ys, xs = np.nonzero(red[:, layout.MARGIN + column * step : layout.MARGIN + (column + 1) * step])
        boxes.append((int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1))
    assert boxes == [(layout.THUMB_WIDTH, 26), (20, layout.THUMB_HEIGHT), (3, 2)]


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: picture(path, "blue")])
def test_a_picture_that_changed_since_ingest_is_a_grey_tile(tmp_path, sheet_of, spoil):
    path = picture(tmp_path / "a.png")
    rows = [item(path), item(picture(tmp_path / "b.png", "green"))]
    spoil(path)
    sheet = sheet_of(*rows)
    assert close_to(tile_pixel(sheet, 0, 10, 10), GREY) and close_to(centre(sheet, 1), COLOURS["green"])


def test_a_video_shows_a_frame_and_its_mark(data, sheet_of):
    clip = data / "clips" / "car-detection.mp4"
    sheet = sheet_of(item(clip, media_type="video", width=768, height=432, num_frames=377, duration_s=30.16))
    left, top = layout.MARGIN + 6, layout.HEADING + 6
    thumb = np.asarray(sheet.crop((left, top, left + layout.THUMB_WIDTH, top + layout.THUMB_HEIGHT)))
    assert thumb[40:160].std() > 15  # a picture, not a blank tile
    assert thumb[-26:-8, 8:90].min() < 9 and thumb[-26:-8, 8:90].max() > 240


@pytest.mark.skipif(not find_spec("noto_cjk_sans_otc"), reason="the fonts of the extra search are not installed")
def test_letters_of_all_scripts_are_drawn_and_fit_their_tiles(tmp_path):
    rows = [item(picture(tmp_path / "a.png", "red"), width=64, height=48)] * 3
    texts = ["一只黑色的狗在路上。" * 9, "كلب أسود", "काला कुत्ता 검은 개 สุนัข Łódź"]
    samples = [Sample(row, [{"view": "short", "text": text}], []) for row, text in zip(rows, texts, strict=True)]
    write_contact_sheet(tmp_path / "sheet.png", "照片", "subtitle", samples)
    drawn = [
        with_texts(Image.new("RGB", (9, 9)), [(text, (0, 0), 12, layout.INK)]) for text in ("".join(texts), "\ue000")
    ]
    assert [complete for _, complete in drawn] == [True, False]
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("L"))
    below = sheet[layout.HEADING + layout.THUMB_HEIGHT + 29 : layout.HEADING + layout.TILE_HEIGHT]
    for column in range(3):
        left = layout.MARGIN + column * (layout.TILE_WIDTH + layout.GAP)
        text = below[:, left : left + layout.TILE_WIDTH + layout.GAP]
        assert text.min() < 100 and text[:, layout.TILE_WIDTH :].min() > 230 and text[-6:].min() > 230


@settings(max_examples=10)
@given(st.text())
def test_no_text_cannot_be_drawn(text):
    letters = one_line(text)
    assert "\n" not in letters
    with_texts(Image.new("RGB", (60, 20)), [(letters, (0, 0), 12, layout.INK)])
