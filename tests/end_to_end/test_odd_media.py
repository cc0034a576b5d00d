"""Odd pictures and videos through the whole program: each right, or a typed failure; its neighbours untouched."""

import wave

import pytest
from PIL import Image

import beam_runner
from pipeline.corpus.table import Table
from tests.conftest import jpeg_bytes, make_photos
from tests.loopback import Loopback
from tests.pipeline.media.test_images import exif, png_header

BROKEN = {
    "cut.jpg": "truncated",
    "empty.jpg": "unreadable",
    "huge.png": "too_large",
    "text.jpg": "unreadable",
    "sound.avi": "no_frames",
}
ODD = {
    "animated.gif": ("image", 32, 24, 3),
    "turned.jpg": ("image", 30, 40, 1),  # as seen: stored lying down
    "wrong-name.png": ("image", 64, 48, 1),  # a JPEG
}


def fill(folder):
    make_photos(folder, 6)
    whole = jpeg_bytes((640, 480))
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "huge.png").write_bytes(png_header(50_000, 50_000))
    (folder / "text.jpg").write_text("this is not a picture\n")
    (folder / "wrong-name.png").write_bytes(jpeg_bytes())
    with wave.open(str(folder / "sound.avi"), "wb") as sound:  # RIFF, as AVI is, with only sound
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0\1" * 800)
    Image.linear_gradient("L").resize((40, 30)).save(folder / "turned.jpg", exif=exif(6))
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "green", "blue")]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:], duration=40)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    fill(folder / "media")
    with Loopback() as server:
        options = ["--output", str(folder / "corpus"), "--mllm-url", server.url, "--views", "short,objects"]
        inputs = ["--input", str(folder / "media"), "--shard-size", "5"]
        assert beam_runner.run(["--stage", "captions", *inputs, *options]) == 0
        assert beam_runner.run(["--stage", "verify", "--output", str(folder / "corpus")]) == 0
    return folder / "corpus"


def test_what_is_broken_fails_with_its_type_and_alone(corpus):
    failures = Table(corpus, "items").failures()
    assert {line["id"]: line["error"] for line in failures} == BROKEN
    assert all(line["stage"] == "ingest" and line["message"] and line["attempts"] == 1 for line in failures)
    assert Table(corpus, "descriptions").failures() == []


def test_what_is_odd_is_seen_as_it_is(corpus):
    columns = ("media_type", "width", "height", "num_frames")
    items = {row["item_id"]: tuple(row[name] for name in columns) for row in Table(corpus, "items").rows()}
    assert {name: items[name] for name in ODD} == ODD


def test_every_neighbour_is_described_by_its_own_picture(corpus):
    items = [row["item_id"] for row in Table(corpus, "items").rows()]
    rows = [(row["item_id"], row["view"], row["text"]) for row in Table(corpus, "descriptions").rows()]
    assert [(item, view) for item, view, _ in rows] == [(item, view) for item in items for view in ("short", "objects")]
    assert len(items) == 6 + len(ODD)
    assert len({text.split()[1] for _, _, text in rows}) == len(items)  # the hash of the picture
