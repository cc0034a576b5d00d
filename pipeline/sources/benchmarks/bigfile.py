"""BigFile: the features of a whole set in one matrix, and which of its rows are whose.

    feature.bin        float32, little-endian, row after row, nothing else
    shape.txt          ROWS DIM
    id.txt             the id of each row, on one line with blanks between, in ISO-8859-1 or UTF-8
    video2frames.txt   of videos: from each one to its rows' ids, as Python's repr writes a dict of lists:
                       {'video0': ['video0_0', 'video0_1'], 'video1': []}

Only the small files are read here; `pipeline.media.uri` reads the rows of an item when it is opened.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.media.uri import reference
from pipeline.sources.benchmarks.reading import read_bytes, read_layout, refusal

ITEM_SUFFIXES = (".jpg", ".mp4")  # an id has its suffix in some files of a set and lacks it in others
FLOAT = 4  # bytes

Rows = list[tuple[str, Sequence[int]]]  # names, and the rows of each


def bare(name: str) -> str:
    """An item's id without the file suffix that some files of a set give it."""
    return name[:-4] if name.endswith(ITEM_SUFFIXES) else name


def read_bigfile(folder: Path, names: Mapping[str, str]) -> tuple[dict[str, str], bool, list[str]]:
    """The rows of items in the BigFile `folder`. `names` are from names here, without suffix, to items.

    Without a video2frames.txt, each row is an image. Raises UsageError where sizes and counts do not agree, and for ids
    that come twice.

    Returns:
        By item the URI of an array [rows, DIM], see `pipeline.media.uri`; whether its rows are the frames of a video;
        and the videos, or images, that belong to no item.
    """
    shape = read_bytes(folder / "shape.txt").split()
    if len(shape) != 2 or not all(re.fullmatch(rb"0*[1-9][0-9]{0,17}", number) for number in shape):
        raise refusal(folder / "shape.txt", f"{b' '.join(shape)[:60]!r}", "two whole numbers, ROWS DIM")
    rows, dim = map(int, shape)
    size = (folder / "feature.bin").stat().st_size
    if size != rows * dim * FLOAT:
        expected = f"{rows * dim * FLOAT:,} bytes for the {rows:,} rows of {dim:,} floats in shape.txt"
        raise refusal(folder / "feature.bin", f"{size:,} bytes", expected)
    ids = _decode(read_bytes(folder / "id.txt")).split()
    if len(ids) != rows:
        raise refusal(folder / "id.txt", f"{len(ids):,} ids", f"{rows:,}, one for each row of shape.txt")
    places: dict[str, int] = {}
    for row, id in enumerate(ids):
        if places.setdefault(id, row) != row:
            raise refusal(folder / "id.txt", f"the id {id!r} for row {places[id]:,} and row {row:,}", "each id once")
    listed = folder / "video2frames.txt"
    video = listed.is_file()
    groups: Rows = _read_listed(listed, places) if video else [(id, [row]) for id, row in places.items()]
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
    return uris, video, unused


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


def read_names(path: Path) -> dict[str, list[str]]:
    """The dict of lists in a video2frames.txt, also as Python 2 writes it; raises UsageError for anything else.

    It is read as JSON: as Python, tens of megabytes would need gigabytes for the syntax tree.
    """

    def parse(data: Any) -> dict[str, list[str]]:
        return {name: list(map(str, frames)) for name, frames in data.items()}

    text = re.sub(r"\bu(?=')", "", _decode(read_bytes(path))).replace("'", '"')
    return read_layout(path, parse, "a dict from strings to lists of strings", re.sub(r",\s*(?=[\]}])", "", text))
