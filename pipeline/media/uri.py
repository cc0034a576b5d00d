"""Opening media by their URIs.

A URI is a path, any fsspec URL, or a reference into a container, `CONTAINER#key=value&…` (see `reference`):

    photos.tar#offset=512&size=1234&member=a%2Fb.jpg     a byte range of an uncompressed tar
    train.parquet#column=image&row=17                    a cell of a parquet, Arrow stream or Arrow IPC file
    feature.bin#dim=4096&rows=0-29,35                    rows, from 0 and in that order, of a matrix of little-endian
                                                         float32 without a header: read as `.npy` [rows, dim]

Only regular files are read, and failures concern one record. A server may stall, drip or never end: calls that wait for
one are made in threads of their own, which are left behind when the time is up or the run is asked to stop.

Called from thread pools: nothing opened is shared, except the tables used last, behind a lock.
"""

import concurrent.futures
import contextlib
import functools
import importlib.util
import io
import itertools
import os
import re
import stat
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import TOO_MANY_FILES, EnvironmentTrouble, Interrupted, MediaError, PipelineError, too_many_files
from pipeline.media.features import MAX_BYTES, header_bytes
from pipeline.storage.object_path import SCHEMES, ObjectPath

ROWS = re.compile(r"\d{1,18}(-\d{1,18})?(,\d{1,18}(-\d{1,18})?)*")
FLOAT_BYTES = 4
BATCH_ROWS = 1024
_LOADING = threading.Lock()  # threads that need the same row group at once load it once
PATIENCE_S = 60.0  # how long a URL may keep its reader waiting, in all
STORE_PATIENCE_S = 240.0  # the same for an object store, which is asked again for three minutes if it is away
LEAST_RATE = 100_000  # bytes a second; what has arrived extends PATIENCE_S at this rate
POLL_S = 0.1
URL_BUFFER, FILE_BUFFER = 1 << 20, 1 << 16  # bytes
MISSING = (404, 410)  # HTTP

T = TypeVar("T")
_thread = threading.local()  # `stopped`, in the threads of MediaThreads


def reference(container: str, **where: Any) -> str:
    """URI of a part of a container.

    Args:
        container: Path or URL.
        **where: `offset`, `size` (bytes) and `member`; or `column` and `row`, with `index` where the cell is a list; or
            `dim` and `rows` (their numbers, or ranges as they are written).
    """
    if not isinstance(where.get("rows", ""), str):
        where["rows"] = _format_rows(where["rows"])
    safe = "," if "rows" in where else ""
    return f"{container}#{urllib.parse.urlencode(where, safe=safe, quote_via=urllib.parse.quote)}"


def open_media(uri: str) -> BinaryIO:
    """Open a path, fsspec URL or reference as a seekable binary stream; the caller closes it.

    Reading raises these errors too.

    Raises:
        MediaError: `missing`; `truncated` for a range past the container's end; `too_large`; else `unreadable`.
        EnvironmentTrouble: The URL's protocol needs a package that is not installed, or too many files are open.
    """
    if not uri:
        message = "the item was ingested without its media: put them into --input and run --stage ingest --overwrite"
        raise MediaError("missing", message)
    with typed_failures(uri):
        parsed = _parse_reference(uri)
        if parsed is None:
            return open_file(uri)
        if not is_url(uri) and os.path.exists(uri):  # noqa: PTH110 - Path.exists refuses long names
            return open_file(uri)  # a file whose name holds a # comes first
        container, where = parsed
        if "row" in where:
            return _open_cell(container, where["column"], int(where["row"]), int(where.get("index", 0)))
        if "rows" in where:
            return _open_rows(container, *_parse_rows(where))
        return _open_range(container, int(where["offset"]), int(where["size"]))


def _parse_reference(uri: str) -> tuple[str, dict[str, str]] | None:
    container, _, fragment = uri.rpartition("#")
    where = dict(urllib.parse.parse_qsl(fragment, keep_blank_values=True))
    is_reference = any(keys <= where.keys() for keys in ({"offset", "size"}, {"column", "row"}, {"dim", "rows"}))
    return (container, where) if container and is_reference else None


def stamp(uri: str) -> str:
    """Size and time of change of the file behind a URI; "" for one that is not on this machine."""
    parsed = None if is_url(uri) else _parse_reference(uri)
    for path in (uri, parsed[0] if parsed else ""):
        with contextlib.suppress(OSError):
            if path and not is_url(path):
                status = os.stat(path)  # noqa: PTH116 - Path.stat costs twice the time
                return f"{status.st_size} {status.st_mtime_ns}"
    return ""


def stays_inside(path: str) -> bool:
    """Whether a relative path or the name of a member leads to no place outside its folder."""
    parts = re.split(r"[/\\]", path)
    return not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path) and "\0" not in path and parts[0] != "" and ".." not in parts


def _open_range(container: str, offset: int, size: int) -> BinaryIO:
    with open_file(container) as stream:
        end = stream.seek(0, io.SEEK_END)
        if offset < 0 or size < 0 or offset + size > end:
            message = f"{container} has {end:,} bytes, but the member is at {offset:,} to {offset + size:,}"
            raise MediaError("truncated", f"{message}: is the file complete, and is it the one that was ingested?")
        stream.seek(offset)
        return io.BytesIO(stream.read(size))


def rows_shape(uri: str) -> tuple[int, int] | None:
    """(rows, values of each) of a reference to rows of a matrix, None for any other URI. Nothing is opened."""
    with typed_failures(uri):
        _, where = _parse_reference(uri) or ("", {})
        if "rows" not in where:
            return None
        dim, ranges = _parse_rows(where)
        return sum(map(len, ranges)), dim


def _format_rows(rows: Iterable[int]) -> str:
    """Numbers of rows as ranges, in the order given.

    >>> _format_rows([4, 5, 6, 9, 2, 3])
    '4-6,9,2-3'
    """
    runs = itertools.groupby(enumerate(rows), lambda pair: pair[1] - pair[0])
    ends = [(run[0][1], run[-1][1]) for _, pairs in runs if (run := list(pairs))]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)


def _parse_rows(where: dict[str, str]) -> tuple[int, list[range]]:
    """(values of a row, the ranges of rows) of a reference."""
    dim, rows = int(where["dim"]), where["rows"]
    ranges = []
    if ROWS.fullmatch(rows):
        ends = (part.partition("-") for part in rows.split(","))
        ranges = [range(int(first), int(last or first) + 1) for first, _, last in ends]
    if dim < 1 or not ranges or not all(ranges):
        raise MediaError("unreadable", f"dim={dim}&rows={rows[:80]} is not of the form dim=4096&rows=0-29,35")
    return dim, ranges


def _open_rows(container: str, dim: int, ranges: list[range]) -> BinaryIO:
    """Read only these rows: the matrix of a whole data set may be larger than memory."""
    width, count = dim * FLOAT_BYTES, sum(map(len, ranges))
    if count * width > MAX_BYTES:
        raise MediaError("too_large", f"{count:,} rows of {width:,} bytes are more than {MAX_BYTES:,} bytes")
    parts = [header_bytes(count, dim)]
    with open_file(container) as stream:
        num_rows = stream.seek(0, io.SEEK_END) // width
        if (last := max(rows.stop for rows in ranges)) > num_rows:
            message = f"{container} has {num_rows:,} rows of {dim:,} float32 values, but the item needs {last:,}"
            raise MediaError("truncated", f"{message}: is the file complete, and {dim} its width?")
        for rows in ranges:
            stream.seek(rows.start * width)
            parts.append(stream.read(len(rows) * width))
    return io.BytesIO(b"".join(parts))


def _open_cell(container: str, column: str, row: int, index: int) -> BinaryIO:
    with _LOADING:
        cells = _read_cell(container, column, row)
    cells.validate(full=True)  # or offsets of a broken Arrow file would be followed
    value = cells[0].as_py()
    value = value[index] if isinstance(value, list) else value
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(data, bytes):
        return io.BytesIO(data)
    if data is not None:
        raise MediaError("unreadable", f"{container}: {column} is {cells.type}, expected binary or struct<bytes, path>")
    if not path:
        raise MediaError("missing", f"{container}: row {row} of {column} is null")
    if not stays_inside(path):
        raise MediaError("unreadable", f"{container}: {path!r} leads out of its folder")
    folder, slash, _ = container.rpartition("/")
    return open_file(f"{folder}{slash}{path}")


def _read_cell(container: str, column: str, row: int) -> pa.ChunkedArray:
    version = None if is_url(container) else Path(container).stat().st_mtime_ns
    table = _open_table(container, version)
    if column not in table.schema.names:
        raise MediaError("missing", f"{container} has no column {column!r}, only {', '.join(table.schema.names)}")
    if not 0 <= row < table.num_rows:
        raise MediaError("missing", f"{container} has {table.num_rows} rows, and no row {row}")
    group = 0
    while row >= table.groups[group]:
        row -= table.groups[group]
        group += 1
    return _read_group(container, version, column, group).slice(row, 1)


class TableFile:
    """A Parquet file, or an Arrow file in the stream or the file format. What is not asked for is not read.

    Attributes:
        schema: Its columns.
        groups: Rows of each row group; an Arrow file is one group.
        num_rows: Its rows.
    """

    def __init__(self, location: str):
        """Open a path, which is memory-mapped, or a URL."""
        source = open_file(location)  # refuses pipes and devices, which would block memory_map
        magic = source.read(6)
        source.seek(0)
        if not is_url(location):
            source.close()
            source = pa.memory_map(location)
        self._content: pq.ParquetFile | pa.Table
        if magic.startswith(b"PAR1"):
            self._content = file = pq.ParquetFile(source)
            self.schema = file.schema_arrow
            self.groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        else:
            self._content = (pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream)(source).read_all()
            self.schema, self.groups = self._content.schema, [self._content.num_rows]
        self.num_rows = sum(self.groups)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of some columns, in order. Of Parquet files, a column may be a path in a nested one."""
        if isinstance(self._content, pa.Table):
            names = [column.partition(".")[0] for column in columns]  # paths of nested columns begin with these
            chosen = [at for at, name in enumerate(self.schema.names) if name in columns or name in names]
            yield from self._content.select(chosen).to_batches(BATCH_ROWS)
        else:
            yield from self._content.iter_batches(BATCH_ROWS, columns=columns)

    def path_leaves(self, column: str) -> list[str]:
        """The parts of a Parquet column of encoded media that hold their paths, without the bytes; else the column."""
        leaves = []
        if isinstance(self._content, pq.ParquetFile):
            leaves = [self._content.schema.column(at).path for at in range(len(self._content.schema))]
        return [leaf for leaf in leaves if leaf.startswith(f"{column}.") and leaf.endswith(".path")] or [column]

    def column(self, name: str, group: int) -> pa.ChunkedArray:
        """A column of a row group."""
        if isinstance(self._content, pa.Table):
            return self._content.column(name)
        return self._content.read_row_group(group, columns=[name]).column(0)


@functools.lru_cache(4)
def _open_table(container: str, version: int | None) -> TableFile:
    return TableFile(container)


@functools.lru_cache(4)  # row groups may be 100 MB each
def _read_group(container: str, version: int | None, column: str, group: int) -> pa.ChunkedArray:
    return _open_table(container, version).column(column, group)


class MediaThreads(concurrent.futures.ThreadPoolExecutor):
    """As many threads as there are cores, for opening media."""

    def __init__(self, name: str):
        """Prepare the threads; `name` begins their names."""
        self._stopped = threading.Event()
        super().__init__(os.cpu_count() or 1, name, initializer=lambda: setattr(_thread, "stopped", self._stopped))

    def close(self) -> None:
        """Drop what has not begun, and end the waits for servers. Without this the process could not exit."""
        self._stopped.set()
        self.shutdown(wait=False, cancel_futures=True)


def is_url(location: str) -> bool:
    """Whether a location is a URL, not a local path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)", location) is not None


def open_file(location: str) -> BinaryIO:
    """Open a path or fsspec URL as a seekable binary stream; the caller closes it.

    Opening and reading raise the errors of `typed_failures`.
    """
    if location.startswith(("file://", "local://")):
        location = LocalFileSystem._strip_protocol(location)
    return io.BufferedReader(_Stream(location), URL_BUFFER if is_url(location) else FILE_BUFFER)


@contextlib.contextmanager
def typed_failures(what: str) -> Iterator[None]:
    """Turn whatever a decoder or file system raises about `what` into a MediaError or EnvironmentTrouble."""
    try:
        yield
    except (MediaError, PipelineError):
        raise
    except ImportError as error:
        raise EnvironmentTrouble(f"{what}: {error}") from error
    except Exception as error:  # broken files make decoders and file systems raise exceptions of every type
        raise _typed(what, error) from error


def _typed(what: str, error: BaseException) -> MediaError | EnvironmentTrouble:
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and cause and (type(cause).__module__ + ".").startswith("aiohttp."):
        error = cause  # fsspec calls every failure of HTTP a missing file
    status = getattr(error, "status", None)
    if getattr(error, "errno", None) in TOO_MANY_FILES:
        return too_many_files()
    if isinstance(error, FileNotFoundError | NotADirectoryError) or status in MISSING:
        return MediaError("missing", f"{what}: there is no such file")
    if isinstance(status, int):
        return MediaError("unreadable", f"{what}: the server answers {status} {getattr(error, 'message', '')}")
    if type(error).__name__ == "ClientPayloadError":
        return MediaError("truncated", f"{what}: the transfer broke off before its end")
    message = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
    cut = isinstance(error, EOFError) or "truncated" in message.lower()
    return MediaError("truncated" if cut else "unreadable", f"{what}: {message}")


class _Stream(io.RawIOBase):
    """A regular file, or a URL."""

    _file: Any = None

    def __init__(self, location: str):
        self._location, self._is_url = location, is_url(location)
        self._patience_s = STORE_PATIENCE_S if in_object_store(location) else PATIENCE_S
        self._waited_s, self._num_bytes = 0.0, 0
        self._file = self._call(_open_url if self._is_url else _open_regular, location)
        if self._is_url:
            try:
                self._file.seek(0, io.SEEK_END)
                self._file.seek(0)
            except (OSError, ValueError, TypeError):  # a stream whose length is unknown
                self._file = self._read_whole()

    def _read_whole(self) -> BinaryIO:
        whole = io.BytesIO()
        while data := self._call(self._file.read, URL_BUFFER):
            self._num_bytes += whole.write(data)
            if self._num_bytes > MAX_BYTES:
                message = f"{self._location}: the server sends more than {MAX_BYTES:,} bytes and does not say how many"
                raise MediaError("too_large", message)
        whole.seek(0)
        return whole

    def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        _obey_stop_request()
        with typed_failures(self._location):
            return self._wait(function, *arguments) if self._is_url else function(*arguments)

    def _wait(self, function: Callable[..., T], *arguments: Any) -> T:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def call() -> None:
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)

        started_s = time.monotonic() - self._waited_s
        threading.Thread(target=call, daemon=True).start()
        while not future.done():
            _obey_stop_request()
            if self._waited_s > self._patience_s + self._num_bytes / LEAST_RATE:
                message = f"{self._location}: only {self._num_bytes:,} bytes arrived in {self._waited_s:.0f} s"
                raise MediaError("unreadable", message)
            concurrent.futures.wait([future], POLL_S)
            self._waited_s = time.monotonic() - started_s
        return future.result()

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; see io.RawIOBase."""
        if not self._is_url:
            return self._call(self._file.readinto, buffer)
        data = self._call(self._file.read, len(buffer))
        buffer[: len(data)] = data
        self._num_bytes += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; see io.RawIOBase."""
        return self._file.seek(offset, whence)

    def close(self) -> None:
        """Close the file or connection."""
        if self._file and not self.closed:
            self._file.close()
        super().close()


def _obey_stop_request() -> None:
    stopped = getattr(_thread, "stopped", None)
    if stopped and stopped.is_set():
        message = "the run was asked to stop"
        raise Interrupted(message)


def _open_regular(path: str) -> BinaryIO:
    # O_NONBLOCK: opening a pipe would wait for its writer.
    stream = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        message = f"{path}: it is a pipe or device, not a regular file"
        raise MediaError("unreadable", message)
    return stream


def in_object_store(location: str) -> bool:
    """Whether obstore reads a location: s3://, gs:// or az://, if it is installed. Otherwise fsspec does."""
    return location.startswith(SCHEMES) and importlib.util.find_spec("obstore") is not None


def _open_url(url: str) -> BinaryIO:
    stream: BinaryIO = ObjectPath(url).open_reader() if in_object_store(url) else fsspec.open(url, "rb").open()
    # memory:// hands the same object, with one position, to everyone.
    return io.BytesIO(stream.getvalue()) if isinstance(stream, io.BytesIO) else stream
