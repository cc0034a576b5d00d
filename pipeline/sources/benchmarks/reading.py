"""Reading the files of a benchmark: text in UTF-8, JSON of a known layout. Whatever cannot be read names its place."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import UsageError
from pipeline.sources.items import SPLIT_NAMES, clean_text

T = TypeVar("T")


def refusal(path: Path | str, content: str, expected: str) -> UsageError:
    """The error for a file that is not as published. `content` and `expected` complete "FILE has …; expected …"."""
    return UsageError(f"--input: {path} has {content}; expected {expected}. Fetch the file again.")


def read_bytes(path: Path) -> bytes:
    """A file's bytes, unpacked where its name ends in `.gz`. Raises UsageError where it cannot be read."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"--input: cannot read {path}: {error}. Check its permissions or fetch it again.") from error


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark, also packed as `.gz`; its line ends as they are.

    Raises UsageError for another encoding, naming the line.
    """
    data = read_bytes(path)
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"--input: {path} line {line:,} is not UTF-8: {error}. Convert the file, for example with iconv -f GB18030 "
            "-t UTF-8, or -f WINDOWS-1252 for Western languages."
        ) from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without their ends. Blank ones stay: line N of parallel files is the same item.

    Only line feeds, with or without a carriage return, end a line: captions hold other characters that Python takes
    for line ends.
    """
    lines = read_text(path).split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_ids(path: Path) -> list[str]:
    """The ids in a text file, one per line, without white space at their ends and without blank lines.

    Raises UsageError for one that comes twice.
    """
    ids = [id for line in read_lines(path) if (id := line.strip())]
    unique(ids, str(path))
    return ids


def read_layout(path: Path, parse: Callable[[Any], T], expected: str, text: str | None = None) -> T:
    """What a JSON file holds, as `parse` takes it apart; `text` is its content where it is not the whole file.

    Raises UsageError where it is not JSON or `parse` meets another layout.
    """
    text = read_text(path) if text is None else text
    try:
        return parse(json.loads(text))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise refusal(path, f"another layout ({type(error).__name__}: {error})", expected) from error


def read_karpathy(path: Path, key: str = "filename") -> list[tuple[str, str, str, list[str]]]:
    """The images of a file in the layout of Karpathy's `dataset_*.json`: id, name of its file, split, sentences.

    `key` is what has the ids, which are unique: `filename`, or `cocoid`, whose numbers become twelve digits.
    """

    def parse(data: Any) -> list[tuple[str, str, str, list[str]]]:
        return [
            (
                str(row[key]) if key == "filename" else f"{int(row[key]):012}",
                str(row["filename"]),
                SPLIT_NAMES.get(row["split"], row["split"]),
                [clean_text(sentence["raw"]) for sentence in row["sentences"]],
            )
            for row in data["images"]
        ]

    listed = read_layout(path, parse, "Karpathy's list `images` (filename, split, sentences, and cocoid for COCO)")
    unique((id for id, *_ in listed), f"{path}, images")
    return listed


def unique(ids: Iterable[str], where: str) -> None:
    """Raises UsageError for an id that comes twice in the file `where`, one id per line, naming both lines."""
    first: dict[str, int] = {}
    for line, id in enumerate(ids, start=1):
        if first.setdefault(id, line) != line:
            lines = f"line {first[id]:,} and line {line:,}"
            raise UsageError(f"--input: {where}: the id {id!r} comes twice, in {lines}. Take one of them out.")


def splits_of(lists: Iterable[tuple[str, Iterable[str]]], root: Path) -> dict[str, str]:
    """The split of each id, from (split, ids); lists of one split are put together.

    Raises UsageError for an id in two splits.
    """
    splits: dict[str, str] = {}
    for split, ids in lists:
        for id in ids:
            if splits.setdefault(id, split) != split:
                raise UsageError(f"--input: {root} has {id} in the lists of {splits[id]} and {split}. Correct them.")
    return splits
