"""What is in a folder: its files, without what is no input, and an account of that.

A listing is kept on disk, sorted by path: there may be more files than fit into memory.
"""

import contextlib
import functools
import mimetypes
import os
import posixpath
import re
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import MANIFEST, STATE
from pipeline.errors import UsageError
from pipeline.sources import locations
from pipeline.sources.account import Account

CORPUS_MARKS = (STATE, *(f"{table}/{MANIFEST}" for table in SCHEMAS))  # one of them is in every corpus


class Files(Collection[str]):
    """Files of a listing, sorted, as paths relative to its root, with `/`."""

    def __init__(self, database: sqlite3.Connection, suffixes: Iterable[str], are_others: bool = False):
        """Those with one of some suffixes, in lower case, or with `are_others` those with none of them."""
        self._database, self.suffixes = database, tuple(suffixes)
        self._condition = f"suffix {'NOT ' * are_others}IN ({', '.join('?' * len(self.suffixes))})"

    def _select(self, what: str, more: str = "", *values: str) -> sqlite3.Cursor:
        query = f"SELECT {what} FROM files WHERE {self._condition} {more}"  # noqa: S608 - nothing that a user typed
        return self._database.execute(query, (*self.suffixes, *values))

    def __iter__(self) -> Iterator[str]:
        return (path for (path,) in self._select("path", "ORDER BY path"))

    def __len__(self) -> int:
        return int(self._select("COUNT(*)").fetchone()[0])

    def __contains__(self, path: object) -> bool:
        return self._select("1", "AND path = ?", str(path)).fetchone() is not None


class Listing:
    """The files under a folder.

    Attributes:
        root: The folder.
        account: What was not listed.
        paths: All files.
        media: Images and videos, or else precomputed features; next to other data an array may be anything.
    """

    def __init__(self, root: str, paths: Iterable[str], account: Account):
        """Store the paths, given in any order; names that are not UTF-8, which no table can store, are left out."""
        self.root, self.account = root, account
        self._files = sqlite3.connect("", check_same_thread=False)  # a temporary file
        self._files.execute("CREATE TABLE files (path, suffix)")
        rows = ((path, posixpath.splitext(path)[1].lower()) for path in paths if self._can_be_stored(path))
        self._files.executemany("INSERT INTO files VALUES (?, ?)", rows)
        self._files.execute("CREATE INDEX by_path ON files (path, suffix)")
        self.paths = Files(self._files, (), are_others=True)
        has_others = self.with_suffixes((*locations.MEDIA_SUFFIXES, *locations.SHARD_SUFFIXES))
        self.media = self.with_suffixes(locations.MEDIA_SUFFIXES if has_others else (locations.FEATURES_SUFFIX,))

    def _can_be_stored(self, path: str) -> bool:
        if locations.NOT_UTF8.search(path):
            self.account.add("not_taken", "names are not UTF-8", locations.printable(path))
            return False
        return True

    def with_suffixes(self, suffixes: Iterable[str]) -> Files:
        """The files with one of some suffixes, given in lower case."""
        return Files(self._files, suffixes)

    def folders(self) -> Iterator[str]:
        """The folders with files, and the folders that these are in."""
        seen: set[str] = set()
        for (folder,) in self._files.execute("SELECT DISTINCT rtrim(path, replace(path, '/', '')) FROM files"):
            parts = folder.split("/")[:-1]
            new = {"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)} - seen
            seen |= new
            yield from sorted(new)

    def account_for_others(self, suffixes: Iterable[str]) -> None:
        """Note the files with other suffixes. Media are listed one by one."""
        for path in Files(self._files, suffixes, are_others=True):
            suffix = locations.suffix_of(path)
            if suffix in (*locations.MEDIA_SUFFIXES, *locations.SHARD_SUFFIXES) or _looks_like_media(suffix):
                self.account.add("not_taken", f"{suffix} files cannot be taken", path)
            else:
                self.account.add("", "other files", path)

    def describe(self) -> str:
        """What the folder holds, for a message: `12 .txt, 3 .json`."""
        counts = self._files.execute("SELECT suffix, COUNT(*) FROM files GROUP BY suffix ORDER BY suffix = '', suffix")
        texts = [f"{count:,} {suffix or 'no suffix'}" for suffix, count in counts]
        texts += [f"{reason.count:,} {reason.text}" for reason in self.account]
        return ", ".join(texts) or "no files"


def list_folder(location: str) -> Listing:
    """List every file under a folder, but nothing hidden, no trash and no thumbnails (names.yaml), and no corpus.

    Links are followed, and each real folder is entered once.
    """
    root, account = locations.absolute(location), Account()
    return Listing(root, (_list_remote if locations.is_url(root) else _list_local)(root, account), account)


def _list_remote(root: str, account: Account) -> Iterator[str]:
    filesystem, path = locations.filesystem_of(root)
    names = [name.removeprefix(path).lstrip("/") for name in filesystem.find(path)]
    manifests = [name.split("/") for name in names if name.endswith(f"/{MANIFEST}")]
    corpora = {"/".join(parts[:-2]) for parts in manifests if parts[-2] in SCHEMAS}
    for name in names:
        parts = name.split("/")
        if any(passed_over(part, name, account) for part in parts):
            continue
        if corpus := corpora.intersection("/".join(parts[:depth]) for depth in range(len(parts))):
            account.add("", "files of corpora", corpus.pop() or ".")
            continue
        yield name


def _list_local(root: str, account: Account) -> Iterator[str]:
    entered: set[str] = set()
    folders = [root]
    links: list[str] = []  # followed after all real folders, so that these keep their paths
    while folders or links:
        if not folders:
            links.sort(reverse=True)
        folder = (folders or links).pop()
        real, relative = os.path.realpath(folder), folder[len(root) :].strip("/")
        if real in entered:
            continue
        entered.add(real)
        names: list[str] = []
        try:
            if any(Path(folder, mark).exists() for mark in CORPUS_MARKS):
                account.add("", "corpora", locations.printable(relative or "."))
                continue
            yield from _list_files(folder, relative, names, account)
        except OSError as error:
            if folder == root:
                raise UsageError(f"--input: cannot list {root}: {error.strerror}: make it readable") from error
            account.add("unreadable", f"folders cannot be read ({error.strerror})", locations.printable(relative))
        for name in names:
            (links if Path(folder, name).is_symlink() else folders).append(f"{folder}/{name}")


def _list_files(folder: str, relative: str, folders: list[str], account: Account) -> Iterator[str]:
    """The files of one folder; the names of the folders in it are added to `folders`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{relative}/{entry.name}".lstrip("/")
            if passed_over(entry.name, path, account):
                continue
            with contextlib.suppress(OSError):  # a link that leads into itself, or to where one may not look
                if entry.is_dir():
                    folders.append(entry.name)
                    continue
                if entry.is_file():
                    yield path
                    continue
            account.add("not_taken", "links that lead nowhere, pipes and devices", locations.printable(path))


def passed_over(name: str, path: str, account: Account) -> bool:
    """Whether a file or folder is hidden, trash or thumbnails, which is noted."""
    kind = "hidden files and folders" if name.startswith(".") else ""
    kind = kind or next((kind for kind, pattern in _patterns_passed_over().items() if pattern.search(path)), "")
    if kind:
        account.add("", kind, locations.printable(path))
    return bool(kind)


@functools.cache
def _names() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("names.yaml").read_text("utf-8"))


@functools.cache
def _patterns_passed_over() -> dict[str, re.Pattern[str]]:
    """By kind, what finds its names as whole parts of a path."""
    return {
        kind: re.compile(f"(?:^|/)(?:{'|'.join(map(re.escape, names))})(?:/|$)".replace(r"\*", "[^/]*"), re.IGNORECASE)
        for kind, names in _names()["passed_over"].items()
    }


def _looks_like_media(suffix: str) -> bool:
    guess = mimetypes.guess_type(f"x{suffix}", strict=False)[0] or ""
    return suffix in _names()["not_read"] or guess.startswith(("image/", "video/"))
