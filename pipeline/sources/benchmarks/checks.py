"""What every benchmark's reader checks, and how: texts in UTF-8, published counts, media and ids that belong together.

Differences are collected and told at once: whoever mends a folder wants to know all that is wrong with it.
"""

import collections
import gzip
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.sources.items import Defaults, SourceItem
from pipeline.sources.locations import short_name

SHOWN = 3  # ids named in a message


@dataclass(frozen=True)
class Options:
    """How strictly a benchmark's folder is read."""

    defaults: Defaults
    subset: bool = False  # --subset: counts other than the published ones are told, not refused
    allow_missing_media: bool = False  # --allow-missing-media: items without media are kept for their texts


class Checks:
    """Collects what is wrong with a folder and what is worth telling, then speaks once."""

    def __init__(self, name: str, options: Options) -> None:
        self._name, self._options = name, options
        self._wrong: list[str] = []
        self._notes: list[str] = []

    def count(self, what: str, got: int, *wanted: int) -> None:
        """A count that was published; `wanted` are all the right ones, where editions of the set differ."""
        if got in wanted:
            return
        told = f"{what}: got {got:,}, wanted {' or '.join(f'{number:,}' for number in wanted)}"
        if self._options.subset:
            self._notes.append(f"{told} (--subset)")
        else:
            self._wrong.append(f"{told}: fetch what is missing, or give --subset to take what is there")

    def missing_media(self, ids: Sequence[str], total: int, where: str) -> None:
        """Ids, of `total`, that no file under `where` belongs to."""
        if not ids:
            return
        if self._options.allow_missing_media:
            self._notes.append(f"{len(ids):,} of {total:,} items have no media, their texts are kept")
        else:
            self._wrong.append(
                f"media: got none of {len(ids):,} in {total:,} ids ({_some(ids)}), wanted each of them under {where}: "
                "put them there, or give --allow-missing-media to keep their texts"
            )

    def unused_media(self, names: Sequence[str]) -> None:
        """Media that no id belongs to: they are left alone."""
        if names:
            self._notes.append(f"{len(names):,} media files belong to no id and are not used ({_some(names)})")

    def note(self, text: str) -> None:
        self._notes.append(text)

    def wrong(self, text: str) -> None:
        """A difference that no option makes right: got, wanted, and what to do."""
        self._wrong.append(text)

    def finish(self) -> list[str]:
        """The notes, for the summary. Raises UsageError listing every difference, a line each."""
        if self._wrong:
            lines = "".join(f"\n  {line}" for line in self._wrong)
            raise UsageError(f"--source {self._name}: the folder is not the set as published:{lines}")
        return list(self._notes)


def _some(names: Sequence[str]) -> str:
    return ", ".join([*map(str, names[:SHOWN]), *(["…"] if names[SHOWN:] else [])])


class BenchmarkSource:
    """A benchmark that was read and checked. Memory: its texts, of which a benchmark has 700,000 at most."""

    def __init__(self, kind: str, given: str | Path, items: Sequence[SourceItem], notes: Sequence[str] = ()) -> None:
        """Raises UsageError where there is no item."""
        self.kind = kind
        self.name = short_name(str(given))
        self._items = list(items)
        if not self._items:
            raise UsageError(f"--source {kind}: {given} holds no item of the set: give the folder that holds its texts")
        splits = collections.Counter(item.split for item in self._items)
        captions = collections.Counter(caption.language for item in self._items for caption in item.captions)
        counted = [f"{len(self._items):,} items ({_counts(splits)})"]
        counted += [f"{captions.total():,} captions ({_counts(captions)})"] if captions else ["no captions"]
        self.summary = f"{kind} {given}: {'; '.join([', '.join(counted), *notes])}"

    def items(self) -> Iterator[SourceItem]:
        return iter(self._items)


def _counts(counts: "collections.Counter[str]") -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def read_bytes(path: Path) -> bytes:
    """A file's bytes, unpacked where its name ends in `.gz`. Raises UsageError where it cannot be read."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"--input: {path}: got a broken .gz file ({error}): fetch it again") from error
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--input: cannot read {path}: {reason}: check its name and permissions") from error


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark, also packed as `.gz`; its line ends as they are.

    Raises UsageError for another encoding, naming the line, the byte and what the encoding seems to be.
    """
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With a byte order mark, positions count from behind it.
        at = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line = data.count(b"\n", 0, at) + 1
        place = at - (data.rfind(b"\n", 0, at) + 1) + 1
        likely = _likely_encoding(data)
        raise UsageError(
            f"--input: {path} line {line:,}: got byte 0x{data[at]:02x} at place {place:,}, which is not UTF-8 (the "
            f"file looks like {likely}), wanted UTF-8: convert it, for example iconv -f {likely} -t UTF-8"
        ) from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without their ends. Blank ones stay: line N of parallel files is the same item.

    Only `\\n` and `\\r\\n` end a line: a caption may hold other characters that Python takes for line ends.
    """
    lines = read_text(path).split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises UsageError for one that is broken, naming line and column."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"--input: {path} line {error.lineno:,}, column {error.colno:,}: got broken JSON ({error.msg}), wanted the "
            "file as it was published: fetch it again"
        ) from error
    except (RecursionError, ValueError) as error:  # lists in lists without end, a number of thousands of digits
        raise UsageError(f"--input: {path}: got JSON that cannot be read ({error}): fetch the file again") from error


def unique(ids: Iterable[str], where: str) -> None:
    """Raises UsageError for an id that comes twice in the file `where`, an id a line, naming both lines."""
    first: dict[str, int] = {}
    for line, id in enumerate(ids, start=1):
        if first.setdefault(id, line) != line:
            raise UsageError(
                f"--input: {where}: the id {id!r} comes twice, in line {first[id]:,} and line {line:,}, wanted each "
                "once: take one of them out"
            )


def _likely_encoding(data: bytes) -> str:
    """A guess, by iconv's names. In text by Latin letters few bytes above 127 stand side by side, in Chinese and
    Japanese nearly all do.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or data[:1000].count(0) > len(data[:1000]) // 4:
        return "UTF-16"
    part = data[:200_000]
    part = part[: part.rfind(b"\n") + 1] or part  # cut between characters
    high = [byte > 127 for byte in part]
    pairs = sum(one and two for one, two in itertools.pairwise(high))
    if 2 * pairs < sum(high):
        return "WINDOWS-1250" if any(byte in b"\x9a\x9e\xec\xf8\xf9" for byte in part) else "WINDOWS-1252"
    for name, iconv in (("euc_jp", "EUC-JP"), ("shift_jis", "SHIFT_JIS")):
        text = _decoded(part, name)
        kana = sum("\u3041" <= letter <= "\u30f6" for letter in text)
        if 5 * kana > sum(not letter.isascii() for letter in text) > 0:
            return iconv
    if not _decoded(part, "gb2312") and _decoded(part, "big5"):
        return "BIG5"
    return "GB18030"


def _decoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return ""
