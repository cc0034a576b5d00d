"""Side files of a folder: captions, metadata and attribution of its media, as JSON lines or CSV.

A side file is read twice, so that no caption waits in memory: once to check its rows and match them to media, keeping
the byte offset of each, and once row by row as the items are listed.
"""

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from pipeline.errors import UsageError
from pipeline.sources.locations import is_url, open_binary
from pipeline.sources.matching import RowMatches
from pipeline.sources.rows import FILE_KEYS, RowFields, csv_row, read_fields, read_file


class SideFile:
    """One side file; `label` names it in messages.

    Attributes:
        rows: How many rows it has, once it was read.
        matches: Which of them belong to which medium.
    """

    def __init__(self, location: str, label: str, matches: RowMatches, language: str):
        self._location, self._label, self._language = location, label, language
        self._header: list[str] = []  # of CSV
        self.rows, self.matches = 0, matches

    def read(self) -> None:
        """Read the whole file, check its rows and match them. Raises UsageError with the line of a bad row."""
        with self.open() as stream:
            for offset, line, row in self._scan(stream):
                self.rows += 1
                file = read_file(row)
                if file is None:
                    columns = ", ".join(map(str, row)) or "nothing"
                    raise self._error(line, f"no path in {', '.join(FILE_KEYS)} among its columns {columns}")
                try:
                    read_fields(row, self._language)
                except ValueError as error:
                    raise self._error(line, str(error)) from error
                self.matches.add(file, offset)
        self.matches.finish()

    def fields(self, position: int, stream: BinaryIO) -> Iterator[RowFields]:
        """The rows about the medium at `position`; `stream` comes from `open`."""
        for offset in self.matches.offsets(position):
            stream.seek(offset)
            if self._header:
                cells = next(csv.reader(_Lines(self, stream, 0), strict=True))
                row = csv_row(self._header, cells)
            else:
                row = json.loads(stream.readline().decode("utf-8-sig"))
            yield read_fields(row, self._language)

    def open(self) -> BinaryIO:
        """Open the file for reading at any place; a remote one is first copied into a temporary file."""
        stream = open_binary(self._location)
        if not is_url(self._location):
            return stream
        with stream:
            local = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller's `with` closes it
            shutil.copyfileobj(stream, local)
        local.seek(0)
        return local

    def __str__(self) -> str:
        unused = [
            f"{count:,} {reason}"
            for count, reason in (
                (self.matches.unmatched, "of no file here"),
                (self.matches.ambiguous, "with a name that is not unique"),
            )
            if count
        ]
        return f"{self._label} with {self.rows:,} rows" + (f" ({', '.join(unused)}: not used)" if unused else "")

    def _scan(self, stream: BinaryIO) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Every row with the byte at which it begins and its first line, counted from 1."""
        lines = _Lines(self, stream, 1)
        return self._scan_csv(lines) if self._label.endswith(".csv") else self._scan_json(lines)

    def _scan_json(self, lines: "_Lines") -> Iterator[tuple[int, int, dict[str, Any]]]:
        offset = 0
        for text in lines:
            if text.strip():
                try:
                    row = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise self._error(lines.number, f"it is not valid JSON: {error}") from error
                if not isinstance(row, dict):
                    kind = type(row).__name__
                    raise self._error(lines.number, f"it is a {kind}, not an object with `file` and `captions`")
                yield offset, lines.number, row
            offset = lines.offset

    def _scan_csv(self, lines: "_Lines") -> Iterator[tuple[int, int, dict[str, Any]]]:
        reader = csv.reader(lines, strict=True)
        while True:
            offset, line = lines.offset, lines.number + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise self._error(line, f"it is not valid CSV: {error}") from error
            if cells is None:
                return
            if not cells:
                continue
            if not self._header:
                self._header = [name.strip() for name in cells]
            elif len(cells) > len(self._header):
                count = len(self._header)
                raise self._error(line, f"{len(cells)} cells where the header has {count}: quote cells with commas")
            else:
                yield offset, line, csv_row(self._header, cells)

    def _error(self, line: int, problem: str) -> UsageError:
        return UsageError(f"{self._location} line {line}: {problem}. Correct this line, or remove the file")


class _Lines:
    """The lines of a stream as text, counting lines and bytes; `first` 0 for a stream that is not at its start."""

    def __init__(self, side: SideFile, stream: BinaryIO, first: int):
        self._side, self._stream = side, stream
        self.number, self.offset = first - 1, 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._stream.readline()
        if not line:
            raise StopIteration
        self.number += 1
        self.offset += len(line)
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise self._side._error(self.number, "its bytes are not UTF-8") from error


def first_text(fields: Sequence[RowFields], name: str) -> str:
    """The first text that rows give for a field; "" where none does."""
    return next((text for row in fields if (text := getattr(row, name))), "")
