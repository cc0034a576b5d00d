"""BigFile: the features of a whole set in one matrix, and which of its rows are whose.

    feature.bin        float32, little-endian, row after row, nothing else
    shape.txt          ROWS DIM
    id.txt             the id of each row, on one line with blanks between, in ISO-8859-1 or UTF-8
    video2frames.txt   optional: from each video to its rows' ids, as Python's repr writes a dict of lists:
                       {'video0': ['video0_0', 'video0_1'], 'video1': []}

Only the small files are read here; `pipeline.media.uri` reads the rows of an item when it is opened.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.media.uri import reference
from pipeline.sources.benchmarks.reading import read_bytes, refusal

FRAME = re.compile(r"(.+)_([0-9]+)", re.DOTALL)
ITEM_SUFFIXES = (".jpg", ".mp4")  # an id has its suffix in some files of a set and lacks it in others
FLOAT = 4  # bytes
# video2frames.txt is read entry by entry: tens of megabytes as a whole would need gigabytes as a syntax tree.
_STRING = r"""u?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
ENTRY = re.compile(rf"\s*{_STRING}\s*:\s*\[[\s,]*(?:{_STRING}[\s,]*)*\]\s*(?:,\s*|(?=\}}))", re.DOTALL)

Rows = list[tuple[str, Sequence[int]]]  # names, and the rows of each


@dataclass(frozen=True)
class BigFile:
    """The items that have rows here: `uris` are by item id, each one an array [rows, DIM] to `pipeline.media.uri`."""

    uris: dict[str, str]
    video: bool  # several rows per item, one per frame; else one row, of an image
    unused: list[str]  # videos, or images, that belong to no item


def bare(name: str) -> str:
    """An item's id without the file suffix that some files of a set give it."""
    return name[:-4] if name.endswith(ITEM_SUFFIXES) else name


def read_bigfile(folder: Path, names: Mapping[str, str]) -> BigFile:
    """The rows of items in the BigFile `folder`. `names` are from names here, without suffix, to items.

    video2frames.txt says whose rows they are. Without it, ids of items are images with one row each, and ids VIDEO_N
    are the frames of VIDEO in the order of the number N. Raises UsageError where both occur, where sizes and counts do
    not agree, and for ids that come twice.
    """
    shape = read_bytes(folder / "shape.txt").split()
    if len(shape) != 2 or not all(re.fullmatch(rb"0*[1-9][0-9]{0,17}", number) for number in shape):
        raise refusal(folder / "shape.txt", f"{b' '.join(shape)[:60]!r}", "two whole numbers, ROWS DIM")
    rows, dim = map(int, shape)
    size = (folder / "feature.bin").stat().st_size
    if size != rows * dim * FLOAT:
        expected = f"{rows * dim * FLOAT:,} bytes for the {rows:,} rows of {dim:,} floats in shape.txt"
        raise refusal(folder / "feature.bin", f"{size:,} bytes", expected)
    ids = re.split(r"[ \t\r\n]+", _decode(read_bytes(folder / "id.txt").strip()))
    if len(ids) != rows:
        raise refusal(folder / "id.txt", f"{len(ids):,} ids", f"{rows:,}, one for each row of shape.txt")
    places: dict[str, int] = {}
    for row, id in enumerate(ids):
        if places.setdefault(id, row) != row:
            raise refusal(folder / "id.txt", f"the id {id!r} for row {places[id]:,} and row {row:,}", "each id once")
    listed = folder / "video2frames.txt"
    video, groups = (True, _read_listed(listed, places)) if listed.is_file() else _group(folder, ids, names)
    uris: dict[str, str] = {}
    unused = []
    for name, members in groups:
        item = names.get(bare(name))
        if item is None:
            unused.append(name)
        elif item in uris:
            raise refusal(folder, f"rows for {item} under two names", "one name")
        elif members:
            uris[item] = reference(str(folder / "feature.bin"), dim=dim, rows=members)
    return BigFile(uris, video, unused)


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("iso-8859-1")


def _read_listed(path: Path, places: Mapping[str, int]) -> Rows:
    videos = read_names(path)
    absent = [frame for frames in videos.values() for frame in frames if frame not in places]
    if absent:
        raise refusal(path, f"{len(absent):,} frames, such as {absent[0]!r}, that are not in id.txt", "only its frames")
    return [(video, [places[frame] for frame in frames]) for video, frames in videos.items()]


def _group(folder: Path, ids: Sequence[str], names: Mapping[str, str]) -> tuple[bool, Rows]:
    """Whether the rows are those of videos, and the rows of each."""
    images = [id for id in ids if bare(id) in names]
    frames = [id for id in ids if (match := FRAME.fullmatch(id)) and bare(match[1]) in names]
    if images and frames:
        raise refusal(
            folder / "id.txt",
            f"ids that are items ({images[0]}) and ids that are frames of items ({frames[0]})",
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


def read_names(path: Path) -> dict[str, list[str]]:
    """The dict of lists in a video2frames.txt, in UTF-8 or else ISO-8859-1, also as Python 2 writes it.

    Only literals are evaluated. Raises UsageError with the place for anything else than such a dict, and for a key
    that comes twice.
    """
    text = _decode(read_bytes(path)).strip()
    names: dict[str, list[str]] = {}
    at = 1
    while text.startswith("{") and (entry := ENTRY.match(text, at)):
        try:
            ((name, frames),) = ast.literal_eval(f"{{{entry[0]}}}").items()
        except (SyntaxError, ValueError):
            break
        if name in names:
            break
        names[name] = frames
        at = entry.end()
    if not text.startswith("{") or text[at:].strip() != "}":
        expected = "a dict from strings to lists of strings, each key once"
        raise refusal(f"{path}, character {at:,},", repr(text[at - 1 : at + 40]), expected)
    return names
