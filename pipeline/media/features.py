"""Precomputed features of frames or regions, as a medium: the bytes of a NumPy array, `.npy`.

T frames or regions, I values of each. Floats of shape [T,I], [1,T,I] or [I] are accepted, and nothing is unpickled.
What is written does not depend on NumPy's version, so that its hash stays the same.
"""

import io
from typing import BinaryIO

import numpy as np
import numpy.lib.format as npy

from pipeline.errors import MediaError

MAGIC = npy.MAGIC_PREFIX
FEATURE_TYPES = ("float16", "float32")
MAX_BYTES = 256 * 1024 * 1024  # largest medium that is read whole
MAX_HEADER = 10_000  # bytes
ALIGNMENT = 64  # the header's length is a multiple of this, as the format demands


def is_features(stream: BinaryIO) -> bool:
    """Whether the stream holds a NumPy array, by its first bytes."""
    stream.seek(0)
    return stream.read(len(MAGIC)) == MAGIC


def read_header(stream: BinaryIO) -> tuple[tuple[int, int], int]:
    """Read and check shape and type, without the values. An array of one dimension is one frame.

    Returns:
        The shape [T,I], and the number of bytes that the whole file should have.

    Raises:
        MediaError: `unreadable` for anything but floats [T,I], `truncated`, or `no_frames`.
    """
    stream.seek(0)
    start = io.BytesIO(stream.read(MAX_HEADER))
    try:
        # The header of version 3 differs only in the encoding of field names, and floats have none.
        readers = {1: npy.read_array_header_1_0, 2: npy.read_array_header_2_0, 3: npy.read_array_header_2_0}
        sizes, _, dtype = readers[npy.read_magic(start)[0]](start, max_header_size=MAX_HEADER)
    except Exception as error:  # NumPy's parser raises several types
        kind = "truncated" if is_features(stream) and str(error).startswith("EOF") else "unreadable"
        raise MediaError(kind, f"the header of the array cannot be read: {error}") from error
    if len(sizes) == 3 and sizes[0] == 1:  # a batch of one, as some networks leave it
        sizes = sizes[1:]
    rows, width = (1, *sizes)[-2:] if len(sizes) in (1, 2) else (1, 0)
    if dtype.kind != "f" or dtype.itemsize > 8 or width < 1:
        expected = "expected float16 or float32 of shape [frames or regions, values]"
        raise MediaError("unreadable", f"the array holds {dtype} of shape {sizes}, {expected}")
    if rows < 1:
        raise MediaError("no_frames", f"the array has no rows: its shape is {sizes}")
    return (rows, width), start.tell() + rows * width * dtype.itemsize


def read_features(stream: BinaryIO, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Read the values.

    Args:
        stream: Seekable bytes.
        max_bytes: Largest file.

    Returns:
        [T,I] by rows, float16 or float32; float64 becomes float32.

    Raises:
        MediaError: As `read_header`; `too_large`; `unreadable` for values that are not finite.
    """
    shape, num_bytes = read_header(stream)
    size = stream.seek(0, io.SEEK_END)
    if max(size, num_bytes) > max_bytes:
        raise MediaError("too_large", f"the array has {max(size, num_bytes):,} bytes, the limit is {max_bytes:,}")
    if size != num_bytes:
        kind, problem = ("truncated", "is truncated") if size < num_bytes else ("unreadable", "does not end the file")
        raise MediaError(kind, f"the array {problem}: it should have {num_bytes:,} bytes, the file has {size:,}")
    stream.seek(0)
    values = npy.read_array(stream, allow_pickle=False, max_header_size=MAX_HEADER).reshape(shape)
    with np.errstate(over="ignore"):
        values_TI = np.ascontiguousarray(values, f"f{min(4, values.itemsize)}")
    if not np.isfinite(values_TI).all():
        raise MediaError("unreadable", "the array holds values that are not finite float32 numbers")
    return values_TI


def to_bytes(features_TI: np.ndarray, dtype: str = "float32") -> bytes:
    """The array as `.npy`.

    Args:
        features_TI: [T,I].
        dtype: One of FEATURE_TYPES.

    Raises:
        MediaError: `too_large` for a value that the type cannot hold.
    """
    stored = np.dtype(dtype).newbyteorder("<")
    largest, limit = float(np.abs(features_TI).max(initial=0)), float(np.finfo(stored).max)
    if largest > limit:
        hint = ": give --feature-type float32" if dtype == "float16" else ""
        raise MediaError("too_large", f"the array holds ±{largest:g}, but {dtype} ends at ±{limit:g}{hint}")
    rows, width = features_TI.shape
    return header_bytes(rows, width, stored.str) + features_TI.astype(stored).tobytes()


def header_bytes(rows: int, width: int, descr: str = "<f4") -> bytes:
    """The header of an `.npy` file that holds an array [rows, width]. `descr` is the type as NumPy spells it."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {width}), }}"
    padded = text + " " * (-(len(MAGIC) + 4 + len(text) + 1) % ALIGNMENT) + "\n"
    return MAGIC + b"\1\0" + len(padded).to_bytes(2, "little") + padded.encode("ascii")
