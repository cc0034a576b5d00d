"""Reading files and URLs: only regular files, bounded waits, and failures that concern one record.

A server may stall, drip or never end. Calls that wait for one are made in threads of their own, which are left behind
when the time is up or the run is asked to stop.
"""

import concurrent.futures
import contextlib
import io
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import TOO_MANY_FILES, EnvironmentTrouble, Interrupted, MediaError, PipelineError, too_many_files
from pipeline.media.features import MAX_BYTES

PATIENCE_S = 60.0  # how long a URL may keep its reader waiting, in all
LEAST_RATE = 100_000  # bytes a second; what has arrived extends PATIENCE_S at this rate
POLL_S = 0.1
URL_BUFFER, FILE_BUFFER = 1 << 20, 1 << 16  # bytes
MISSING = (404, 410)  # HTTP

T = TypeVar("T")
_thread = threading.local()  # `stopped`, in the threads of MediaThreads


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
            if self._waited_s > PATIENCE_S + self._num_bytes / LEAST_RATE:
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
            count: int = self._call(self._file.readinto, buffer)
            return count
        data = self._call(self._file.read, len(buffer))
        buffer[: len(data)] = data
        self._num_bytes += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; see io.RawIOBase."""
        position: int = self._file.seek(offset, whence)
        return position

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


def _open_url(url: str) -> BinaryIO:
    stream: BinaryIO = fsspec.open(url, "rb").open()
    # memory:// hands the same object, with one position, to everyone.
    return io.BytesIO(stream.getvalue()) if isinstance(stream, io.BytesIO) else stream
