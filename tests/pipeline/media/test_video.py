import functools
import io
import struct
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import EnvironmentTrouble, MediaError
from pipeline.media.images import Limits, frames, probe
from tests.pipeline.media.test_images import failure as any_failure
from tests.worked_examples import each_example

av = pytest.importorskip("av", reason="videos need PyAV")

RATE, STEP = 25, 4  # frames a second; frame i has the brightness i * STEP
KINDS = {
    ".mp4": "libx264",
    ".mkv": "libx264",
    ".webm": "libvpx",
    ".avi": "mpeg4",
    ".ts": "libx264",
    ".mpg": "mpeg2video",
    ".flv": "libx264",
}


def encoded(
    path: Path, num_frames: int = 60, codec: str = "libx264", options: dict | None = None, **header: str
) -> bytes:
    """64 × 48, a red corner at the top left, B-frames, a keyframe every 12 frames."""
    with av.open(str(path), "w", format={".ts": "mpegts"}.get(path.suffix), options=options or {}) as container:
        container.metadata.update(header)
        stream = container.add_stream(codec, rate=RATE, options={"sc_threshold": "0"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 12
        if codec != "libvpx":
            stream.max_b_frames = 2
        for i in range(num_frames):
            pixels = np.full((48, 64, 3), i * STEP, np.uint8)
            pixels[:16, :16] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def sampled(data: bytes, count: int) -> list[int]:
    """Indexes of the frames given, each checked: what is seen is what the timestamp says."""
    indexes = []
    for frame in frames(io.BytesIO(data), "video", max_pixels=10**6, count=count):
        index = frame.timestamp_s * RATE
        assert index == pytest.approx(round(index), abs=0.03)
        seen = np.asarray(frame.image.convert("L"))[20:, 20:].mean() / STEP
        assert seen == pytest.approx(index, abs=0.9)
        indexes.append(round(index))
    return indexes


@pytest.mark.parametrize("suffix", [suffix for suffix in KINDS if suffix != ".mpg"])
def test_frames_at_the_middles_of_equal_slices(tmp_path, suffix):
    data = encoded(tmp_path / f"x{suffix}", codec=KINDS[suffix])
    found = probe(io.BytesIO(data))
    assert (found.media_type, found.width, found.height, found.num_frames) == ("video", 64, 48, 60)
    assert found.duration_s == pytest.approx(2.4)
    assert sampled(data, 8) == [3, 11, 18, 26, 33, 41, 48, 56]
    assert sampled(data, 1) == [30]


@pytest.mark.parametrize("suffix", KINDS)
def test_fewer_frames_than_asked_give_each_once(tmp_path, suffix):
    assert sampled(encoded(tmp_path / f"x{suffix}", 20, KINDS[suffix]), 25) == list(range(20))


def test_a_matroska_without_a_duration(tmp_path):
    data = encoded(tmp_path / "x.mkv", options={"live": "1"})
    with av.open(io.BytesIO(data)) as container:
        assert container.duration is None
    summary = probe(io.BytesIO(data))
    assert (summary.num_frames, summary.duration_s) == (60, pytest.approx(2.4, abs=0.01))
    assert sampled(data, 8) == [3, 11, 18, 26, 33, 41, 48, 56]


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_rotation_of_the_track_is_applied(tmp_path, turn):
    data = bytearray(encoded(tmp_path / "x.mp4"))
    place = data.index(b"tkhd") + 44  # the matrix; its units are 1/65536, of the last column 1/2^30
    a, b = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]  # clockwise
    data[place : place + 36] = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    found = probe(io.BytesIO(data))
    assert (found.width, found.height) == ((48, 64) if turn % 180 else (64, 48))
    image = frames(io.BytesIO(data), found.media_type, max_pixels=32 * 24, count=1)[0].image
    assert image.size == (found.width // 2, found.height // 2)
    right, bottom = image.width - 4, image.height - 4
    red = {0: (4, 4), 90: (right, 4), 180: (right, bottom), 270: (4, bottom)}
    assert {t for t, corner in red.items() if image.getpixel(corner)[0] > 200} == {turn}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".ts"])
def test_a_cut_tail_gives_what_can_be_decoded(tmp_path, suffix):
    options = {"movflags": "faststart"} if suffix == ".mp4" else None
    data = encoded(tmp_path / f"x{suffix}", codec=KINDS[suffix], options=options)
    cut = data[: int(len(data) * 0.8)]
    assert probe(io.BytesIO(cut)).media_type == "video"
    indexes = sampled(cut, 4)
    assert len(indexes) == 4 and indexes == sorted(set(indexes)) and indexes[-1] < 56


def painted(path: Path, planes: tuple, codec: str = "libx264", pix_fmt: str = "yuv420p", ratio=None, **colours):
    """A video of ten frames whose planes have these values."""
    with av.open(str(path), "w") as container:
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        for name, value in {**colours, **({"sample_aspect_ratio": ratio} if ratio else {})}.items():
            setattr(stream.codec_context, name, value)
        for number in range(10):
            frame = av.VideoFrame(96, 64, pix_fmt)
            frame.pts, frame.colorspace, frame.color_range = number, colours.get("colorspace", 1), 1
            for plane, value in zip(frame.planes, planes, strict=True):
                number_type = np.dtype("<u2" if "10" in pix_fmt else "u1")
                plane.update(np.full(plane.buffer_size // number_type.itemsize, value, number_type).tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


@each_example("pixels_that_are_not_square_are_stretched", "suffix, ratio, size")
def test_pixels_that_are_not_square_are_stretched(tmp_path, suffix, ratio, size):
    data = painted(tmp_path / f"x{suffix}", (90, 128, 128), KINDS[suffix], ratio=Fraction(ratio))
    summary = probe(io.BytesIO(data))
    assert (summary.width, summary.height) == pytest.approx(size, abs=1)
    image = frames(io.BytesIO(data), "video", max_pixels=10**6, count=1)[0].image
    assert image.size == (summary.width, summary.height)
    small = frames(io.BytesIO(data), "video", max_pixels=2000, count=1)[0].image
    assert small.width / small.height == pytest.approx(size[0] / size[1], rel=0.05)


WIDE = {"color_primaries": 9, "colorspace": 9}


@each_example("hdr_and_wide_colours_become_srgb", "transfer, planes, low, high")
def test_hdr_and_wide_colours_become_srgb(tmp_path, transfer, planes, low, high):
    data = painted(tmp_path / "x.mp4", planes, "libx265", "yuv420p10le", **WIDE, color_trc=transfer)
    for frame in frames(io.BytesIO(data), "video", max_pixels=10**6, count=2):
        pixel = frame.image.getpixel((20, 20))
        assert all(least <= value <= most for least, value, most in zip(low, pixel, high, strict=True)), pixel


@pytest.mark.parametrize(
    ("suffix", "codec", "unknown"),
    [(".mov", b"avc1", b"q9z1"), (".mkv", b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/QQQ"), (".avi", b"FMP4", b"QQZ1")],
)
def test_an_unknown_codec_is_named_as_the_reason(tmp_path, suffix, codec, unknown):
    data = encoded(tmp_path / f"x{suffix}", codec=KINDS.get(suffix, "libx264")).replace(codec, unknown)
    error = failure(data)
    assert error.kind == "unreadable" and "codec" in str(error) and "attribute" not in str(error)


failure = functools.partial(any_failure, media_type="video")


def test_a_file_without_frames(tmp_path):
    data = bytearray(encoded(tmp_path / "x.avi", codec="mpeg4"))
    start = data.index(b"movi")
    data[start + 4 : data.index(b"idx1")] = bytes(data.index(b"idx1") - start - 4)
    assert failure(bytes(data)).kind == "no_frames"


def test_a_video_without_its_index_or_beyond_the_limit_is_refused(tmp_path):
    data = encoded(tmp_path / "x.mp4")
    assert failure(data[: len(data) // 2]).kind == "truncated"
    assert failure(data, Limits(max_source_pixels=64 * 48 - 1)).kind == "too_large"


def test_playlists_lead_to_no_other_file(tmp_path, monkeypatch):
    encoded(tmp_path / "x.ts")
    monkeypatch.chdir(tmp_path)
    for playlist in (b"ffconcat version 1.0\nfile x.ts\n", b"#EXTM3U\n#EXTINF:2.4,\nx.ts\n#EXT-X-ENDLIST\n"):
        assert failure(playlist).kind == "unreadable"


CORRUPTIBLE: list[bytes] = []


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_corrupted_videos_give_frames_or_media_errors(tmp_path_factory, data):
    if not CORRUPTIBLE:
        folder = tmp_path_factory.mktemp("corruptible")
        CORRUPTIBLE.extend(encoded(folder / f"x{suffix}", 15, KINDS[suffix]) for suffix in KINDS)
    broken = bytearray(data.draw(st.sampled_from(CORRUPTIBLE)))
    for _ in range(data.draw(st.integers(0, 8))):
        broken[data.draw(st.integers(8, len(broken) - 1))] = data.draw(st.integers(0, 255))
    broken = broken[: data.draw(st.integers(0, len(broken)))] if data.draw(st.booleans()) else broken
    try:
        found = probe(io.BytesIO(broken))
        given_frames = frames(io.BytesIO(broken), found.media_type, max_pixels=400, count=3)
        assert given_frames and all(frame.image.mode == "RGB" for frame in given_frames)
        assert found.num_frames >= 1
    except MediaError:
        pass


def test_without_pyav_a_video_names_what_is_missing(tmp_path, monkeypatch):
    data = encoded(tmp_path / "x.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(EnvironmentTrouble, match=r"leccr\[video\]"):
        probe(io.BytesIO(data))
