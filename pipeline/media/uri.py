"""Opening media from where they lie.

A URI is a path, any fsspec URL, or a reference into a container, `CONTAINER#key=value&…` (see `reference`):

    photos.tar#offset=512&size=1234&member=a%2Fb.jpg     a byte range of an uncompressed tar
    train.parquet#column=image&row=17                    a cell of a parquet, Arrow stream or Arrow IPC file
    feature.bin#dim=4096&rows=0-29,35                    rows, from 0 and in that order, of a matrix of little-endian
                                                         float32 without a header: read as `.npy` [rows, dim]

Called from thread pools: nothing opened is shared, except tables behind the locks of `_TABLES`.
"""

import collections
import contextlib
import io
import itertools
import re
import threading
import urllib.parse
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import EnvironmentTrouble, MediaError, PipelineError
from pipeline.media.features import MAX_BYTES, header_bytes

RANGES = re.compile(r"\d{1,18}(-\d{1,18})?(,\d{1,18}(-\d{1,18})?)*")
FLOAT_BYTES = 4
NO_MEDIA = (
    "the item was ingested without its media (--allow-missing-media), for its texts alone: to use it here, put them "
    "where --input is, and run --stage ingest --overwrite"
)


def reference(container: str, **where: Any) -> str:
    """URI of what lies in a container: `offset`, `size` (bytes) and `member`, or `column` and `row`, or `dim` and
    `rows` (their numbers, or ranges as they are written)."""
    if not isinstance(where.get("rows", ""), str):
        where["rows"] = _ranges(where["rows"])
    safe = {"rows": ","}
    quoted = (
        f"{key}={urllib.parse.quote(str(value), safe=safe.get(key, ''), errors='surrogateescape')}"
        for key, value in where.items()
    )
    return f"{container}#{'&'.join(quoted)}"


def open_media(uri: str) -> BinaryIO:
    """A seekable binary stream on a path, fsspec URL or reference; the caller closes it.

    Raises MediaError `missing` for what is not there, `truncated` for a byte range past the container's end,
    `unreadable` for anything else, and EnvironmentTrouble where a URL's protocol needs a package.
    """
    if not uri:
        raise MediaError("missing", NO_MEDIA)
    with typed_failures(uri):
        parsed = _parsed(uri)
        if parsed is None:
            return _open_plain(uri)
        if not _is_url(uri):
            with contextlib.suppress(OSError):  # a file whose name holds a # comes first
                return Path(uri).open("rb")
        container, where = parsed
        if "row" in where:
            return _open_cell(container, where["column"], int(where["row"]))
        if "rows" in where:
            return _open_rows(container, *_matrix(where))
        return _open_range(container, int(where["offset"]), int(where["size"]), where.get("member", ""))


@contextlib.contextmanager
def typed_failures(what: str) -> Iterator[None]:
    try:
        yield
    except (MediaError, PipelineError):
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaError("missing", f"{what}: there is no such file") from error
    except ImportError as error:
        raise EnvironmentTrouble(f"{what}: {error}") from error
    except MemoryError as error:
        raise MediaError("too_large", f"{what}: does not fit into memory") from error
    except Exception as error:  # a broken file leads decoders and file systems into exceptions of every type
        message = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
        cut = isinstance(error, EOFError) or "truncated" in message.lower()
        raise MediaError("truncated" if cut else "unreadable", f"{what}: {message}") from error


def _is_url(uri: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)", uri) is not None


def _parsed(uri: str) -> tuple[str, dict[str, str]] | None:
    container, _, fragment = uri.rpartition("#")
    pairs = (part.partition("=") for part in fragment.split("&"))
    where = {key: urllib.parse.unquote(value, errors="surrogateescape") for key, _, value in pairs}
    is_reference = any(keys <= where.keys() for keys in ({"offset", "size"}, {"column", "row"}, {"dim", "rows"}))
    return (container, where) if container and is_reference else None


def _open_plain(uri: str) -> BinaryIO:
    if not _is_url(uri):
        return Path(uri).open("rb")
    stream = fsspec.open(uri, "rb").open()
    if isinstance(stream, io.BytesIO):  # memory:// hands the same object, with one position, to everyone
        return io.BytesIO(stream.getvalue())
    if stream.seekable():
        return stream
    with stream:
        return io.BytesIO(stream.read())


def _inside(path: str) -> str:
    if re.match(r"[/\\]|[A-Za-z][A-Za-z0-9+.-]*:", path) or ".." in re.split(r"[/\\]", path):
        raise MediaError("unreadable", f"{path!r} leads out of its container's folder: refused")
    return path


def _open_range(container: str, offset: int, size: int, member: str) -> BinaryIO:
    _inside(member)
    with _open_plain(container) as stream:
        end = stream.seek(0, io.SEEK_END)
        if offset < 0 or size < 0 or offset + size > end:
            got = f"wanted bytes {offset} to {offset + size} of {container}, which has {end}"
            raise MediaError("truncated", f"{got}: is it whole, and the one that was listed?")
        stream.seek(offset)
        return io.BytesIO(stream.read(size))


def rows_shape(uri: str) -> tuple[int, int] | None:
    """(rows, values of each) that a reference to rows of a matrix names; None for any other URI. Nothing is opened."""
    with typed_failures(uri):
        parsed = _parsed(uri)
        if parsed is None or "rows" not in parsed[1] or "row" in parsed[1]:
            return None
        dim, ranges = _matrix(parsed[1])
        return sum(last + 1 - first for first, last in ranges), dim


def _ranges(rows: Iterable[int]) -> str:
    """Numbers of rows as ranges, in the order given.

    >>> _ranges([4, 5, 6, 9, 2, 3])
    '4-6,9,2-3'
    """
    runs = itertools.groupby(enumerate(rows), lambda pair: pair[1] - pair[0])
    ends = [(run[0][1], run[-1][1]) for _, pairs in runs if (run := list(pairs))]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)


def _matrix(where: dict[str, str]) -> tuple[int, list[tuple[int, int]]]:
    """(values of a row, first and last row of each range) of a reference."""
    dim, rows = int(where["dim"]), where["rows"]
    if dim < 1 or not RANGES.fullmatch(rows):
        raise MediaError(
            "unreadable", f"got dim={dim} and rows={rows[:80]!r}, wanted for example dim=4096&rows=0-29,35"
        )
    ends = (part.partition("-") for part in rows.split(","))
    ranges = [(int(first), int(last or first)) for first, _, last in ends]
    if backwards := next((span for span in ranges if span[0] > span[1]), None):
        raise MediaError("unreadable", f"got rows {backwards[0]}-{backwards[1]}, wanted the smaller number first")
    return dim, ranges


def _open_rows(container: str, dim: int, ranges: list[tuple[int, int]]) -> BinaryIO:
    """Only these rows are read: the matrix of a whole data set may be larger than memory."""
    width, count = dim * FLOAT_BYTES, sum(last + 1 - first for first, last in ranges)
    if count * width > MAX_BYTES:
        raise MediaError("too_large", f"{count:,} rows of {width:,} bytes are more than {MAX_BYTES:,} bytes")
    made = io.BytesIO()
    made.write(header_bytes(count, dim))
    with _open_plain(container) as stream:
        there = stream.seek(0, io.SEEK_END) // width
        for first, last in ranges:
            stream.seek(first * width)
            data = stream.read((last + 1 - first) * width) if last < there else b""
            if last >= there or len(data) < (last + 1 - first) * width:
                got = f"wanted rows {first} to {last} of {container}, which has {there:,} of {dim:,} float32 values"
                raise MediaError("truncated", f"{got}: is it whole, and is that its width?")
            made.write(data)
    made.seek(0)
    return made


def _open_cell(container: str, column: str, row: int) -> BinaryIO:
    array, index = _column(container, column, row)
    cell = array.slice(index, 1)
    cell.validate(full=True)  # offsets of a broken Arrow file must not be followed
    value = cell[0].as_py()
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(data, bytes):
        return io.BytesIO(data)
    if data is None and path:
        folder, slash, _ = container.rpartition("/")
        return _open_plain(f"{folder}{slash}{_inside(path)}")
    if data is None:
        raise MediaError("missing", f"{container}: row {row} of {column} is null")
    raise MediaError("unreadable", f"{container}: {column} is {array.type}, wanted binary or struct<bytes, path>")


def _column(container: str, column: str, row: int) -> tuple[pa.ChunkedArray, int]:
    """The column, or of a parquet file the row group's part of it, and the row's place therein."""
    stat = None if _is_url(container) else Path(container).stat()
    key = (container, stat and (stat.st_mtime_ns, stat.st_size))
    table = _TABLES.get(key, lambda: _open_table(container))
    if not 0 <= row < table.num_rows:
        raise MediaError("missing", f"{container}: wanted row {row}, it has {table.num_rows}")
    names = table.schema.names if isinstance(table, pa.Table) else table.schema.to_arrow_schema().names
    if column not in names:
        raise MediaError("missing", f"{container}: has no column {column!r}, it has {', '.join(names)}")
    if isinstance(table, pa.Table):
        return table.column(column), row
    group = 0
    while row >= (rows := table.row_group(group).num_rows):
        group, row = group + 1, row - rows

    def read() -> pa.ChunkedArray:
        with _open_plain(container) as stream:
            return pq.ParquetFile(stream, metadata=table).read_row_group(group, columns=[column]).column(0)

    return _TABLES.get((*key, column, group), read), row


def _open_table(container: str) -> pq.FileMetaData | pa.Table:
    with _open_plain(container) as stream:
        magic = stream.read(6)
        stream.seek(0)
        if magic.startswith(b"PAR1"):
            return pq.read_metadata(stream)
        source = pa.BufferReader(stream.read()) if _is_url(container) else pa.memory_map(container)
    return (pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream)(source).read_all()


class _Recent:
    """The most recently used values, each loaded once however many threads ask for it at a time."""

    def __init__(self, size: int):
        self._size = size
        self._lock = threading.Lock()
        self._entries: collections.OrderedDict[Hashable, tuple[threading.Lock, list]] = collections.OrderedDict()

    def get(self, key: Hashable, load: Callable[[], Any]) -> Any:
        with self._lock:
            lock, value = self._entries.setdefault(key, (threading.Lock(), []))
            self._entries.move_to_end(key)
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)
        with lock:
            if not value:
                value.append(load())
            return value[0]


_TABLES = _Recent(6)  # row groups may be 100 MB each
