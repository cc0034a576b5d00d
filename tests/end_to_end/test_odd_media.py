"""Odd pictures and videos through the whole program: each right, or a typed failure; its neighbours untouched."""

import io
import struct
import tarfile
import wave
import zlib

import numpy as np
import pytest
from PIL import Image

import beam_runner
from pipeline.corpus.table import Table
from tests.conftest import jpeg_bytes, make_photos
from tests.loopback import Loopback, answer_text

BROKEN = {
    "cut.jpg": "truncated",
    "empty.jpg": "unreadable",
    "huge.png": "too_large",
    "text.jpg": "unreadable",
    "sound.avi": "no_frames",
}
ODD = {
    "animated.gif": ("image", 32, 24, 3),
    "cmyk.jpg": ("image", 40, 30, 1),
    "deep.png": ("image", 40, 30, 1),
    "palette.png": ("image", 40, 30, 1),
    "turned.jpg": ("image", 30, 40, 1),  # as seen: stored lying down
    "wrong-name.png": ("image", 64, 48, 1),  # a JPEG
}


def huge_png(side):
    """The start of a valid PNG of side × side black pixels: the bomb itself, in a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = packer.compress(b"\0" * (side // 8 + 1) * 100) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def fill(folder):
    make_photos(folder, 6)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))
    whole = jpeg_bytes((640, 480))
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "huge.png").write_bytes(huge_png(50_000))
    (folder / "text.jpg").write_text("this is no picture\n")
    (folder / "wrong-name.png").write_bytes(jpeg_bytes())
    with wave.open(str(folder / "sound.avi"), "wb") as sound:  # RIFF, as AVI is, with sound alone
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0\1" * 800)
    noise.convert("CMYK").save(folder / "cmyk.jpg")
    grey = np.arange(1200, dtype=np.uint16).reshape(30, 40) * 54
    Image.fromarray(grey).save(folder / "deep.png")
    noise.quantize(16).save(folder / "palette.png", transparency=0)
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.save(folder / "turned.jpg", exif=exif)
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "green", "blue")]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:], duration=40)


def fill_tar(path):
    with tarfile.open(path, "w") as archive:
        for name, data in (
            ("inside.jpg", jpeg_bytes(seed=1)),
            ("../outside.jpg", jpeg_bytes(seed=2)),
            ("/etc/rooted.jpg", jpeg_bytes(seed=3)),
            ("deep/../../outside.jpg", jpeg_bytes(seed=4)),
            ("deep/inside.jpg", jpeg_bytes(seed=5)),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    (folder / "media").mkdir()
    fill(folder / "media")
    fill_tar(folder / "packed.tar")
    with Loopback() as server:
        inputs = ["--input", str(folder / "media"), "--input", str(folder / "packed.tar")]
        options = ["--output", str(folder / "corpus"), "--mllm-url", server.url, "--views", "short,objects"]
        assert beam_runner.run(["--stage", "captions", *inputs, *options, "--shard-size", "5"]) == 0
        assert beam_runner.run(["--stage", "verify", "--output", str(folder / "corpus")]) == 0
    return folder / "corpus"


def test_what_is_broken_fails_with_its_type_and_alone(corpus):
    failures = Table(corpus, "items").failures()
    assert {line["id"].removeprefix("media/"): line["error"] for line in failures} == BROKEN
    assert all(line["stage"] == "ingest" and line["message"] and line["attempts"] == 1 for line in failures)
    assert Table(corpus, "descriptions").failures() == []


def test_what_is_odd_is_seen_as_it_is(corpus):
    items = {row["item_id"]: row for row in Table(corpus, "items").rows()}
    for name, (media_type, width, height, frames) in ODD.items():
        row = items[f"media/{name}"]
        assert (row["media_type"], row["width"], row["height"], row["num_frames"]) == (
            media_type,
            width,
            height,
            frames,
        )


def test_tar_members_stay_inside(corpus):
    ids = {row["item_id"] for row in Table(corpus, "items").rows() if row["item_id"].startswith("packed/")}
    assert ids == {"packed/inside", "packed/deep/inside"}


def test_every_neighbour_is_described_by_its_own_picture(corpus):
    items = [row["item_id"] for row in Table(corpus, "items").rows()]
    rows = [(row["item_id"], row["view"], row["text"]) for row in Table(corpus, "descriptions").rows()]
    assert [(item, view) for item, view, _ in rows] == [(item, view) for item in items for view in ("short", "objects")]
    assert len(items) == 6 + len(ODD) + 2
    pictures = {item: text.split()[1] for item, _, text in rows}
    assert len(set(pictures.values())) == len(items) - 0
    assert all(text.startswith(answer_text([], "").split()[0]) for _, _, text in rows)
