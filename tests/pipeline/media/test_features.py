"""Arrays of features as NumPy itself writes them, and what must be refused."""

import io

import numpy as np
import pytest

from pipeline.errors import MediaError
from pipeline.media.features import MAGIC, header_bytes, read_features, to_bytes
from pipeline.media.images import Limits, Probe, frames, jpegs, probe

WHOLE = to_bytes(np.arange(12, dtype=np.float32).reshape(3, 4))


def saved(array, **how):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **how)
    return stream.getvalue()


def refused(data, read=read_features, **how):
    with pytest.raises(MediaError) as caught:
        read(io.BytesIO(data), **how)
    return caught.value.kind


@pytest.mark.parametrize("descr", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_what_numpy_writes_is_read(descr, order, version):
    array = np.asarray(np.random.default_rng(0).normal(size=(5, 7)), descr, order)
    read = read_features(io.BytesIO(saved(array, version=version)))
    assert read_features(io.BytesIO(saved(array[np.newaxis]))).shape == (5, 7)  # a batch of one
    assert read.dtype == (np.float16 if descr[1:] == "f2" else np.float32) and read.flags.c_contiguous
    assert np.array_equal(read, array.astype(read.dtype))


def test_the_bytes_stay_whatever_numpy_does():
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }"
    assert to_bytes(np.array([[0, 1]], np.float64)) == (
        b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117) + b"\n" + bytes([0, 0, 0, 0, 0, 0, 0x80, 0x3F])
    )
    for dtype in ("float16", "float32"):
        array = np.random.default_rng(0).normal(size=(40, 3000)).astype(dtype)
        assert np.array_equal(np.load(io.BytesIO(to_bytes(array, dtype)), allow_pickle=False), array)


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.array([[None, {}]], object), "unreadable"),
        (np.zeros((2, 3), np.int64), "unreadable"),
        (np.zeros((2, 3, 4)), "unreadable"),
        (np.zeros((2, 0)), "unreadable"),
        (np.zeros((0, 3)), "no_frames"),
        (np.array([[1, np.nan]]), "unreadable"),
        (np.array([[1, 1e39]]), "unreadable"),
    ],
)
def test_only_finite_floats_are_read(array, kind):
    assert refused(saved(np.asarray(array))) == kind


def test_a_wrong_size_is_refused_before_the_values_are_read():
    assert refused(WHOLE, max_bytes=len(WHOLE) - 1) == "too_large"
    assert refused(header_bytes(10**9, 10**9)) == "too_large"
    assert refused(WHOLE + b"x") == "unreadable"
    assert refused(MAGIC + b"\4\0" + WHOLE[8:]) == "unreadable"
    assert refused(MAGIC + b"\2\0\xff\xff\xff\x7f" + WHOLE[8:]) == "truncated"


def test_a_value_that_the_type_cannot_hold():
    limit = np.array([[-65504.0]])
    assert np.array_equal(read_features(io.BytesIO(to_bytes(limit, "float16"))), limit)
    for array, dtype in ((limit - 8, "float16"), (np.array([[1e39]]), "float32")):
        with pytest.raises(MediaError, match=f"{dtype} ends at") as caught:
            to_bytes(array, dtype)
        assert caught.value.kind == "too_large"
        assert ("give --feature-type float32" in str(caught.value)) == (dtype == "float16")


def test_features_are_a_medium_without_pictures():
    assert probe(io.BytesIO(WHOLE)) == Probe("video", 0, 0, 3, None)
    assert probe(io.BytesIO(saved(np.zeros(9)))) == Probe("image", 0, 0, 1, None)
    assert refused(WHOLE, probe, limits=Limits(max_source_bytes=99)) == "too_large"
    for read, media_type in ((frames, "video"), (jpegs, "image")):
        assert refused(WHOLE, read, media_type=media_type, max_pixels=100, count=3) == "unreadable"
