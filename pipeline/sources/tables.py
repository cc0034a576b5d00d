"""Rows of tables as people have them: CSV of any separator, JSON lines, and JSON in a few layouts."""

import csv
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.errors import UsageError
from pipeline.sources.items import SPLIT_NAMES
from pipeline.sources.locations import suffix_of, text_lines
from pipeline.sources.rows import is_medium, read_column, read_file, read_json, row_of

SEPARATORS = ",;\t|"
LISTS = {"data", "annotations", "captions", "items", "rows", "samples", *SPLIT_NAMES}  # of rows, in an object


def read_table(location: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file with their lines, counted from 1; of JSON that is not in lines, with their numbers.

    Raises:
        UsageError: The file is damaged. The message has the line.
    """
    suffix = suffix_of(location)
    if suffix in (".csv", ".tsv", ".txt"):
        return _csv_rows(location)
    return _json_rows(location) if suffix == ".json" else _json_lines(location)


def row_error(location: str, line: int, problem: str) -> UsageError:
    """The error for a row that cannot be used."""
    return UsageError(f"--input: {location} line {line}: {problem}. Correct this line, or remove the file")


def _json_lines(location: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(text_lines(location), start=1):
        if not text.strip():
            continue
        try:
            row = read_json(text)
        except (ValueError, RecursionError) as error:
            raise row_error(location, line, f"it is not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise row_error(location, line, "it is not an object with `file` and `captions`")
        yield line, row


def _json_rows(location: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a JSON file: a list of them; an object of captions by file; COCO's or Karpathy's layout; lines."""
    try:
        rows = content = read_json("".join(text_lines(location)))
    except (ValueError, RecursionError):
        yield from _json_lines(location)
        return
    if isinstance(content, dict) and isinstance(images := content.get("images"), list):
        rows = content.get("annotations", images)
        if rows is not images:
            files = {image["id"]: read_file(image) for image in images if "id" in image}
            rows = [{**row, "file": files.get(row.get("image_id"))} for row in rows]
    elif isinstance(content, dict) and (
        lists := {name: content[name] for name in content if name in LISTS and _is_rows(content[name])}
    ):
        rows = [{"split": SPLIT_NAMES.get(name, ""), **row} for name, rows in lists.items() for row in rows]
    elif isinstance(content, dict):
        cells = [(file, cell if isinstance(cell, dict) else {"captions": cell}) for file, cell in content.items()]
        rows = [{"file": file, **cell} for file, cell in cells]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise row_error(location, 1, "it is not a list of objects with `file` and `captions`")
    yield from enumerate(rows, start=1)


def _csv_rows(location: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table, whose separator is the one that makes a column of files, or else the most columns."""
    # Lines may end as on old Macs.
    lines = (part for line in text_lines(location) for part in re.split(r"(?<=\r)(?!\n)", line) if part)
    first, num_read, separators = next(lines, ""), 1, SEPARATORS
    if match := re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE):
        first, num_read, separators = next(lines, ""), 2, match[1]
    headers = [[cell.strip() for cell in next(csv.reader([first], delimiter=sign), [])] for sign in separators]
    header = max(headers, key=lambda cells: (any(map(_names_files, cells)), any(map(is_medium, cells)), len(cells)))
    rest: Iterable[str] = lines
    separator = separators[headers.index(header)]
    if not any(map(_names_files, header)) and len(header) <= 2 and any(map(is_medium, header)):
        rest, num_read = itertools.chain([first], lines), num_read - 1  # there is no header
        header = ["file" if is_medium(cell) else "caption" for cell in header]
    reader = csv.reader(rest, delimiter=separator, strict=True)
    try:
        for cells in reader:
            line = reader.line_num + num_read
            if any(cell.strip() for cell in cells[len(header) :]):
                raise row_error(location, line, "more cells than the header has: quote cells with commas")
            if cells:
                yield line, row_of((name, cell) for name, cell in zip(header, cells, strict=False) if name)
    except csv.Error as error:
        raise row_error(location, reader.line_num + num_read, f"it is not valid CSV: {error}") from error


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) and read_file(row) for row in value)


def _names_files(name: str) -> bool:
    return read_column(name).role == "file"
