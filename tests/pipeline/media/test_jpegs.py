import contextlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import MediaError
from pipeline.media.images import jpegs, without_metadata

TURNED = 9_999  # pixels allowed of the photo that is turned


def photo(mode="RGB", size=(60, 40), format="JPEG", **save):
    pixels = np.random.default_rng(3).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode).save(stream, format, **save)
    return stream.getvalue()


def exif(orientation=1):
    data = Image.Exif()
    data[0x0112] = orientation
    data[0x010F] = "maker of the camera"
    return data.tobytes()


def sent(data, max_pixels=10_000):
    return jpegs(io.BytesIO(data), "image", max_pixels=max_pixels, count=1)[0].data


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(
    "save", [{}, {"progressive": True}, {"quality": 30}, {"subsampling": 0}, {"restart_marker_rows": 1}]
)
def test_the_coded_pixels_go_as_they_are(save):
    data = photo(exif=exif(), comment=b"a secret", icc_profile=b"profile" * 99, **save)
    bare = sent(data)
    assert b"maker of the camera" in data
    for secret in (b"maker of the camera", b"a secret", b"profile"):
        assert secret not in bare
    assert np.array_equal(pixels(bare), pixels(data))


@pytest.mark.parametrize(
    ("data", "max_pixels"),
    [
        (photo(exif=exif(6)), TURNED),
        (photo(format="PNG"), 10_000),
        (photo(), 60 * 40 - 1),
        (photo("CMYK"), 10_000),
    ],
)
def test_what_must_be_touched_is_decoded(data, max_pixels):
    again = Image.open(io.BytesIO(sent(data, max_pixels)))
    assert again.mode == "RGB" and again.format == "JPEG"
    assert (again.size == (40, 60)) == (max_pixels == TURNED)
    assert again.width * again.height <= max_pixels
    assert not again.getexif()


def test_grey_stays_grey():
    data = photo("L")
    assert np.array_equal(pixels(sent(data)), pixels(data))


@given(st.binary(max_size=60))
def test_odd_segments_are_left_to_the_decoder(tail):
    result = without_metadata(b"\xff\xd8" + tail)
    assert result is None or result.startswith(b"\xff\xd8")


@given(st.integers(2, 400), st.integers(0, 255))
def test_a_changed_byte_in_the_header_gives_a_jpeg_or_a_typed_failure(at, value):
    data = bytearray(photo(exif=exif(), comment=b"a secret"))
    data[at] = value
    with contextlib.suppress(MediaError):
        assert sent(bytes(data)).startswith(b"\xff\xd8")
