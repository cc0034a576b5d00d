"""The files below a benchmark's folder. Sets are unpacked in many ways, but their files keep their names.

Media are files named after an item, arrays `ITEM.npy`, or BigFiles.
"""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import UsageError
from pipeline.media.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from pipeline.sources.benchmarks.bigfile import read_bigfile
from pipeline.sources.benchmarks.reading import read_bytes
from pipeline.sources.listing import list_folder

ARRAY = ".npy"
PICTURES = frozenset(IMAGE_SUFFIXES)
CLIPS = frozenset((*VIDEO_SUFFIXES, ARRAY))  # or their features


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

    def media(self, names: Mapping[str, str], suffixes: Collection[str], arrays_below: str = "") -> dict[str, Medium]:
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
