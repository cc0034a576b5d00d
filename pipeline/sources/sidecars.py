"""Side files of a folder: captions, metadata and attribution, as JSON lines or CSV, and which medium each row is about.

A side file is read twice, so that no caption waits in memory: once to match and check its rows, keeping the byte offset
of each (16 bytes a row), once row by row as the items are yielded.
"""

import csv
import json
import posixpath
import shutil
import tempfile
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from pipeline.errors import UsageError
from pipeline.sources.items import CAPTION_KEYS, SourceCaption, captions_in, cell_captions
from pipeline.sources.locations import is_url, open_binary

FILE_KEYS = ("file", "file_name", "filename")


class SideFile:
    """One side file. `label` names it in messages; `folder` is its own folder, relative to the media's, with `/` at its
    end unless empty; `below` is set for a file above the media's folder: the part of paths that leads down there.
    """

    def __init__(self, location: str, label: str, folder: str = "", below: str | None = None):
        self.location, self.label, self.folder, self.below = location, label, folder, below
        self.rows = self.unmatched = self.ambiguous = 0
        self.header: list[str] = []  # of CSV
        self.positions, self.offsets = array("q"), array("q")  # by position in the media's list, then as written

    def match(self, media: Sequence[str], language: str) -> None:
        """Reads the whole file and finds the rows of each medium; `media` is sorted.

        A row belongs to the medium at its path, relative to the media's folder or to the side file's own. A row whose
        path is not there belongs to the medium of the same name where this is certain: one medium of that name, no row
        with its path, and one path with that name among the rows. Raises UsageError with the line of a bad row.
        """
        waiting: list[tuple[str, int]] = []
        with self.open() as stream:
            for offset, line, row in self._scan(stream):
                self.rows += 1
                file = self._file_of(row, line)
                try:
                    self.captions(row, language)
                except (ValueError, RecursionError) as error:
                    raise self._bad(line, str(error)) from error
                position = next((at for path in self._paths(file) if (at := find(media, path)) is not None), None)
                if position is not None:
                    self.positions.append(position)
                    self.offsets.append(offset)
                elif self.below is not None and "/" in file:  # about a neighbouring folder
                    self.unmatched += 1
                else:
                    waiting.append((file, offset))
        if waiting:
            self._match_names(waiting, media)
        in_order = sorted(range(len(self.positions)), key=self.positions.__getitem__)
        self.positions = array("q", (self.positions[at] for at in in_order))
        self.offsets = array("q", (self.offsets[at] for at in in_order))

    def _match_names(self, waiting: list[tuple[str, int]], media: Sequence[str]) -> None:
        claims: dict[str, set[str]] = {}
        for file, _ in waiting:
            claims.setdefault(posixpath.basename(file), set()).add(file)
        named: dict[str, int] = {}  # -1 where several media have the name
        for position, path in enumerate(media):
            name = posixpath.basename(path)
            if name in claims:
                named[name] = -1 if name in named else position
        taken = set(self.positions)
        for file, offset in waiting:
            name = posixpath.basename(file)
            place = named.get(name)
            if place is None or place in taken:
                self.unmatched += 1
            elif place < 0 or len(claims[name]) > 1:
                self.ambiguous += 1
            else:
                self.positions.append(place)
                self.offsets.append(offset)

    def _paths(self, file: str) -> Iterator[str]:
        if self.below is None:
            yield self.folder + file
        elif file.startswith(self.below):
            yield file.removeprefix(self.below)
        yield file

    def rows_of(self, position: int, stream: BinaryIO) -> Iterator[dict[str, Any]]:
        """The rows of the medium at a position of the list; `stream` is what `open` gave."""
        first, end = bisect_left(self.positions, position), bisect_right(self.positions, position)
        for offset in self.offsets[first:end]:
            stream.seek(offset)
            if self.header:
                yield dict(zip(self.header, next(csv.reader(_Lines(self, stream, 0), strict=True)), strict=False))
            else:
                yield json.loads(stream.readline().decode("utf-8-sig"))

    def captions(self, row: dict[str, Any], language: str) -> list[SourceCaption]:
        if not self.header:
            return list(captions_in(row, language))
        cell = next((row[key] for key in CAPTION_KEYS if row.get(key)), None)
        return cell_captions(cell, row.get("language") or language)

    def open(self) -> BinaryIO:
        """Opens the file for reading at any place; a remote one is first copied into a temporary file."""
        stream = open_binary(self.location)
        if not is_url(self.location):
            return stream
        with stream:
            local = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller's `with` closes it
            shutil.copyfileobj(stream, local)
        local.seek(0)
        return local

    def __str__(self) -> str:
        lost = [f"{self.unmatched:,} of no file here"] if self.unmatched else []
        lost += [f"{self.ambiguous:,} with a name that is not unique"] if self.ambiguous else []
        return f"{self.label} with {self.rows:,} rows" + (f" ({', '.join(lost)}: not used)" if lost else "")

    def _scan(self, stream: BinaryIO) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Every row with the byte at which it begins and its first line, counted from 1."""
        lines = _Lines(self, stream, 1)
        if not self.label.endswith(".csv"):
            offset = 0
            for text in lines:
                if text.strip():
                    yield offset, lines.number, self._json_row(text, lines.number)
                offset = lines.offset
            return
        reader = csv.reader(lines, strict=True)
        while True:
            offset, line = lines.offset, lines.number + 1
            try:
                record = next(reader, None)
            except csv.Error as error:
                raise self._bad(line, f"got a row that is no CSV: {error}") from error
            if record is None:
                return
            if not record:
                continue
            if not self.header:
                self.header = [name.strip() for name in record]
            elif len(record) > len(self.header):
                raise self._bad(line, f"got {len(record)} cells, wanted the header's {len(self.header)}: quote commas")
            else:
                yield offset, line, dict(zip(self.header, record, strict=False))

    def _json_row(self, text: str, line: int) -> dict[str, Any]:
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._bad(line, f"got a line that is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise self._bad(line, f"got {type(row).__name__}, wanted an object with `file` and `captions`")
        return row

    def _file_of(self, row: dict[str, Any], line: int) -> str:
        file = next((row[key] for key in FILE_KEYS if row.get(key)), None)
        if not isinstance(file, str):
            columns = ", ".join(str(key) for key in row) or "nothing"
            raise self._bad(line, f"got {columns}, wanted the medium's path in one of {', '.join(FILE_KEYS)}")
        return posixpath.normpath(file.strip())

    def _bad(self, line: int, what: str) -> UsageError:
        return UsageError(f"{self.location} line {line}: {what}. Mend this line, or take the file away")


class _Lines:
    """The lines of a stream as text, counting lines and bytes; `number` 0 for a stream that is not at its start."""

    def __init__(self, side: SideFile, stream: BinaryIO, first: int):
        self.side, self.stream, self.number, self.offset = side, stream, first - 1, 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self.stream.readline()
        if not line:
            raise StopIteration
        self.number += 1
        self.offset += len(line)
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise self.side._bad(self.number, "got bytes that are not UTF-8") from error


def find(sorted_paths: Sequence[str], path: str) -> int | None:
    """The position of a path in a sorted list, None where it is not there."""
    at = bisect_left(sorted_paths, path)
    return at if at < len(sorted_paths) and sorted_paths[at] == path else None
