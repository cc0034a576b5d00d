"""Side files of a folder: captions, metadata and attribution of its media, as tables or JSON.

This is the one place where rows are matched to the media that they are about.
"""

import csv
import dataclasses
import json
import posixpath
import re
import sqlite3
import unicodedata
import urllib.parse
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from pipeline.errors import UsageError
from pipeline.sources.items import SourceCaption, SourceItem, split_named
from pipeline.sources.locations import MEDIA_SUFFIXES, text_lines
from pipeline.sources.rows import RowFields, distinct, read_column, read_fields, read_file, read_json, row_of

SEPARATORS = ",;\t|"


class SideFile:
    """The rows of one side file by medium.

    A row belongs to the medium at its path, relative to the media's folder or to the side file's own. Any other row
    belongs to the medium whose path, or else whose name, is the same but for case, Unicode form, percent-encoding or
    folders, where that is certain: there is one such medium, no row with its path, and one such path among the rows.

    Attributes:
        is_above: Whether the file is in the folder above the media's.
        rows: How many rows the file has.
        matched: Rows that belong to a medium.
        unread: Columns that were not understood.
    """

    def __init__(self, location: str, label: str, media: Collection[str], language: str, root: str = ""):
        """Prepare to read.

        Args:
            location: Path or URL of the file.
            label: Its path relative to the media's folder.
            media: Paths of the media, relative to their folder.
            language: BCP 47 tag of captions whose row names no language.
            root: `../NAME/` of the media's folder.
        """
        self._location, self.label, self._media, self._language = location, label, media, language
        self._folder, self._root = label[: label.rfind("/") + 1], root
        self.is_above = label.startswith("../")
        self.rows = self.matched = 0
        self.unread: dict[str, None] = {}
        # A temporary database on disk, so that captions of a large collection do not fill the memory.
        self._table = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._table.close)
        self._table.execute("CREATE TABLE rows (medium, path, given, fields)")

    def read(self) -> None:
        """Read the file, check its rows and match them.

        Raises:
            UsageError: A row is wrong, or none is about a medium.
        """
        for line, row in self._read_rows():
            self.rows += 1
            file = read_file(row)
            if file is None:
                raise self._error(line, f"no column names a file, such as `file`, among {', '.join(row)}")
            try:
                fields = read_fields(row, self._language)
            except ValueError as error:
                raise self._error(line, str(error)) from error
            self.unread.update(dict.fromkeys(fields.unread))
            self._add(file or f"line {line}", fields)
        self._table.execute("CREATE INDEX by_medium ON rows (medium)")
        self._table.execute("CREATE INDEX by_path ON rows (path)")
        self._match_loosely()
        if not self.matched:
            raise UsageError(
                f"--input: {self.label} has {self.rows:,} rows, none of which is about a file here: its paths must be "
                "relative to the folder, or names that are unique in it"
            )

    def fields(self, medium: str) -> Iterator[RowFields]:
        """The rows about the medium at a path, in the file's order."""
        rows = self._table.execute("SELECT fields FROM rows WHERE medium = ? ORDER BY rowid", (medium,))
        for (stored,) in rows:
            captions, *texts = json.loads(stored)
            yield RowFields(tuple(SourceCaption(*caption) for caption in captions), *texts)

    def unmatched(self) -> Iterator[str]:
        """What the rows that belong to no medium name, in the file's order."""
        for (given,) in self._table.execute("SELECT given FROM rows WHERE medium IS NULL ORDER BY rowid"):
            yield given

    def __str__(self) -> str:
        unused = self.rows - self.matched
        return f"{self.label} with {self.rows:,} rows{f' ({unused:,} not used)' if unused else ''}"

    def _add(self, given: str, fields: RowFields) -> None:
        path = _compose(posixpath.normpath(re.sub(r"^file://|#\d+$", "", given).replace("\\", "/")))
        places = [(self._folder + file).removeprefix(self._root) for file in (posixpath.normpath(given), path)]
        medium = next((place for place in (*places, posixpath.normpath(given), path) if place in self._media), None)
        in_neighbour = "/" in path and not _fold(self._folder + path).startswith(_fold(self._root))
        if medium is None and self.is_above and in_neighbour:
            return
        self.matched += medium is not None
        values = (medium, path, given, json.dumps(dataclasses.astuple(fields)[:-1]))
        self._table.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", values)

    def _match_loosely(self) -> None:
        """Match the rows whose path does not exist, first by whole paths, then by names."""
        folder, root = _fold(self._folder), _fold(self._root)
        self._match(lambda path: (folder + _fold(path)).removeprefix(root), _fold)
        self._match(_fold, _fold)
        self._match(lambda path: _tail(path, self._media), str)
        self._match(posixpath.basename, posixpath.basename)
        self._match(lambda path: _fold(posixpath.basename(path)), lambda path: _fold(posixpath.basename(path)))
        self._match(lambda path: _stem(path) if _suffix(path) not in MEDIA_SUFFIXES else "", _stem)

    def _match(self, row_key: Callable[[str], str], medium_key: Callable[[str], str]) -> None:
        """Match rows to media with the same key, where one path among the rows and one medium without rows have it."""
        paths: dict[str, str | None] = {}  # key → path in the rows; None if several have the key
        for (path,) in self._table.execute("SELECT DISTINCT path FROM rows WHERE medium IS NULL"):
            if key := row_key(path):
                paths[key] = None if key in paths else path
        media: dict[str, str | None] = {}
        for medium in self._media if paths else ():
            if paths.get(key := medium_key(medium)):
                media[key] = None if key in media else medium
        for key, match in media.items():
            if match is not None and not any(self.fields(match)):
                update = "UPDATE rows SET medium = ? WHERE path = ? AND medium IS NULL"
                self.matched += self._table.execute(update, (match, paths[key])).rowcount

    def _read_rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        suffix = _suffix(self.label)
        if suffix == ".json":
            return enumerate(self._json_rows(), start=1)
        return self._json_lines() if suffix == ".jsonl" else self._table_rows()

    def _json_lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for line, text in enumerate(text_lines(self._location), start=1):
            if not text.strip():
                continue
            try:
                row = read_json(text)
            except (ValueError, RecursionError) as error:
                raise self._error(line, f"it is not valid JSON: {error}") from error
            if not isinstance(row, dict):
                raise self._error(line, "it is not an object with `file` and `captions`")
            yield line, row

    def _json_rows(self) -> Iterator[dict[str, Any]]:
        """The rows of a JSON file: a list of them; an object of captions by file; COCO's or Karpathy's layout."""
        try:
            content = read_json("".join(text_lines(self._location)))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--input: {self._location} is not valid JSON: {error}. Correct or remove it") from error
        if isinstance(content, dict) and isinstance(content.get("images"), list):
            rows = content["images"]
            if isinstance(content.get("annotations"), list):
                files = {image.get("id"): read_file(image) for image in rows}
                rows = [{**row, "file": files.get(row.get("image_id"))} for row in content["annotations"]]
        elif isinstance(content, dict):
            rows = [{"file": file, **(_ if isinstance(_, dict) else {"captions": _})} for file, _ in content.items()]
        else:
            rows = content
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._error(1, "it is not a list of objects with `file` and `captions`")
        yield from rows

    def _table_rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows of a table, whose separator is the one that makes a column of files, or of file names."""
        lines = text_lines(self._location)
        first = next(lines, "")
        skipped = 0
        separators = SEPARATORS
        if match := re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE):
            first, skipped, separators = next(lines, ""), 1, match[1]
        headers = [[cell.strip() for cell in next(csv.reader([first], delimiter=sign), [])] for sign in separators]
        known = [any(read_column(name).role == "file" for name in header) for header in headers]
        at = known.index(True) if True in known else max(range(len(headers)), key=lambda index: len(headers[index]))
        header, separator = headers[at], separators[at]
        reader = csv.reader(lines, delimiter=separator, strict=True)
        try:
            for cells in reader:
                line = reader.line_num + skipped + 1
                if any(cell.strip() for cell in cells[len(header) :]):
                    raise self._error(line, f"more cells than the header has: quote cells with {separator!r}")
                if cells:
                    yield line, row_of((name, cell) for name, cell in zip(header, cells, strict=False) if name)
        except csv.Error as error:
            raise self._error(reader.line_num + skipped + 1, f"it is not valid CSV: {error}") from error

    def _error(self, line: int, problem: str) -> UsageError:
        return UsageError(f"--input: {self._location} line {line}: {problem}. Correct this line, or remove the file")


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1].lower()


def _compose(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _fold(path: str) -> str:
    """A path without the differences in case, Unicode form and percent-encoding that systems make."""
    return _compose(urllib.parse.unquote(path)).casefold()


def _stem(path: str) -> str:
    return _fold(posixpath.splitext(posixpath.basename(path))[0])


def _tail(path: str, media: Collection[str]) -> str:
    """The end of an absolute path that is the path of a medium in a folder; "" if there is none."""
    parts = path.split("/") if re.match(r"([A-Za-z]:)?/", path) else []
    tails = ("/".join(parts[at:]) for at in range(1, len(parts) - 1))
    return next((tail for tail in tails if tail in media), "")


def add_fields(item: SourceItem, rows: Sequence[RowFields]) -> SourceItem:
    """The item with what side files say about it; the first text for a field counts."""

    def first(name: str) -> str:
        return next((text for row in rows if (text := getattr(row, name))), "")

    license_name, address = first("license"), first("license_url")
    if license_name and address:  # the address as well: the name often lacks the version
        license_name = f"{license_name} <{address}>"
    return dataclasses.replace(
        item,
        split=split_named(first("split"), item.split),
        source=first("source") or item.source,
        license=license_name or address or item.license,
        captions=distinct([caption for row in rows for caption in row.captions]),
    )
