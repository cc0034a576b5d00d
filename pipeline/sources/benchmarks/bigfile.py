"""BigFile: the features of a whole set in one matrix, and which of its rows are whose.

    feature.bin        float32, little-endian, row after row, nothing else
    shape.txt          ROWS DIM
    id.txt             the id of each row, on one line with blanks between, in ISO-8859-1
    video2frames.txt   optional: from each video to its rows' ids, as Python's repr writes a dict of lists:
                       {'video0': ['video0_0', 'video0_1'], 'video1': []}

Only the small files are read here; `pipeline.media.uri` reads the rows of an item when it is opened.
"""

import ast
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.media.uri import reference
from pipeline.sources.benchmarks.reading import read_bytes, refusal

FRAME = re.compile(r"(.+)_([0-9]+)", re.DOTALL)
ITEM_SUFFIXES = (".jpg", ".mp4")  # which an id has in one file of a set and lacks in another
FLOAT = 4  # bytes
# video2frames.txt is read entry by entry: tens of megabytes as a whole would need gigabytes as a syntax tree.
_STRING = r"""u?(?:'[^'\\\n]*(?:\\.[^'\\\n]*)*'|"[^"\\\n]*(?:\\.[^"\\\n]*)*")"""
_BLANKS = r"[ \t\r\n]*"
STRING = re.compile(_STRING, re.DOTALL)
ENTRY = re.compile(
    rf"{_BLANKS}({_STRING}){_BLANKS}:{_BLANKS}\["
    rf"({_BLANKS}(?:{_STRING}{_BLANKS},{_BLANKS})*(?:{_STRING}{_BLANKS})?)\]{_BLANKS}(,?)",
    re.DOTALL,
)
OPEN, CLOSE = re.compile(rf"{_BLANKS}\{{"), re.compile(rf"{_BLANKS}\}}{_BLANKS}\Z")


@dataclass(frozen=True)
class BigFile:
    """The items that have rows here: `uris` are by item id, each one an array [rows, DIM] to `pipeline.media.uri`."""

    uris: dict[str, str]
    video: bool  # several rows per item, one per frame; else one row, of an image
    unused: list[str]  # videos, or images, that belong to no item


def bare(name: str) -> str:
    """An item's id without the file suffix that some files of a set give it."""
    return name[:-4] if name.endswith(ITEM_SUFFIXES) else name


def read_bigfile(folder: Path, items: Collection[str]) -> BigFile:
    """The rows of `items`, ids without suffix, in the BigFile `folder`.

    video2frames.txt says whose rows they are. Without it, ids of items are images with one row each, and ids VIDEO_N
    are the frames of VIDEO in the order of the number N. Raises UsageError where both occur, where sizes and counts do
    not agree, and for ids that come twice.
    """
    rows, dim = _shape(folder)
    size = (folder / "feature.bin").stat().st_size
    if size != rows * dim * FLOAT:
        raise refusal(
            folder / "feature.bin",
            f"{size:,} bytes",
            f"{rows * dim * FLOAT:,} bytes for the {rows:,} rows of {dim:,} floats in shape.txt",
        )
    # Split as bytes: in ISO-8859-1, bytes inside a letter of UTF-8 would be blanks.
    ids = [id.decode("iso-8859-1") for id in read_bytes(folder / "id.txt").split()]
    if len(ids) != rows:
        raise refusal(folder / "id.txt", f"{len(ids):,} ids", f"{rows:,}, one for each row of shape.txt")
    place: dict[str, int] = {}
    for row, id in enumerate(ids):
        if place.setdefault(id, row) != row:
            raise refusal(folder / "id.txt", f"the id {id!r} for row {place[id]:,} and row {row:,}", "each id once")
    known = {_as_latin(item): item for item in items} | {item: item for item in items}
    listed = folder / "video2frames.txt"
    if listed.is_file():
        video, groups = True, _listed(listed, place)
    else:
        video, groups = _grouped(folder, ids, known)
    uris: dict[str, str] = {}
    unused = []
    for name, members in groups:
        item = known.get(bare(name))
        if item is None:
            unused.append(name)
        elif item in uris:
            raise refusal(
                listed if listed.is_file() else folder / "id.txt", f"rows for {item} under two names", "one name"
            )
        elif members:
            uris[item] = reference(str(folder / "feature.bin"), dim=dim, rows=members)
    return BigFile(uris, video, unused)


def _shape(folder: Path) -> tuple[int, int]:
    path = folder / "shape.txt"
    numbers = read_bytes(path).split()
    if len(numbers) != 2 or not all(re.fullmatch(rb"0*[1-9][0-9]{0,17}", number) for number in numbers):
        text = b" ".join(numbers)[:60].decode("iso-8859-1")
        raise refusal(path, f"the text {text!r}", "two whole numbers, ROWS DIM")
    rows, dim = map(int, numbers)
    return rows, dim


def _listed(path: Path, place: dict[str, int]) -> list[tuple[str, Sequence[int]]]:
    videos = read_names(path)
    groups: list[tuple[str, Sequence[int]]] = []
    absent: list[str] = []
    for video, frames in videos.items():
        members = [place.get(frame, place.get(_as_latin(frame), -1)) for frame in frames]
        absent += [frame for frame, row in zip(frames, members, strict=True) if row < 0]
        groups.append((video, members))
    if absent:
        raise refusal(path, f"{len(absent):,} frames, such as {absent[0]!r}, that are not in id.txt", "only its frames")
    return groups


def _grouped(folder: Path, ids: Sequence[str], known: dict[str, str]) -> tuple[bool, list[tuple[str, Sequence[int]]]]:
    """Whether the rows are those of videos, and the rows of each."""
    images = [id for id in ids if bare(id) in known]
    frames = {id: match for id in ids if (match := FRAME.fullmatch(id)) and bare(match[1]) in known}
    if images and frames:
        image, frame = images[0], next(iter(frames))
        raise refusal(
            folder / "id.txt",
            f"ids that are items ({image}) and ids that are frames of items ({frame})",
            "one of the two, or a video2frames.txt that says whose each row is",
        )
    if not frames:
        return False, [(id, [row]) for row, id in enumerate(ids)]
    numbered: dict[str, list[tuple[int, int]]] = {}
    for row, id in enumerate(ids):
        match = FRAME.fullmatch(id)
        video, number = (match[1], int(match[2])) if match else (id, 0)
        numbered.setdefault(video, []).append((number, row))
    return True, [(video, [row for _, row in sorted(pairs)]) for video, pairs in numbered.items()]


def _as_latin(name: str) -> str:
    """How a name looks whose bytes in UTF-8 are read as ISO-8859-1: id.txt may be either."""
    return name.encode("utf-8", "surrogatepass").decode("iso-8859-1")


def read_names(path: Path) -> dict[str, list[str]]:
    """The dict of lists in a video2frames.txt, in UTF-8 or else ISO-8859-1, also as Python 2 writes it.

    Nothing is evaluated. Raises UsageError with line and column for anything else than such a dict, and for a key that
    comes twice.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("iso-8859-1")
    names: dict[str, list[str]] = {}
    at = start.end() if (start := OPEN.match(text)) else -1
    more = at >= 0
    while more and (entry := ENTRY.match(text, at)):
        try:
            name, frames = _unquote(entry[1]), [_unquote(string) for string in STRING.findall(entry[2])]
        except (SyntaxError, ValueError) as error:
            raise _not_names(path, text, at, f"a string that cannot be read ({error})") from error
        if name in names:
            raise _not_names(path, text, at, f"the key {name!r} a second time")
        names[name] = frames
        at, more = entry.end(), bool(entry[3])
    if at < 0 or not CLOSE.match(text, at):
        raise _not_names(path, text, max(at, 0), repr(text[max(at, 0) :].lstrip()[:40]))
    return names


def _unquote(string: str) -> str:
    return str(ast.literal_eval(string)) if "\\" in string else string.removeprefix("u")[1:-1]


def _not_names(path: Path, text: str, at: int, content: str) -> UsageError:
    line, column = text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1
    return refusal(f"{path} line {line:,}, column {column:,}", content, "a dict from strings to lists of strings")
