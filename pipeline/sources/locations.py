"""Locations of inputs: local paths and fsspec URLs, listed and opened in the same way."""

import os
import posixpath
import re
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import fsspec

from pipeline.corpus.table import STATE
from pipeline.errors import UsageError
from pipeline.media.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from pipeline.media.uri import is_url as is_url
from pipeline.media.uri import open_file

MEDIA_SUFFIXES = frozenset(IMAGE_SUFFIXES) | frozenset(VIDEO_SUFFIXES)
FEATURES_SUFFIX = ".npy"
SHARD_SUFFIXES = (".tar", ".parquet", ".arrow")
NOT_UTF8 = re.compile(r"[\ud800-\udfff]")  # how Python writes bytes of a name that are not UTF-8
SIDE_NAMES = ("captions.jsonl", "captions.csv", "metadata.jsonl", "metadata.csv", "attribution.csv")


@dataclass
class Listing:
    """The files under a folder.

    Attributes:
        root: The folder.
        paths: The files relative to it, with `/`, sorted.
        unnameable: Files whose names are not UTF-8, which no table can store, and are not in `paths`.
    """

    root: str
    paths: list[str]
    unnameable: int

    def with_suffixes(self, suffixes: Container[str]) -> list[str]:
        """The files with one of some suffixes, given in lower case."""
        return [path for path in self.paths if _suffix(path) in suffixes]

    @property
    def media(self) -> list[str]:
        """Images and videos, or else precomputed features; next to other data an array may be anything."""
        return self.with_suffixes(MEDIA_SUFFIXES) or (
            [] if self.with_suffixes(SHARD_SUFFIXES) else self.with_suffixes((FEATURES_SUFFIX,))
        )

    def describe(self) -> str:
        """What the folder holds, for a message: `12 .txt, 3 .json`."""
        counts = Counter(_suffix(path) or "no suffix" for path in self.paths)
        return ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(counts.items())) or "no files"


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1].lower()


def printable(name: str) -> str:
    r"""A name in which bytes that are not UTF-8 are written as `\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def absolute(location: str) -> str:
    """An absolute local path, or a URL without `/` at its end."""
    if is_url(location):
        return location.rstrip("/")
    return os.path.abspath(location)  # noqa: PTH100 - takes out `..` and keeps links as the user wrote them


def short_name(location: str) -> str:
    """The last part of a location, without the suffix of a shard or a list."""
    name = absolute(location).rpartition("/")[2]
    return (posixpath.splitext(name)[0] if _suffix(name) in (*SHARD_SUFFIXES, ".txt") else name) or "input"


def is_folder(location: str) -> bool:
    """Whether there is a folder at a path or URL."""
    filesystem, path = _filesystem(location)
    return bool(filesystem.isdir(path))


def exists(location: str) -> bool:
    """Whether there is something at a path or URL."""
    filesystem, path = _filesystem(location)
    return bool(filesystem.exists(path))


def open_binary(location: str) -> BinaryIO:
    """Open a file for reading at any place. Raises UsageError where it cannot be read."""
    try:
        return open_file(location)
    except (OSError, ImportError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--input: cannot read {location}: {reason}: check its name and permissions") from error


def text_lines(location: str) -> Iterator[str]:
    """The lines of a text file with their ends. Raises UsageError with the line that is not UTF-8."""
    with open_binary(location) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UsageError(f"--input: {location} line {number} is not UTF-8: save the file in UTF-8") from error


def glob(pattern: str) -> list[str]:
    """The files that match a pattern with `*`, `?` or `[…]`, as absolute locations, sorted."""
    filesystem, path = _filesystem(pattern)
    paths = sorted(cast(list[str], filesystem.glob(path)))
    return [str(filesystem.unstrip_protocol(name)) for name in paths] if is_url(pattern) else paths


def list_folder(location: str) -> Listing:
    """List every file under a folder except hidden ones. Links are followed, and each real folder is entered once."""
    root = absolute(location)
    names = sorted(_list_remote(root) if is_url(root) else _list_local(root))
    paths = [name for name in names if not NOT_UTF8.search(name)]
    return Listing(root, paths, len(names) - len(paths))


def _list_remote(root: str) -> Iterator[str]:
    filesystem, path = _filesystem(root)
    for name in filesystem.find(path):
        relative = name.removeprefix(path).lstrip("/")
        if not any(part.startswith(".") for part in relative.split("/")):
            yield relative


def _list_local(root: str) -> Iterator[str]:
    entered: set[str] = set()
    tops = [root]  # grows by links, which are followed after all real folders, so that these keep their paths
    for top in tops:
        for folder, names, files in os.walk(top, onerror=_refuse_unlistable):
            real = os.path.realpath(folder)
            if real in entered or STATE in names:  # or it is a corpus of this project
                names.clear()
                continue
            entered.add(real)
            names[:] = sorted(name for name in names if not name.startswith("."))
            tops += [f"{folder}/{name}" for name in names if Path(folder, name).is_symlink()]
            for name in files:
                if not name.startswith(".") and Path(folder, name).is_file():
                    yield f"{folder}/{name}".removeprefix(root).lstrip("/")


def _refuse_unlistable(error: OSError) -> None:
    raise UsageError(f"--input: cannot list {error.filename}: {error.strerror}: make it readable") from error


def _filesystem(location: str) -> tuple[fsspec.AbstractFileSystem, str]:
    if not is_url(location):
        return fsspec.filesystem("file"), location
    try:
        filesystem, path = fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise UsageError(f"--input: fsspec cannot open {location}: {error}") from error
    return filesystem, path
