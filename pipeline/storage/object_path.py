"""Paths in an object store, s3://bucket/corpus/items/manifest.json, with the interface of `pathlib.Path`.

Code does the same with them as with other paths of a corpus: `/`, `exists`, `open`, `glob`, `unlink`. What an object
store does not have, such as links and modes, raises, because these paths have no name on a disk.
"""

import contextlib
import fnmatch
import functools
import io
import os
import re
import stat
import time
from collections.abc import Generator, Iterator
from datetime import timedelta
from pathlib import Path, PosixPath
from typing import IO, TYPE_CHECKING, Any, Self

from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.optional import import_optional

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

SCHEMES = ("s3:", "gs:", "az:")
ANY = "any"  # the version of a file that may be replaced whatever it holds
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
NO_KEY = (
    "{}: the store refuses these credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what your provider's "
    "client reads"
)
METADATA = "169.254."  # where clients ask a cloud's own machines for credentials if none are set
PATIENCE: Any = {  # a store that was there may be away for minutes
    "max_retries": 10_000,
    # A wait is drawn between the first one and `base` times the last one: with 2, waits would stay at the first one.
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 4},
    "retry_timeout": timedelta(minutes=3),
}
MODES = {"object": stat.S_IFREG, "prefix": stat.S_IFDIR}


class FileChanged(Exception):
    """A file is not in the version that was to be replaced: somebody else has written it."""


_reached: set[str] = set()  # buckets


def wait_for_store(path: Path) -> None:
    """Wait for the store of a path even if it has never answered this process: a worker's driver has reached it."""
    if isinstance(path, ObjectPath):
        _reached.add(path.bucket)


@functools.cache
def open_store(bucket: str) -> "ObjectStore":
    """The store of a bucket, `s3://bucket`. Credentials and endpoint come from the environment.

    Raises:
        UsageError: obstore is not installed, or refuses the address.
    """
    errors = import_optional("obstore.exceptions", "cloud", f"{bucket}")
    from obstore.store import from_url

    endpoint = next(filter(None, map(os.environ.get, ENDPOINTS)), "https://")
    if not endpoint.startswith(("http://", "https://")):
        raise UsageError(f"the endpoint {endpoint} cannot be used: expected http://HOST:PORT or https://HOST")
    options: Any = {"allow_http": True} if endpoint.startswith("http://") else {}
    try:
        first, store = (from_url(bucket, client_options=options, retry_config=of) for of in (None, PATIENCE))
    except (errors.BaseError, ValueError) as error:
        raise UsageError(f"{bucket} cannot be opened: {str(error).splitlines()[0]}") from error
    if bucket not in _reached:
        with contextlib.suppress(FileNotFoundError, errors.PermissionDeniedError, errors.UnauthenticatedError):
            first.head("leccr")  # a store that never answered is not waited for
    return store


@contextlib.contextmanager
def explained(path: "ObjectPath") -> Iterator[None]:
    """Errors of the store as errors of files, or in the user's words."""
    import obstore.exceptions as errors

    try:
        yield
    except (FileNotFoundError, errors.NotFoundError) as error:
        raise FileNotFoundError(2, "no such object", str(path)) from error
    except errors.AlreadyExistsError as error:
        raise FileExistsError(17, "object exists", str(path)) from error
    except (errors.UnauthenticatedError, errors.PermissionDeniedError) as error:
        raise EnvironmentTrouble(NO_KEY.format(path)) from error
    except errors.PreconditionError as error:
        raise FileExistsError(17, "object has changed", str(path)) from error
    except errors.BaseError as error:
        reason = re.sub(r"(?<=://)[^/\s]*@|\?\S*", "", str(error).splitlines()[0])  # without signatures or passwords
        if METADATA in reason:
            raise EnvironmentTrouble(NO_KEY.format(path)) from error
        if "404 Not Found" in reason:
            message = f"{path}: the store has no bucket {path.bucket}. Make it, or correct its name or the endpoint"
            raise EnvironmentTrouble(message) from error
        raise EnvironmentTrouble(f"{path}: the store does not answer: {reason:.300}") from error


class ObjectPath(PosixPath):
    """A key of an object store, or the prefix of some."""

    @property
    def bucket(self) -> str:
        """Such as s3://team."""
        return f"{self.parts[0]}//{self.parts[1]}"

    @property
    def key(self) -> str:
        """What comes after the bucket."""
        return "/".join(self.parts[2:])

    @property
    def store(self) -> "ObjectStore":
        """The bucket's store."""
        return open_store(self.bucket)

    def __str__(self) -> str:
        """The address."""
        return f"{self.parts[0]}//{'/'.join(self.parts[1:])}"

    def __fspath__(self) -> str:
        """Raise: there is no such file on this machine."""
        raise TypeError(f"{self} is in an object store, and not on this machine")

    def absolute(self) -> Self:
        """The path itself."""
        return self

    def resolve(self, strict: bool = False) -> Self:
        """The path itself."""
        return self

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and kind: a prefix of objects is a folder."""
        kind, size, seconds = "object", 0, 0.0
        if not self.key:
            return os.stat_result((MODES["prefix"], *[0] * 9))
        try:
            found = self.head()
            size, seconds = found["size"], found["last_modified"].timestamp()
        except FileNotFoundError:
            if not self.is_dir():
                raise
            kind = "prefix"
        return os.stat_result((MODES[kind], 0, 0, 1, 0, 0, size, seconds, seconds, seconds))

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object, or any below it."""
        with contextlib.suppress(FileNotFoundError):
            self.stat()
            return True
        return False

    def head(self) -> "ObjectMeta":
        """What the store knows of the object."""
        with explained(self):
            return self.store.head(self.key)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object."""
        return self.exists() and stat.S_ISREG(self.stat().st_mode)

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there are objects below it."""
        return next(self.objects(limit=1), None) is not None

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: prefixes are there with their first object."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        if not missing_ok:
            self.stat()
        with contextlib.suppress(FileNotFoundError), explained(self):
            self.store.delete(self.key)

    def replace(self, target: Path | str) -> Self:  # type: ignore[override]
        """Move the object, which takes two requests."""
        moved = type(self)(target)
        self.copy_to(moved)
        self.unlink(missing_ok=True)
        return moved

    def copy_to(self, target: Path) -> None:
        """Copy the object within the bucket; its bytes do not pass through this machine."""
        with explained(self):
            self.store.copy(self.key, type(self)(target).key)

    def objects(self, limit: int = 1_000) -> Iterator["ObjectMeta"]:
        """What the store knows of the objects below it, in the order of their keys, `limit` at a time."""
        with explained(self):
            for chunk in self.store.list(f"{self.key}/" if self.key else None, chunk_size=limit):
                yield from chunk

    def iterdir(self) -> Generator[Self, None, None]:
        """What is directly below it."""
        with explained(self):
            found = self.store.list_with_delimiter(f"{self.key}/" if self.key else None)
        for key in sorted([*found["common_prefixes"], *(each["path"] for each in found["objects"])]):
            yield type(self)(self.bucket, key)

    def glob(self, pattern: str, **_: Any) -> Iterator[Self]:  # type: ignore[override]
        """What is directly below it and has such a name."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def rglob(self, pattern: str, **_: Any) -> Iterator[Self]:  # type: ignore[override]
        """The objects below it, at any depth, that have such a name."""
        for found in self.objects():
            path = type(self)(self.bucket, found["path"])
            if fnmatch.fnmatchcase(path.name, pattern or "*"):
                yield path

    def put(self, data: bytes, seen: str | None = ANY) -> str:
        """Write the object, in place of the version `seen` (None: only if there is none); returns its version.

        Raises:
            FileChanged: There is another version, with other bytes. It stays.
        """
        mode: Any = "overwrite" if seen == ANY else "create" if seen is None else {"e_tag": seen}
        try:
            with explained(self):
                if isinstance(mode, dict) and self.parts[0] == "gs:":  # which compares generations
                    meta = self.head()
                    if meta["e_tag"] != seen:
                        raise FileExistsError(17, "object has changed", str(self))
                    mode["version"] = meta["version"]
                return self._put_patiently(data, mode)
        except (FileExistsError, FileNotFoundError) as error:
            # A request whose answer was lost was repeated. If the store had carried it out, it refuses that.
            with contextlib.suppress(FileNotFoundError):
                stored, present = self.read_version()
                if stored == data:
                    return present
            raise FileChanged(self) from error

    def _put_patiently(self, data: bytes, mode: Any) -> str:
        """Put, and repeat what the client does not: a conditional write whose connection broke."""
        from obstore.exceptions import GenericError

        deadline = time.monotonic() + PATIENCE["retry_timeout"].total_seconds()
        while True:
            try:
                return str(self.store.put(self.key, data, mode=mode)["e_tag"])
            except GenericError as error:
                if "HTTP error" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(1)

    def read_version(self) -> tuple[bytes, str]:
        """The whole object, and its version."""
        with explained(self):
            answer = self.store.get(self.key)
            return bytes(answer.bytes()), str(answer.meta["e_tag"])

    def read_buffer(self) -> memoryview:
        """The whole object, as the client received it: not copied once more."""
        with explained(self):
            return memoryview(self.store.get(self.key).bytes())

    def read_bytes(self) -> bytes:
        """The whole object."""
        return self.read_version()[0]

    def open_reader(self) -> Any:
        """A seekable stream that reads ranges of the object as they are needed."""
        import obstore

        with explained(self):
            return obstore.open_reader(self.store, self.key)

    def open(self, mode: str = "r", buffering: int = -1, encoding: str | None = None, *_: Any, **__: Any) -> IO[Any]:  # type: ignore[override]
        """Read an object, or write one that appears when the stream is closed without an error."""
        stream: IO[Any]
        if "r" in mode:
            stream = io.BytesIO(self.read_bytes())
        elif "w" in mode:
            stream = _Upload(self)
        else:
            raise ValueError(f"{self}: objects are read or written whole, not opened with mode {mode!r}")
        return stream if "b" in mode else io.TextIOWrapper(stream, encoding=encoding or "utf-8")


class _Upload(io.BytesIO):
    """Bytes that become an object when the stream is closed, unless an error closed it."""

    def __init__(self, path: ObjectPath):
        super().__init__()
        self._path = path

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind:
            super().close()
        super().__exit__(kind, *rest)  # type: ignore[arg-type]

    def close(self) -> None:
        """Put the object."""
        if not self.closed:
            data = self.getvalue()
            super().close()
            self._path.put(data)
