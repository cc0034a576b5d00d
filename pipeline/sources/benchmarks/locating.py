"""Where the media of a set's items lie below its folder: files named by an item's id, arrays `.npy`, or BigFiles."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.media.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from pipeline.sources.benchmarks.bigfile import is_bigfile, read_bigfile
from pipeline.sources.benchmarks.files import folders_below

ARRAY = ".npy"


@dataclass
class Media:
    """What was found. `uris` and `types` ("image" or "video") are by item id, `unused` the names of no item."""

    uris: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


def find_media(
    root: Path,
    names: Mapping[str, str],
    array_type: str,
    *,
    suffixes: Collection[str] = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES),
    arrays_below: str = "",
) -> Media:
    """The media below `root`. `names`: from a file's name without its suffix to the item's id.

    `array_type` is the media type of an item whose array is found; arrays count below a folder `arrays_below` alone,
    where that is given. Raises UsageError for an item with two media: which one is meant, nobody can tell.
    """
    items = sorted(set(names.values()))
    media = Media()

    def add(item: str, uri: str, media_type: str) -> None:
        if item in media.uris:
            here, there = (os.path.relpath(path.split("#dim=")[0], root) for path in (media.uris[item], uri))
            raise UsageError(
                f"--input: {root}: got two media for {item} ({here} and {there}), wanted one, so that it "
                "is known which is meant: take the others out of this folder"
            )
        media.uris[item] = uri
        media.types[item] = media_type

    for folder, files in folders_below(root):
        if "feature.bin" in files and is_bigfile(folder):
            matrix = read_bigfile(folder, items)
            for item, uri in matrix.uris.items():
                add(item, uri, "video" if matrix.video else "image")
            media.unused += matrix.unused if matrix.uris else []
            continue
        arrays = not arrays_below or arrays_below in folder.relative_to(root).parts
        found = 0
        strange: list[str] = []
        for name in files:
            stem, dot, suffix = name.rpartition(".")
            suffix = f"{dot}{suffix.lower()}"
            if suffix not in suffixes and not (arrays and suffix == ARRAY):
                continue
            if stem not in names:
                strange.append(name)
                continue
            found += 1
            video = suffix in VIDEO_SUFFIXES
            add(names[stem], str(folder / name), array_type if suffix == ARRAY else "video" if video else "image")
        media.unused += strange if found else []  # another folder's pictures are not this set's
    return media


def files_like(root: Path, pattern: re.Pattern[str]) -> list[tuple[Path, re.Match[str]]]:
    """The files below `root` whose whole name fits, by their paths."""
    return [
        (folder / name, found)
        for folder, files in folders_below(root)
        for name in files
        if (found := pattern.fullmatch(name))
    ]


def shown(names: Iterable[str], most: int = 3) -> str:
    """The first few names, for a message."""
    first = list(names)
    return ", ".join([*first[:most], *(["…"] if first[most:] else [])])
