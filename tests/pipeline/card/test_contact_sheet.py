import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.card import contact_sheet as sheets
from pipeline.card.contact_sheet import Sample, contact_sheet, printable, samples, wrapped, write_contact_sheet
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import shard_name, write_manifest, write_shard
from pipeline.errors import UsageError

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
STAGES = {"items": "ingest", "captions": "ingest", "descriptions": "captions"}
COLOURS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}


def item(uri: Path | str, **changed: Any) -> dict[str, Any]:
    path = Path(uri)
    sha256 = hashlib.sha256(path.read_bytes() if path.exists() else str(uri).encode()).hexdigest()
    row = {"item_id": path.name, "media_type": "image", "uri": str(uri), "sha256": sha256, "width": 80, "height": 60}
    row |= {"num_frames": 1, "duration_s": None, "split": "train", "source": "photos", "license": ""}
    return row | changed


def caption(item_id: str, text: str, **changed: Any) -> dict[str, Any]:
    row = {"caption_id": f"{item_id}#en#0", "item_id": item_id, "language": "en", "text": text, "origin": "human"}
    return row | {"split": "train"} | changed


def description(item_id: str, text: str, view: str = "short", **changed: Any) -> dict[str, Any]:
    row = {"item_id": item_id, "view": view, "text": text, "language": "en", "captioner": "a-model", "revision": ""}
    row |= {"prompt_id": f"id-of-{view}", "decoding": '{"max_tokens":48}', "finish_reason": "stop", "sha256": ""}
    return row | {"prompt_tokens": 7, "completion_tokens": 3, "flags": [], "frame_times_s": []} | changed


def write_corpus(
    corpus: Path,
    settings: dict[str, Any] | None = None,
    failures: dict[str, list[dict[str, Any]]] | None = None,
    **shards_of: list[list[dict[str, Any]]],
) -> Path:
    """A corpus from rows: each table a list of shards, each shard a list of rows."""
    views = {"short": {"name": "short", "prompt": "What is in this {media}?", "max_tokens": 48, "temperature": 0.0}}
    described = {"captioner": "a-model", "revision": "", "views": views, "max_pixels": 4096, **(settings or {})}
    for table, shards in shards_of.items():
        (corpus / table).mkdir(parents=True, exist_ok=True)
        entries = [
            write_shard(corpus / table / shard_name(i, len(shards)), pa.Table.from_pylist(rows, SCHEMAS[table]))
            for i, rows in enumerate(shards)
        ]
        write_manifest(
            corpus,
            table,
            stage=STAGES[table],
            settings=described if table == "descriptions" else {"inputs": ["/home/me/photos"], "shard_size": 1000},
            fingerprint="0123456789abcdef",
            tools={"python": "3.11", "pyarrow": "25"},
            parents={},
            shards=entries,
            failures=(failures or {}).get(table, []),
        )
    return corpus


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (80, 60)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def centre(sheet: Image.Image, column: int, row: int = 0) -> tuple[int, ...]:
    """The colour in the middle of a tile's thumbnail."""
    left = sheets.MARGIN + column * (sheets.TILE_WIDTH + sheets.GAP)
    top = sheets.HEADING + row * (sheets.TILE_HEIGHT + sheets.GAP)
    return sheet.getpixel((left + sheets.TILE_WIDTH // 2, top + sheets.THUMB_HEIGHT // 2))


def close_to(colour: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(colour, wanted, strict=True)) < 12


def test_samples_are_spread_over_all_shards_and_keep_their_own_texts(tmp_path):
    shards = [[item(f"{shard}-{i}.png") for i in range(size)] for shard, size in enumerate((7, 0, 40, 1, 52))]
    texts = [[description(row["item_id"], f"about {row['item_id']}") for row in rows] for rows in shards]
    captions = [[caption(row["item_id"], f"human on {row['item_id']}") for row in rows] for rows in shards]
    corpus = write_corpus(tmp_path, items=shards, descriptions=texts, captions=captions)
    ids = [row["item_id"] for rows in shards for row in rows]

    found = samples(corpus, 10)

    assert [sample.item["item_id"] for sample in found] == [ids[i] for i in range(5, 100, 10)]
    assert [sample.text for sample in found] == [f"about {sample.item['item_id']}" for sample in found]
    assert all(sample.captions[0]["text"] == f"human on {sample.item['item_id']}" for sample in found)
    assert [sample.item["item_id"] for sample in samples(corpus, 1_000)] == ids


def test_samples_need_complete_items(tmp_path):
    with pytest.raises(UsageError, match="items"):
        samples(tmp_path, 5)


@pytest.mark.parametrize(
    "views, captions, wanted",
    [
        (["detail", "short"], ["said"], "short text"),
        (["detail", "objects"], ["said"], "detail text"),
        ([], ["said", "again"], "said"),
        ([], [], ""),
    ],
)
def test_the_text_shown_is_short_else_the_first_view_else_a_caption(views, captions, wanted):
    described = [description("a", f"{view} text", view) for view in views]
    assert Sample(item("a"), described, [caption("a", text) for text in captions]).text == wanted


def test_each_tile_shows_its_own_picture(tmp_path):
    shown = [Sample(item(picture(tmp_path / f"{name}.png", name)), [], []) for name in COLOURS]
    sheet = contact_sheet(shown, "three")
    for column, rgb in enumerate(COLOURS.values()):
        assert close_to(centre(sheet, column), rgb)


def test_pictures_are_letterboxed_not_stretched(tmp_path):
    sizes = {"wide.png": (900, 90), "tall.png": (90, 900), "tiny.png": (3, 2)}
    shown = [
        Sample(item(picture(tmp_path / name, "red", size), width=size[0], height=size[1]), [], [])
        for name, size in sizes.items()
    ]
    sheet = np.asarray(contact_sheet(shown, "shapes")).astype(int)
    red = (sheet[..., 0] > 200) & (sheet[..., 1] < 60)
    step = sheets.TILE_WIDTH + sheets.GAP
    boxes = []
    for column in range(3):
        ys, xs = np.nonzero(red[:, sheets.MARGIN + column * step : sheets.MARGIN + (column + 1) * step])
        boxes.append((int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1))
    assert boxes[0] == (sheets.THUMB_WIDTH, 26)
    assert boxes[1] == (20, sheets.THUMB_HEIGHT)
    assert boxes[2] == (3, 2)


def _deleted(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def _replaced(path: Path) -> None:
    picture(path, "blue")


@pytest.mark.parametrize("spoil", [_deleted, _cut, _replaced])
def test_what_is_not_the_ingested_picture_any_more_is_a_grey_tile(tmp_path, spoil: Callable[[Path], None]):
    path = picture(tmp_path / "a.png")
    good = item(picture(tmp_path / "b.png", "green"))
    spoilt = item(path)
    spoil(path)
    sheet = contact_sheet([Sample(spoilt, [], []), Sample(good, [], [])], "spoilt")
    grey = sheet.getpixel((sheets.MARGIN + 10, sheets.HEADING + 10))
    assert close_to(grey, (0xC9, 0xCC, 0xD0))
    assert close_to(centre(sheet, 1), COLOURS["green"])


@pytest.mark.parametrize("uri", ["nosuchprotocol://bucket/a.png", "dropbox://needs/a-package.png"])
def test_a_protocol_that_cannot_be_opened_here_is_a_grey_tile_too(uri):
    sheet = contact_sheet([Sample(item(uri), [], [])], "remote")
    assert close_to(sheet.getpixel((sheets.MARGIN + 10, sheets.HEADING + 10)), (0xC9, 0xCC, 0xD0))


def test_a_video_shows_a_frame_and_its_mark():
    clip = (SHARED / "clips" / "car-detection.mp4").resolve()
    if not clip.exists():
        pytest.skip(f"the test data {clip} is not here")
    row = item(clip, media_type="video", width=768, height=432, num_frames=377, duration_s=30.16)
    sheet = contact_sheet([Sample(row, [], [])], "clip")
    left, bottom = sheets.MARGIN + 6, sheets.HEADING + 6 + sheets.THUMB_HEIGHT
    thumb = np.asarray(sheet.crop((left, sheets.HEADING + 6, left + sheets.THUMB_WIDTH, bottom)))
    assert thumb[40:160].std() > 15  # a picture, not a plain tile
    mark = np.asarray(sheet.crop((left + 6, bottom - 28, left + 40, bottom - 6)).convert("L"))
    assert mark.min() < 5
    assert mark.max() > 250


def test_the_sheet_is_under_two_megabytes_even_of_noise(tmp_path):
    rng = np.random.default_rng(1)
    rows = []
    for number in range(30):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (198, 264, 3), dtype=np.uint8)).save(path)
        rows.append(item(path, width=264, height=198))
    corpus = write_corpus(tmp_path / "noise", items=[rows])
    write_contact_sheet(corpus, tmp_path / "a.png", "noise", ("30 images", "not described"))
    assert (tmp_path / "a.png").stat().st_size < 2_000_000
    with Image.open(tmp_path / "a.png") as sheet:
        rows_of_tiles = sheets.MAX_ITEMS // sheets.COLUMNS
        assert sheet.height == sheets.HEADING + sheets.MARGIN + rows_of_tiles * (sheets.TILE_HEIGHT + sheets.GAP)


def test_an_empty_corpus_has_a_sheet_with_its_heading_alone(tmp_path):
    corpus = write_corpus(tmp_path / "empty", items=[[]])
    write_contact_sheet(corpus, tmp_path / "sheet.png", "empty")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 500


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain text", "plain text"),
        ("Ein Löwe frißt\n Äpfel", "Ein Lowe frisst Apfel"),
        ("Łódź, Ørsted — “œuf” × 2", "Lodz, Orsted - “oeuf” x 2"),
        ("người đàn ông", "nguoi dan ong"),
        ("e\u0301te\u0301\u200b", "ete"),
        ("猫 cat", "□ cat"),
        ("½", "1⁄2"),
        ("\u0378", "□"),
    ],
)
def test_text_is_shown_in_the_letters_that_the_font_has(text, shown):
    assert printable(text) == shown


def test_a_text_in_another_script_is_announced_instead_of_drawn(tmp_path):
    row = item(picture(tmp_path / "a.png"))
    chinese = contact_sheet([Sample(row, [description("a.png", "桌子上有一只猫")], [])], "t")
    told = "(7 characters in a script that this sheet's font lacks: see the table)"
    assert chinese.tobytes() == contact_sheet([Sample(row, [description("a.png", told)], [])], "t").tobytes()


@given(st.text())
def test_no_text_can_crash_the_font(text):
    shown = printable(text)
    assert all(character == "□" or sheets._has_glyph(character) for character in shown)
    assert "\n" not in shown


@given(st.text(alphabet="ab mW,.", max_size=300), st.integers(20, 300), st.integers(1, 6))
def test_wrapped_lines_fit_and_lose_nothing_unless_cut(text, width, max_lines):
    lines = wrapped(text, 14, width, max_lines)
    font = sheets._font(14)
    assert len(lines) <= max_lines
    assert all(font.getlength(line) <= width for line in lines)
    if lines and not lines[-1].endswith("…"):
        assert "".join(lines).replace(" ", "") == "".join(text.split())
