"""Locations of inputs: local paths and fsspec URLs, listed and opened in the same way."""

import codecs
import importlib
import io
import os
import posixpath
import re
from collections.abc import Iterator
from typing import BinaryIO, cast

import fsspec

from pipeline.errors import EnvironmentTrouble, MediaError, UsageError
from pipeline.media.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from pipeline.media.uri import in_object_store, open_file
from pipeline.media.uri import is_url as is_url
from pipeline.storage.object_path import PATIENCE

MEDIA_SUFFIXES = frozenset(IMAGE_SUFFIXES) | frozenset(VIDEO_SUFFIXES)
FEATURES_SUFFIX = ".npy"
CAPTION_SUFFIXES = (
    *(".txt", ".caption", ".captions", ".csv", ".tsv", ".json", ".jsonl", ".ndjson"),
    *(".xlsx", ".xls", ".ods"),  # are not read, but must not pass unnoticed
)
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # begin what spreadsheets call Unicode text
SHARD_SUFFIXES = (".tar", ".parquet", ".arrow")
NOT_UTF8 = re.compile(r"[\ud800-\udfff]")  # how Python writes bytes of a name that are not UTF-8


def suffix_of(path: str) -> str:
    """A file's suffix in lower case, with its dot."""
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
    return (posixpath.splitext(name)[0] if suffix_of(name) in (*SHARD_SUFFIXES, ".txt") else name) or "input"


def is_folder(location: str) -> bool:
    """Whether there is a folder at a path or URL."""
    filesystem, path = filesystem_of(location)
    return bool(filesystem.isdir(path))


def exists(location: str) -> bool:
    """Whether there is something at a path or URL."""
    filesystem, path = filesystem_of(location)
    return bool(filesystem.exists(path))


def open_binary(location: str) -> BinaryIO:
    """Open a file for reading at any place. Raises UsageError where it cannot be read."""
    try:
        return open_file(location)
    except (MediaError, EnvironmentTrouble) as error:
        raise UsageError(f"--input: cannot read {error}: check its name and permissions") from error


def text_lines(location: str) -> Iterator[str]:
    """The lines of a text file in UTF-8, or in UTF-16 with its mark, with their ends.

    Raises:
        UsageError: A line is in another encoding.
    """
    number = 1
    with open_binary(location) as stream:
        is_utf16 = stream.read(2) in UTF16_MARKS
        stream.seek(0)
        try:
            if is_utf16:
                yield from io.TextIOWrapper(stream, "utf-16", newline="")
                return
            for number, line in enumerate(stream, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"--input: {location} line {number} is not UTF-8: save the file in UTF-8") from error


def glob(pattern: str) -> list[str]:
    """The files that match a pattern with `*`, `?` or `[…]`, as absolute locations, sorted."""
    filesystem, path = filesystem_of(pattern)
    paths = sorted(cast(list[str], filesystem.glob(path)))
    return [str(filesystem.unstrip_protocol(name)) for name in paths] if is_url(pattern) else paths


def filesystem_of(location: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """What opens a location, and its path there. Raises UsageError for a URL of an unknown kind."""
    if not is_url(location):
        return fsspec.filesystem("file"), location
    try:
        if in_object_store(location):
            scheme = location.partition(":")[0]
            importlib.import_module("obstore.fsspec").register(scheme)
            fsspec.config.conf[scheme] = {"client_options": {"allow_http": True}, "retry_config": PATIENCE}
        filesystem, path = fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise UsageError(f"--input: fsspec cannot open {location}: {error}") from error
    return filesystem, path
