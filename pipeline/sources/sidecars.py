"""Side files of a folder: captions, metadata and attribution of its media, as JSON lines or CSV.

This is the one place where rows are matched to the media that they are about.
"""

import contextlib
import csv
import dataclasses
import json
import posixpath
import sqlite3
import weakref
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pipeline.errors import UsageError
from pipeline.sources.items import SourceCaption, SourceItem, clean_text, split_named
from pipeline.sources.locations import text_lines
from pipeline.sources.rows import CAPTION_KEYS, FILE_KEYS, RowFields, distinct, read_fields


class SideFile:
    """The rows of one side file by medium.

    A row belongs to the medium at its path, relative to the media's folder or to the side file's own. A row whose path
    does not exist belongs to the medium of the same name where that is certain: there is one medium of that name, no
    row with its path, and one path with that name among the rows.

    Attributes:
        is_above: Whether the file is in the folder above the media's.
        rows: How many rows the file has.
        matched: Rows that belong to a medium.
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
        self._location, self._label, self._media, self._language = location, label, media, language
        self._folder, self._root = label[: label.rfind("/") + 1], root
        self.is_above = label.startswith("../")
        self.rows = self.matched = 0
        # A temporary database on disk, so that captions of a large collection do not fill the memory.
        self._table = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._table.close)
        self._table.execute("CREATE TABLE rows (medium, name, file, fields)")

    def read(self) -> None:
        """Read the file, check its rows and match them.

        Raises:
            UsageError: A row is wrong, or none is about a medium.
        """
        for line, row in self._csv_rows() if self._label.endswith(".csv") else self._json_rows():
            self.rows += 1
            file = next((row[key] for key in FILE_KEYS if row.get(key)), None)
            if not isinstance(file, str):
                raise self._error(line, f"no path in {', '.join(FILE_KEYS)} among its columns {', '.join(row)}")
            try:
                fields = read_fields(row, self._language)
            except ValueError as error:
                raise self._error(line, str(error)) from error
            self._add(posixpath.normpath(clean_text(file)), fields)
        self._table.execute("CREATE INDEX by_medium ON rows (medium)")
        self._table.execute("CREATE INDEX by_name ON rows (name)")
        self._match_names()
        if not self.matched:
            raise UsageError(
                f"--input: {self._label} has {self.rows:,} rows, none of which is about a file here: its paths must be "
                "relative to the folder, or names that are unique in it"
            )

    def fields(self, medium: str) -> Iterator[RowFields]:
        """The rows about the medium at a path, in the file's order."""
        rows = self._table.execute("SELECT fields FROM rows WHERE medium = ? ORDER BY rowid", (medium,))
        for (stored,) in rows:
            captions, *texts = json.loads(stored)
            yield RowFields(tuple(SourceCaption(*caption) for caption in captions), *texts)

    def __str__(self) -> str:
        unused = self.rows - self.matched
        note = f" ({unused:,} not used: no file here has their path, and no single one their name)" if unused else ""
        return f"{self._label} with {self.rows:,} rows{note}"

    def _add(self, file: str, fields: RowFields) -> None:
        paths = ((self._folder + file).removeprefix(self._root), file)
        medium = next((path for path in paths if path in self._media), None)
        if medium is None and self.is_above and "/" in file:  # about a neighbouring folder
            return
        self.matched += medium is not None
        values = (medium, posixpath.basename(file), file, json.dumps(dataclasses.astuple(fields)))
        self._table.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", values)

    def _match_names(self) -> None:
        """Match the rows whose path does not exist by name."""
        count_rows = "SELECT name, COUNT(*) FROM rows WHERE medium IS NULL GROUP BY name HAVING MIN(file) = MAX(file)"
        counts = dict(self._table.execute(count_rows).fetchall())
        media: dict[str, str | None] = {}  # name → medium; None if several have the name
        for path in self._media if counts else ():
            name = posixpath.basename(path)
            if name in counts:
                media[name] = None if name in media else path
        for name, medium in media.items():
            if medium is not None and not any(self.fields(medium)):
                self.matched += counts[name]
                self._table.execute("UPDATE rows SET medium = ? WHERE name = ?", (medium, name))

    def _json_rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for line, text in enumerate(text_lines(self._location), start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise self._error(line, f"it is not valid JSON: {error}") from error
            if not isinstance(row, dict):
                raise self._error(line, "it is not an object with `file` and `captions`")
            yield line, row

    def _csv_rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        reader = csv.DictReader(text_lines(self._location), strict=True)
        try:
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            for row in reader:
                if None in row:
                    raise self._error(reader.line_num, "more cells than the header has: quote cells with commas")
                row.update((key, _parse_list(row[key])) for key in CAPTION_KEYS if row.get(key))
                yield reader.line_num, row
        except csv.Error as error:
            raise self._error(reader.line_num + 1, f"it is not valid CSV: {error}") from error

    def _error(self, line: int, problem: str) -> UsageError:
        return UsageError(f"--input: {self._location} line {line}: {problem}. Correct this line, or remove the file")


def _parse_list(cell: str) -> Any:
    """The captions in a cell of a CSV file: a text, or a JSON list of texts."""
    if cell.lstrip().startswith('["'):
        with contextlib.suppress(ValueError, RecursionError):  # a caption may begin with a bracket
            return json.loads(cell)
    return cell


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
