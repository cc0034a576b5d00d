"""The files below a benchmark's folder. Sets are unpacked in many ways, but their files keep their names.

Texts are in UTF-8, JSON has a known layout, and whatever cannot be read names its place.

Media are files named after an item, arrays `ITEM.npy`, or BigFiles: the features of a whole set in one matrix, and
which of its rows are whose.

    feature.bin        float32, little-endian, row after row, nothing else
    shape.txt          ROWS DIM
    id.txt             the id of each row, on one line with blanks between, in ISO-8859-1 or UTF-8
    video2frames.txt   of videos: from each one to its rows' ids, as Python's repr writes a dict of lists:
                       {'video0': ['video0_0', 'video0_1'], 'video1': []}

Of a BigFile only the small files are read here; `pipeline.media.uri` reads the rows of an item when it is opened.
"""

import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pipeline.errors import UsageError
from pipeline.media.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from pipeline.media.uri import reference
from pipeline.sources.items import SPLIT_NAMES, clean_text
from pipeline.sources.listing import list_folder

ARRAY = ".npy"
PICTURES = frozenset(IMAGE_SUFFIXES)
CLIPS = frozenset((*VIDEO_SUFFIXES, ARRAY))  # or their features
ITEM_SUFFIXES = (".jpg", ".mp4")  # an id has its suffix in some files of a set and lacks it in others
FLOAT = 4  # bytes

T = TypeVar("T")
Rows = list[tuple[str, Sequence[int]]]  # names, and the rows of each


class Medium(NamedTuple):
    """The medium of an item; `name` is the file's without its suffix, `type` "image" or "video"."""

    uri: str
    type: str
    name: str


class Files:
    """Every file below `root` that `list_folder` lists: nothing hidden, and no corpus.

    Attributes:
        folders: Each folder with the names of its files, sorted.
        account: What was not listed.
        unused: The media that belong to no item, once `media` was called.
    """

    def __init__(self, root: Path):
        self.root = root
        listing = list_folder(str(root))
        names: dict[str, list[str]] = {}
        for path in listing.paths:
            folder, _, name = path.rpartition("/")
            names.setdefault(folder, []).append(name)
        self.folders = [(root / folder, names[folder]) for folder in sorted(names)]
        self.account = listing.account
        self.unused: list[str] = []

    def text(self, name: str) -> Path | None:
        """The file of this name, or with `.gz` behind it; None where there is none. Its copies must not differ."""
        paths = [path for path, _ in self.matching(re.compile(rf"{re.escape(name)}(\.gz)?"))]
        for other in paths[1:]:
            if read_bytes(other) != read_bytes(paths[0]):
                raise UsageError(f"--input: {paths[0]} and {other} differ. Take one of them away.")
        return paths[0] if paths else None

    def matching(self, pattern: re.Pattern[str]) -> list[tuple[Path, re.Match[str]]]:
        """The files whose whole name fits, by their paths."""
        return [
            (folder / name, match)
            for folder, names in self.folders
            for name in names
            if (match := pattern.fullmatch(name))
        ]

    def media(
        self, names: Mapping[str, str], suffixes: Collection[str] = PICTURES, arrays_below: str = ""
    ) -> dict[str, Medium]:
        """The media of the items.

        Args:
            names: From a file's name without its suffix, or a name in a BigFile, to the item's id.
            suffixes: Those of media. Arrays are features of videos.
            arrays_below: If given, arrays count only below a folder of this name.

        Returns:
            By item. Of an item with several names, the medium that is found first.

        Raises:
            UsageError: Two media have one of the names, and nobody can tell which is meant.
        """
        media: dict[str, Medium] = {}
        for folder, files in self.folders:
            if "feature.bin" in files:
                uris, is_video, unused = read_bigfile(folder, names)
                for item, uri in uris.items():
                    self._add(media, item, Medium(uri, "video" if is_video else "image", item))
                self.unused += unused if uris else []
                continue
            with_arrays = not arrays_below or arrays_below in folder.relative_to(self.root).parts
            unknown: list[str] = []
            here = 0
            for file in files:
                name, dot, suffix = file.rpartition(".")
                suffix = f"{dot}{suffix.lower()}"
                if suffix not in suffixes or (suffix == ARRAY and not with_arrays):
                    continue
                if name in names:
                    media_type = "image" if suffix in IMAGE_SUFFIXES else "video"
                    self._add(media, names[name], Medium(str(folder / file), media_type, name))
                    here += 1
                else:
                    unknown.append(file)
            self.unused += unknown if here else []  # another folder's pictures are not this set's
        return media

    def _add(self, media: dict[str, Medium], item: str, medium: Medium) -> None:
        other = media.setdefault(item, medium)
        if other is not medium and other.name == medium.name:
            first, second = (os.path.relpath(path.split("#dim=")[0], self.root) for path in (other.uri, medium.uri))
            raise UsageError(f"--input: {self.root} has two media for {item} ({first} and {second}). Take one away.")


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
