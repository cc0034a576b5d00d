"""Features of frames or regions that were computed before, as a medium: the bytes of a NumPy array, `.npy`.

T frames or regions · I values of each

The header is read by hand: floats of [T,I], [1,T,I] or [I] are let in, whatever else NumPy could make of a file, and
nothing is unpickled. What is written does not depend on NumPy's version, so that its hash stays.
"""

import dataclasses
import io
import re
from typing import BinaryIO

import numpy as np

from pipeline.errors import MediaError

MAGIC = b"\x93NUMPY"
FEATURE_TYPES = ("float16", "float32")
MAX_BYTES = 256 * 1024 * 1024  # of a medium that is read whole
MAX_HEADER = 10_000  # bytes
ALIGNED = 64  # the header's length is a multiple of this, as the format asks for
CUT_HEADER = "the array is truncated: its header is not whole"


@dataclasses.dataclass(frozen=True)
class Header:
    """What an array says of itself. `offset`: bytes before its values."""

    shape: tuple[int, int]  # T, I
    dtype: np.dtype
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
    """Shape and type, checked, without the values. An array of one dimension is one frame.

    Raises MediaError `unreadable` for what is no array of floats [T,I], `truncated` and `no_frames`.
    """
    stream.seek(0)
    start = stream.read(8)
    if not start.startswith(MAGIC):
        raise MediaError("unreadable", f"the file is no .npy array; it starts with {start!r}")
    if len(start) < 8:
        raise MediaError("truncated", CUT_HEADER)
    size = {1: 2, 2: 4, 3: 4}.get(start[6], 0)
    if not size:
        raise MediaError("unreadable", f"the array is of version {start[6]} of .npy, wanted 1, 2 or 3")
    length = int.from_bytes(_exactly(stream, size), "little")
    if length > MAX_HEADER:
        raise MediaError("unreadable", f"the array's header has {length:,} bytes, the limit is {MAX_HEADER:,}")
    text = _exactly(stream, length).decode("latin-1")
    return Header(_shape(text), _dtype(text), _by_columns(text), 8 + size + length)


def read_features(stream: BinaryIO, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """[T,I], float16 or float32, by rows; float64 becomes float32.

    Raises MediaError as `read_header` does, `too_large` for a file of more than `max_bytes`, and `unreadable` for
    values that are not finite.
    """
    header = read_header(stream)
    size = stream.seek(0, io.SEEK_END)
    if max(size, header.end) > max_bytes:
        raise MediaError("too_large", f"the array has {max(size, header.end):,} bytes, the limit is {max_bytes:,}")
    if size > header.end:
        raise MediaError("unreadable", f"the array ends at byte {header.end:,}, the file has {size:,}: what follows?")
    stream.seek(header.offset)
    data = stream.read(header.end - header.offset)
    if header.offset + len(data) < header.end:
        raise MediaError("truncated", f"the array is truncated: it has {size:,} of {header.end:,} bytes")
    values_TI = np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if header.by_columns else "C")
    with np.errstate(over="ignore"):
        values_TI = np.ascontiguousarray(values_TI, f"f{min(4, header.dtype.itemsize)}")
    if not np.isfinite(values_TI).all():
        raise MediaError("unreadable", "the array holds values that are no finite float32 numbers")
    return values_TI


def to_bytes(features_TI: np.ndarray, dtype: str = "float32") -> bytes:
    """The array as `.npy`. `dtype`: of FEATURE_TYPES. Raises MediaError `too_large` for a value that it cannot hold."""
    if dtype not in FEATURE_TYPES or features_TI.ndim != 2:
        raise ValueError(f"got {features_TI.ndim} dimensions and {dtype}, wanted 2 and one of {FEATURE_TYPES}")
    wanted = np.dtype(dtype).newbyteorder("<")
    largest, limit = float(np.abs(features_TI).max(initial=0)), float(np.finfo(wanted).max)
    if largest > limit:
        more = ": give --feature-type float32" if dtype == "float16" else ""
        raise MediaError("too_large", f"the array holds ±{largest:g}, {dtype} ends at ±{limit:g}{more}")
    rows, width = features_TI.shape
    return header_bytes(rows, width, wanted.str) + features_TI.astype(wanted).tobytes()


def header_bytes(rows: int, width: int, descr: str = "<f4") -> bytes:
    """What stands before the values of an array [rows, width] in an `.npy` file. `descr`: as NumPy spells its types."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {width}), }}"
    padded = text + " " * (-(len(MAGIC) + 4 + len(text) + 1) % ALIGNED) + "\n"
    return MAGIC + b"\1\0" + len(padded).to_bytes(2, "little") + padded.encode("ascii")


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise MediaError("truncated", CUT_HEADER)
    return data


def _dtype(header: str) -> np.dtype:
    found = re.search(r"""['"]descr['"]\s*:\s*(?:['"]([^'"]*)['"])?""", header)
    if not found or not re.fullmatch(r"[<>=|]?f[248]", found[1] or ""):
        got = repr(found[1]) if found and found[1] else "something else"
        raise MediaError("unreadable", f"the array is of {got}, wanted float16 or float32 ('<f2', '<f4')")
    return np.dtype(found[1])


def _by_columns(header: str) -> bool:
    found = re.search(r"""['"]fortran_order['"]\s*:\s*(True|False)""", header)
    if not found:
        raise MediaError("unreadable", f"the array's header does not tell its order: {header[:80]!r}")
    return found[1] == "True"


def _shape(header: str) -> tuple[int, int]:
    found = re.search(r"""['"]shape['"]\s*:\s*\(([\d\s,L]{0,80})\)""", header)
    sizes = [int(size) for size in re.findall(r"\d+", found[1])] if found else []
    if len(sizes) == 3 and sizes[0] == 1:  # a batch of one, as some networks leave it
        sizes = sizes[1:]
    if len(sizes) not in (1, 2):
        got = sizes if found else "no shape"
        raise MediaError("unreadable", f"the array has {got}, wanted two dimensions, [frames or regions, values]")
    rows, width = sizes if len(sizes) == 2 else (1, sizes[0])
    if not rows:
        raise MediaError("no_frames", f"the array has no row: [0, {width}], wanted one frame or region at least")
    if not width:
        raise MediaError("unreadable", f"the array has rows of no values: [{rows}, 0]")
    return rows, width
