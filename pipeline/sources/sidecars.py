"""Side files of a folder: captions, metadata and attribution of its media, as JSON lines or CSV.

This is the one place where rows are matched to the media that they are about.
"""

import csv
import dataclasses
import json
import posixpath
import sqlite3
import weakref
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.errors import UsageError
from pipeline.sources.items import SourceCaption, SourceItem, clean_text, split_named
from pipeline.sources.locations import text_lines
from pipeline.sources.rows import CAPTION_KEYS, FILE_KEYS, RowFields, distinct, read_captions, read_fields


class SideFile:
    """The rows of one side file by medium.

    A row belongs to the medium at its path, relative to the media's folder or to the side file's own. A row whose path
    does not exist belongs to the medium of the same name where that is certain: there is one medium of that name, no
    row with its path, and one path with that name among the rows.

    Attributes:
        rows: How many rows the file has.
        matched: Rows that belong to a medium.
        unmatched: Rows about no medium here.
        ambiguous: Rows whose name several media or several paths have.
    """

    def __init__(self, location: str, label: str, media: Sequence[str], language: str, below: str | None = None):
        """Prepare to read.

        Args:
            location: Path or URL of the file.
            label: Its path relative to the media's folder.
            media: Sorted paths of the media, relative to their folder.
            language: BCP 47 tag of captions whose row names no language.
            below: For a side file above the media's folder: the part of its paths that leads down there.
        """
        self._location, self._label, self._media, self._language = location, label, media, language
        self._folder, self._below = label[: label.rfind("/") + 1], below
        self.rows = self.matched = self.unmatched = self.ambiguous = 0
        # A temporary database on disk, so that captions of a large collection do not fill the memory.
        self._table = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._table.close)
        self._table.execute("CREATE TABLE rows (position, name, file, fields)")

    def read(self) -> None:
        """Read the file, check its rows and match them. Raises UsageError with the line of a bad row."""
        for line, row in self._csv_rows() if self._label.endswith(".csv") else self._json_rows():
            self.rows += 1
            file = next((row[key] for key in FILE_KEYS if row.get(key)), None)
            if not isinstance(file, str):
                columns = ", ".join(map(str, row)) or "nothing"
                raise self._error(line, f"no path in {', '.join(FILE_KEYS)} among its columns {columns}")
            try:
                fields = read_fields(row, self._language)
            except ValueError as error:
                raise self._error(line, str(error)) from error
            self._add(posixpath.normpath(clean_text(file)), fields)
        self._table.execute("CREATE INDEX by_position ON rows (position)")
        self._match_names()

    def fields(self, position: int) -> Iterator[RowFields]:
        """The rows about the medium at `position`, in the file's order."""
        rows = self._table.execute("SELECT fields FROM rows WHERE position = ? ORDER BY rowid", (position,))
        for (stored,) in rows:
            captions, *texts = json.loads(stored)
            yield RowFields(tuple(SourceCaption(*caption) for caption in captions), *texts)

    def __str__(self) -> str:
        counts = ((self.unmatched, "of no file here"), (self.ambiguous, "with a name that is not unique"))
        unused = ", ".join(f"{count:,} {reason}" for count, reason in counts if count)
        return f"{self._label} with {self.rows:,} rows" + (f" ({unused}: not used)" if unused else "")

    def _add(self, file: str, fields: RowFields) -> None:
        position = next((at for path in self._paths(file) if (at := self._position(path)) is not None), None)
        if position is not None:
            self.matched += 1
        elif self._below is not None and "/" in file:  # about a neighbouring folder
            self.unmatched += 1
            return
        values = (position, posixpath.basename(file), file, json.dumps(dataclasses.astuple(fields)))
        self._table.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", values)

    def _paths(self, file: str) -> Iterator[str]:
        if self._below is None:
            yield self._folder + file
        elif file.startswith(self._below):
            yield file.removeprefix(self._below)
        yield file

    def _position(self, path: str) -> int | None:
        at = bisect_left(self._media, path)
        return at if at < len(self._media) and self._media[at] == path else None

    def _match_names(self) -> None:
        """Match the rows whose path does not exist by name."""
        count_names = "SELECT name, COUNT(*), COUNT(DISTINCT file) FROM rows WHERE position IS NULL GROUP BY name"
        names = {name: (count, num_paths) for name, count, num_paths in self._table.execute(count_names)}
        positions: dict[str, int] = {}  # by name; -1 where several media have it
        for position, path in enumerate(self._media if names else ()):
            name = posixpath.basename(path)
            if name in names:
                positions[name] = -1 if name in positions else position
        if positions:
            self._table.execute("CREATE INDEX by_name ON rows (name)")
        for name, (count, num_paths) in names.items():
            place = positions.get(name)
            if place is None or any(self.fields(place)):
                self.unmatched += count
            elif place < 0 or num_paths > 1:
                self.ambiguous += count
            else:
                self.matched += count
                self._table.execute("UPDATE rows SET position = ? WHERE name = ?", (place, name))

    def _json_rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for line, text in enumerate(text_lines(self._location), start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise self._error(line, f"it is not valid JSON: {error}") from error
            if not isinstance(row, dict):
                kind = type(row).__name__
                raise self._error(line, f"it is a {kind}, not an object with `file` and `captions`")
            yield line, row

    def _csv_rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        reader = csv.reader(text_lines(self._location), strict=True)
        line = 1
        try:
            header = [name.strip() for name in next(filter(None, reader), [])]
            line = reader.line_num + 1
            for cells in reader:
                if len(cells) > len(header):
                    problem = f"{len(cells)} cells where the header has {len(header)}: quote cells with commas"
                    raise self._error(line, problem)
                if cells:
                    yield line, _csv_row(header, cells)
                line = reader.line_num + 1
        except csv.Error as error:
            raise self._error(line, f"it is not valid CSV: {error}") from error

    def _error(self, line: int, problem: str) -> UsageError:
        return UsageError(f"--input: {self._location} line {line}: {problem}. Correct this line, or remove the file")


def _csv_row(header: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    """A row of a CSV file. Captions may be a JSON list in a single cell."""
    row: dict[str, Any] = dict(zip(header, cells, strict=False))
    for key in CAPTION_KEYS:
        if row.get(key, "").lstrip().startswith("["):
            try:
                captions = json.loads(row[key])
                list(read_captions(captions, ""))
            except (ValueError, RecursionError):  # a caption may begin with a bracket
                continue
            row[key] = captions
    return row


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
