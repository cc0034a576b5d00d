"""Files that appear whole, that are changed by compare and swap, and trees: on disks and in object stores alike."""

import collections
import concurrent.futures
import contextlib
import fcntl
import hashlib
import io
import itertools
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar

import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.hashing import short_hash
from pipeline.storage.object_path import ANY, SCHEMES, FileChanged, ObjectPath

if TYPE_CHECKING:
    from obstore import ObjectMeta

OBJECT_PAUSE_S = 3.0
REQUESTS = 32  # at once
READ_AHEAD = 8  # shards, of up to 40 MB each

T = TypeVar("T")
R = TypeVar("R")
FETCHERS = 4  # threads
CACHE_BYTES = int(float(os.environ.get("LECCR_CACHE_GB", 50)) * 1e9)  # copies of objects on this machine
_unchecked_bytes = CACHE_BYTES  # copied by this process since it looked whether the cache is within its bounds


def location(text: str) -> Path:
    """The path of a folder as the user named it: local, or s3://, gs:// or az://.

    Raises:
        ValueError: It is empty.
        UsageError: It is another URL, or one without a bucket.
    """
    if not text.strip():
        raise ValueError("an empty name. Give a folder")
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]+:(?=/)", text)
    if not scheme:
        return Path(text).expanduser()
    if scheme[0] not in SCHEMES or not re.match(r"//[^/]", text[scheme.end() :]):
        raise UsageError(f"{text}: expected a folder, or s3://BUCKET/FOLDER (gs://, az://)")
    return ObjectPath(text)


def path_on_disk(text: str) -> Path:
    """The path of what is never in an object store. Raises UsageError for an address in one."""
    if isinstance(path := location(text), ObjectPath):
        raise UsageError(f"{text}: expected a path on a disk. Only corpora can be in an object store")
    return path


def absolute(text: str) -> str:
    """The place of a folder as the user named it, independent of the working directory; links are not followed."""
    path = location(text)
    return str(path) if isinstance(path, ObjectPath) else os.path.abspath(path)  # noqa: PTH100


class FileState(NamedTuple):
    """A file's version, which changes when it is written, and its size. Compare versions only with one another."""

    version: str
    size: int


def file_state(path: Path) -> FileState | None:
    """The state of a file; None if there is no such file."""
    try:
        return _object_state(path.head()) if isinstance(path, ObjectPath) else _disk_state(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _object_state(meta: "ObjectMeta") -> FileState:
    return FileState(str(meta["e_tag"]), meta["size"])


def _disk_state(status: os.stat_result) -> FileState:
    return FileState(f"{status.st_ino} {status.st_mtime_ns} {status.st_size}", status.st_size)


def version(path: Path) -> str | None:
    """The version of a file; None if there is no such file."""
    state = file_state(path)
    return state.version if state else None


def list_files(folder: Path) -> dict[str, FileState]:
    """List the files directly in a folder by name; empty if the folder does not exist."""
    if isinstance(folder, ObjectPath):
        start = len(folder.key) + 1
        objects = ((meta["path"][start:], meta) for meta in folder.objects())
        return {name: _object_state(meta) for name, meta in objects if "/" not in name}
    files = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                if entry.is_file():
                    files[entry.name] = _disk_state(entry.stat())
    return files


@contextlib.contextmanager
def write_file(path: Path, seen: str | None = ANY, durable: bool = True) -> Iterator[BinaryIO]:
    """Write a binary file that appears under `path` complete and durable, or not at all.

    Args:
        path: The file; its folder exists.
        seen: The `version` that may be replaced; None where there must be no file yet.
        durable: Whether a power cut must not lose it.

    Raises:
        FileChanged: There is another version. It stays.
    """
    if isinstance(path, ObjectPath):
        stream = io.BytesIO()
        yield stream
        path.put(stream.getvalue(), seen)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as stream_to_disk:
            yield stream_to_disk
            stream_to_disk.flush()
            if durable:
                os.fsync(stream_to_disk.fileno())
        if seen != ANY and version(path) != seen:
            raise FileChanged(path)
        temporary.replace(path)
        if durable:
            flush(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Force a file's bytes, or a folder's names, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def local_folder(folder: Path) -> Path:
    """A folder of this machine for what belongs to a folder but cannot be in an object store: the folder, or a copy."""
    if not isinstance(folder, ObjectPath):
        return folder
    return user_cache() / "stores" / short_hash(str(folder))


def shared_folder(folder: Path) -> Path | None:
    """A folder that all machines of a run see, if `local_folder` is one of each machine."""
    return folder if isinstance(folder, ObjectPath) else None


def pause(path: Path, seconds: float) -> float:
    """How long to wait before a small file is read or written again: in an object store longer, as requests cost."""
    return max(seconds, OBJECT_PAUSE_S) if isinstance(path, ObjectPath) else seconds


def open_arrow(path: Path, sha256: str = "") -> pa.NativeFile:
    """An Arrow file to read from, memory-mapped; `sha256` as for `local_copy`."""
    return pa.memory_map(str(local_copy(path, sha256) if isinstance(path, ObjectPath) else path))


def user_cache() -> Path:
    """This user's cache folder on this machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leccr"


def local_copy(path: ObjectPath, sha256: str = "", wait: bool = True) -> Path:
    """An object as a file of this machine, downloaded once for all its processes.

    The copies in the user's cache folder take about `CACHE_BYTES` at most; those that were opened longest ago go first.

    Args:
        path: The object.
        sha256: Hash of its bytes, if that is known. The store is not even asked if there is a copy of them.
        wait: Whether to wait for another process that is downloading it, or to leave it to that.

    Raises:
        OSError: Its bytes have another hash.
    """
    copy = user_cache() / "objects" / (sha256 or short_hash(f"{path} {version(path)}"))
    if copy.exists():
        return copy
    copy.parent.mkdir(parents=True, exist_ok=True)
    lock = copy.with_name(f"{copy.name}.lock")
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return copy
        if not copy.exists():
            data = path.read_buffer()
            if sha256 and hashlib.sha256(data).hexdigest() != sha256:
                raise OSError(f"its {len(data):,} bytes have a checksum that differs from its manifest")
            with write_file(copy, durable=False) as stream:
                stream.write(data)
            _keep_bounds(copy)
        lock.unlink(missing_ok=True)
    return copy


def _keep_bounds(copy: Path) -> None:
    """Keep the cache within its bounds after a new copy, to a fiftieth: looking through it takes a while."""
    global _unchecked_bytes
    _unchecked_bytes += copy.stat().st_size
    if _unchecked_bytes < CACHE_BYTES / 50:
        return
    _unchecked_bytes = 0
    copies: list[tuple[int, int, str]] = []
    for entry in os.scandir(copy.parent):
        with contextlib.suppress(FileNotFoundError):  # another process has deleted it
            copies.append((entry.stat().st_atime_ns, entry.stat().st_size, entry.path))
    copies.sort(reverse=True)
    for (_, _, other), total in zip(copies, itertools.accumulate(size for _, size, _ in copies), strict=True):
        if total > CACHE_BYTES and not other.endswith((copy.name, ".tmp", ".lock")):
            Path(other).unlink(missing_ok=True)


def fetch_ahead(entries: Iterable[tuple[Path, dict[str, Any]]]) -> None:
    """Download shards in the background, so that they are there when they are opened, if they are in an object store.

    Several processes of a machine share the work: each leaves to another what that is downloading.

    Args:
        entries: The shards' files and manifest entries.

    Raises:
        UsageError: The cache cannot hold all of them.
    """
    objects = [(path, entry) for path, entry in entries if isinstance(path, ObjectPath)]
    size, remaining = sum(entry["bytes"] for _, entry in objects), iter(objects)
    if size > CACHE_BYTES:
        raise UsageError(
            f"{objects[0][0].parent} and what goes with it have {size / 1e9:,.1f} GB to download, and this machine "
            f"may keep {CACHE_BYTES / 1e9:,.1f} GB. Set LECCR_CACHE_GB to more, or give a corpus on a disk"
        )

    def fetch() -> None:
        for path, entry in remaining:
            with contextlib.suppress(Exception):  # whoever opens it meets the error too
                local_copy(path, entry["sha256"], wait=False)

    for _ in range(min(FETCHERS, len(objects))):
        threading.Thread(target=fetch, name="fetch", daemon=True).start()


def read_ahead(function: Callable[[T], R], values: Iterable[T], at_once: int = READ_AHEAD) -> Iterator[R]:
    """`function` of each value, in order, in threads that work ahead of what is taken."""
    pending: collections.deque[concurrent.futures.Future[R]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for value in values:
            pending.append(pool.submit(function, value))
            if len(pending) >= 2 * at_once:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def in_parallel(function: Callable[[T], R], values: Iterable[T]) -> list[R]:
    """`function` of each value, in order: many small requests to a store at once."""
    return list(read_ahead(function, values, REQUESTS))


def link(path: Path, other: Path) -> None:
    """Give a file another name as well. Where that is not possible, the other name is that of a copy."""
    if isinstance(path, ObjectPath):
        path.copy_to(other)
        return
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Delete what a killed process has left half-written in a folder, and in some below it: on disks only."""
    if isinstance(folder, ObjectPath):
        return
    for name in ("", *names):
        for leftover in (folder / name).glob("**/.*.tmp" if name.startswith(".") else ".*.tmp"):
            leftover.unlink()


def remove_tree(folder: Path) -> None:
    """Delete everything below a folder, and the folder, if it is there."""
    if not isinstance(folder, ObjectPath):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.rglob("*"):
        path.unlink(missing_ok=True)
