"""Precomputed features of frames or regions, as a medium: the bytes of a NumPy array, `.npy`.

T frames or regions, I values of each. Floats of shape [T,I], [1,T,I] or [I] are accepted, and nothing is unpickled.
What is written does not depend on NumPy's version, so that its hash stays the same.
"""

import dataclasses
import io
from typing import Any, BinaryIO

import numpy as np

from pipeline.errors import MediaError

MAGIC = b"\x93NUMPY"
FEATURE_TYPES = ("float16", "float32")
MAX_BYTES = 256 * 1024 * 1024  # of a medium that is read whole
MAX_HEADER = 10_000  # bytes
HEADER_READERS: dict[int, Any] = {  # by major version
    1: np.lib.format.read_array_header_1_0,
    2: np.lib.format.read_array_header_2_0,
    3: np.lib.format.read_array_header_2_0,  # which differs in the names of fields, and floats have none
}
ALIGNMENT = 64  # the header's length is a multiple of this, as the format demands


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of an array. `offset` is the number of bytes before its values."""

    shape: tuple[int, int]  # T, I
    dtype: np.dtype[Any]
    by_columns: bool
    offset: int

    @property
    def end(self) -> int:
        """Bytes of the whole file."""
        return self.offset + self.shape[0] * self.shape[1] * self.dtype.itemsize


def is_features(stream: BinaryIO) -> bool:
    """Whether the stream holds a NumPy array, by its first bytes."""
    stream.seek(0)
    return stream.read(len(MAGIC)) == MAGIC


def read_header(stream: BinaryIO) -> Header:
    """Read and check shape and type, without the values. An array of one dimension is one frame.

    Raises:
        MediaError: `unreadable` for anything but floats [T,I], `truncated`, or `no_frames`.
    """
    stream.seek(0)
    start = io.BytesIO(stream.read(MAX_HEADER))
    try:
        major, _ = np.lib.format.read_magic(start)
        sizes, by_columns, dtype = HEADER_READERS[major](start, max_header_size=MAX_HEADER)
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
    return Header((rows, width), dtype, by_columns, start.tell())


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
    header = read_header(stream)
    size = stream.seek(0, io.SEEK_END)
    if max(size, header.end) > max_bytes:
        raise MediaError("too_large", f"the array has {max(size, header.end):,} bytes, the limit is {max_bytes:,}")
    if size > header.end:
        raise MediaError("unreadable", f"the array ends at byte {header.end:,} but the file has {size:,} bytes")
    stream.seek(header.offset)
    data = stream.read(header.end - header.offset)
    if header.offset + len(data) < header.end:
        raise MediaError("truncated", f"the array is truncated: it has {size:,} of {header.end:,} bytes")
    values_TI = np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if header.by_columns else "C")
    with np.errstate(over="ignore"):
        values_TI = np.ascontiguousarray(values_TI, f"f{min(4, header.dtype.itemsize)}")
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
    if dtype not in FEATURE_TYPES or features_TI.ndim != 2:
        raise ValueError(f"got {features_TI.ndim} dimensions and {dtype}, expected 2 and one of {FEATURE_TYPES}")
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
