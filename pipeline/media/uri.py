"""Opening media by their URIs.

A URI is a path, any fsspec URL, or a reference into a container, `CONTAINER#key=value&…` (see `reference`):

    photos.tar#offset=512&size=1234&member=a%2Fb.jpg     a byte range of an uncompressed tar
    train.parquet#column=image&row=17                    a cell of a parquet, Arrow stream or Arrow IPC file
    feature.bin#dim=4096&rows=0-29,35                    rows, from 0 and in that order, of a matrix of little-endian
                                                         float32 without a header: read as `.npy` [rows, dim]

Called from thread pools: nothing opened is shared, except the tables used last, behind a lock.
"""

import contextlib
import functools
import io
import itertools
import re
import threading
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import EnvironmentTrouble, MediaError, PipelineError
from pipeline.media.features import MAX_BYTES, header_bytes

RANGES = re.compile(r"\d{1,18}(-\d{1,18})?(,\d{1,18}(-\d{1,18})?)*")
FLOAT_BYTES = 4
_LOADING = threading.Lock()  # threads that need the same row group at once load it once
NO_MEDIA = (
    "the item was ingested without its media (--allow-missing-media). To use it here, put them into --input and run "
    "--stage ingest --overwrite"
)


def reference(container: str, **where: Any) -> str:
    """URI of a part of a container.

    Args:
        container: Path or URL.
        **where: `offset`, `size` (bytes) and `member`; or `column` and `row`; or `dim` and `rows` (their numbers, or
            ranges as they are written).
    """
    if not isinstance(where.get("rows", ""), str):
        where["rows"] = _ranges(where["rows"])
    quote = functools.partial(urllib.parse.quote, errors="surrogateescape")
    pairs = (f"{key}={quote(str(value), safe=',' if key == 'rows' else '')}" for key, value in where.items())
    return f"{container}#{'&'.join(pairs)}"


def open_media(uri: str) -> BinaryIO:
    """Open a path, fsspec URL or reference as a seekable binary stream; the caller closes it.

    Raises:
        MediaError: `missing`; `truncated` for a range past the container's end; `too_large`; else `unreadable`.
        EnvironmentTrouble: The URL's protocol needs a package that is not installed.
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
    """Turn whatever a decoder or file system raises about `what` into a MediaError or EnvironmentTrouble."""
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
    except Exception as error:  # broken files make decoders and file systems raise exceptions of every type
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
    stream: BinaryIO = fsspec.open(uri, "rb").open()
    if isinstance(stream, io.BytesIO):  # memory:// hands the same object, with one position, to everyone
        return io.BytesIO(stream.getvalue())
    if stream.seekable():
        return stream
    with stream:
        return io.BytesIO(stream.read())


def _inside(path: str) -> str:
    if re.match(r"[/\\]|[A-Za-z][A-Za-z0-9+.-]*:", path) or ".." in re.split(r"[/\\]", path):
        raise MediaError("unreadable", f"{path!r} leads out of its container's folder")
    return path


def _open_range(container: str, offset: int, size: int, member: str) -> BinaryIO:
    _inside(member)
    with _open_plain(container) as stream:
        end = stream.seek(0, io.SEEK_END)
        if offset < 0 or size < 0 or offset + size > end:
            message = f"{container} has {end:,} bytes, but the member is at {offset:,} to {offset + size:,}"
            raise MediaError("truncated", f"{message}: is the file complete, and is it the one that was ingested?")
        stream.seek(offset)
        return io.BytesIO(stream.read(size))


def rows_shape(uri: str) -> tuple[int, int] | None:
    """(rows, values of each) of a reference to rows of a matrix, None for any other URI. Nothing is opened."""
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
        example = "expected for example dim=4096&rows=0-29,35"
        raise MediaError("unreadable", f"got dim={dim} and rows={rows[:80]!r}, {example}")
    ends = (part.partition("-") for part in rows.split(","))
    ranges = [(int(first), int(last or first)) for first, _, last in ends]
    if any(first > last for first, last in ranges):
        raise MediaError("unreadable", f"got rows={rows[:80]!r}, expected the smaller number of a range first")
    return dim, ranges


def _open_rows(container: str, dim: int, ranges: list[tuple[int, int]]) -> BinaryIO:
    """Read only these rows: the matrix of a whole data set may be larger than memory."""
    width, count = dim * FLOAT_BYTES, sum(last + 1 - first for first, last in ranges)
    if count * width > MAX_BYTES:
        raise MediaError("too_large", f"{count:,} rows of {width:,} bytes are more than {MAX_BYTES:,} bytes")
    array = io.BytesIO()
    array.write(header_bytes(count, dim))
    with _open_plain(container) as stream:
        num_rows = stream.seek(0, io.SEEK_END) // width
        for first, last in ranges:
            stream.seek(first * width)
            data = stream.read((last + 1 - first) * width) if last < num_rows else b""
            if last >= num_rows or len(data) < (last + 1 - first) * width:
                message = f"{container} has {num_rows:,} rows of {dim:,} float32 values, but the item's are "
                raise MediaError("truncated", f"{message}{first} to {last}: is the file complete, and {dim} its width?")
            array.write(data)
    array.seek(0)
    return array


def _open_cell(container: str, column: str, row: int) -> BinaryIO:
    array, index = _column(container, column, row)
    cell = array.slice(index, 1)
    cell.validate(full=True)  # or offsets of a broken Arrow file would be followed
    value = cell[0].as_py()
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(data, bytes):
        return io.BytesIO(data)
    if data is None and path:
        folder, slash, _ = container.rpartition("/")
        return _open_plain(f"{folder}{slash}{_inside(path)}")
    if data is None:
        raise MediaError("missing", f"{container}: row {row} of {column} is null")
    raise MediaError("unreadable", f"{container}: {column} is {array.type}, expected binary or struct<bytes, path>")


def _column(container: str, column: str, row: int) -> tuple[pa.ChunkedArray, int]:
    """The column (of a Parquet file: its part in the row group) and the row's index in it."""
    stat = None if _is_url(container) else Path(container).stat()
    version = stat and (stat.st_mtime_ns, stat.st_size)
    with _LOADING:
        table = _open_table(container, version)
        if not 0 <= row < table.num_rows:
            raise MediaError("missing", f"{container} has {table.num_rows} rows, and no row {row}")
        names = table.schema.names if isinstance(table, pa.Table) else table.schema.to_arrow_schema().names
        if column not in names:
            raise MediaError("missing", f"{container} has no column {column!r}, only {', '.join(names)}")
        if isinstance(table, pa.Table):
            return table.column(column), row
        group = 0
        while row >= (rows := table.row_group(group).num_rows):
            group, row = group + 1, row - rows
        return _read_group(container, version, column, group), row


@functools.lru_cache(4)
def _open_table(container: str, version: tuple[int, int] | None) -> pq.FileMetaData | pa.Table:
    with _open_plain(container) as stream:
        magic = stream.read(6)
        stream.seek(0)
        if magic.startswith(b"PAR1"):
            return pq.read_metadata(stream)
        source = pa.BufferReader(stream.read()) if _is_url(container) else pa.memory_map(container)
    return (pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream)(source).read_all()


@functools.lru_cache(4)  # row groups may be 100 MB each
def _read_group(container: str, version: tuple[int, int] | None, column: str, group: int) -> pa.ChunkedArray:
    with _open_plain(container) as stream:
        file = pq.ParquetFile(stream, metadata=_open_table(container, version))
        return file.read_row_group(group, columns=[column]).column(0)
