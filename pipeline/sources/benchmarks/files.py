"""The files below a benchmark's folder. Sets are unpacked in many ways, but their files keep their names.

Media are files named after an item, arrays `ITEM.npy`, or BigFiles.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.corpus.table import STATE
from pipeline.errors import UsageError
from pipeline.media.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from pipeline.sources.benchmarks.bigfile import read_bigfile
from pipeline.sources.locations import MEDIA_SUFFIXES

ARRAY = ".npy"


@dataclass
class Media:
    """The media of a set's items: `uris` and `types` ("image" or "video") by item id."""

    uris: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)


class Files:
    """Every file below `root`, but for hidden ones and corpora. Links are followed, each folder is entered once."""

    def __init__(self, root: Path):
        self.root = root
        self.folders = list(_walk(root))
        self._paths: dict[str, list[str]] = {}
        self._requested: set[str] = set()
        self._unused: list[str] | None = None
        for folder, names in self.folders:
            for name in names:
                self._paths.setdefault(name, []).append(f"{folder}/{name}")

    def text(self, name: str) -> Path | None:
        """The file of this name, or with `.gz` behind it; None where there is none. Raises UsageError for two."""
        paths = [path for packed in (name, f"{name}.gz") for path in self._paths.get(packed, ())]
        return Path(self._only(name, paths)) if paths else None

    def matching(self, pattern: re.Pattern[str]) -> list[tuple[Path, re.Match[str]]]:
        """The files whose whole name fits, by their paths."""
        return [
            (folder / name, match)
            for folder, names in self.folders
            for name in names
            if (match := pattern.fullmatch(name))
        ]

    def medium(self, *names: str) -> str:
        """Path of the medium that has one of these names, "" where there is none. Raises UsageError for two."""
        self._requested.update(names)
        return next((self._only(name, self._paths[name]) for name in names if name in self._paths), "")

    def unused_media(self) -> list[str]:
        """Names of the media that belong to no item, once all were looked up."""
        if self._unused is not None:
            return self._unused
        media = (name for name in self._paths if PurePosixPath(name).suffix.lower() in MEDIA_SUFFIXES)
        return sorted(set(media) - self._requested)

    def media(
        self,
        names: Mapping[str, str],
        array_type: str,
        *,
        suffixes: Collection[str] = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES),
        arrays_below: str = "",
    ) -> Media:
        """All media of items, also features.

        Args:
            names: from a file's name without its suffix to the item's id.
            array_type: the media type of an item whose array is found.
            suffixes: those of pictures and videos.
            arrays_below: if given, arrays count only below a folder of this name.

        Raises:
            UsageError: An item has two media, and nobody can tell which is meant.
        """
        items, media, unused = sorted(set(names.values())), Media(), list[str]()
        for folder, files in self.folders:
            if "feature.bin" in files:
                matrix = read_bigfile(folder, items)
                for item, uri in matrix.uris.items():
                    self._add(media, item, uri, "video" if matrix.video else "image")
                unused += matrix.unused if matrix.uris else []
                continue
            arrays = not arrays_below or arrays_below in folder.relative_to(self.root).parts
            known = False
            unknown: list[str] = []
            for name in files:
                stem, dot, suffix = name.rpartition(".")
                suffix = f"{dot}{suffix.lower()}"
                if suffix not in suffixes and not (arrays and suffix == ARRAY):
                    continue
                if stem not in names:
                    unknown.append(name)
                    continue
                known = True
                media_type = array_type if suffix == ARRAY else "video" if suffix in VIDEO_SUFFIXES else "image"
                self._add(media, names[stem], str(folder / name), media_type)
            unused += unknown if known else []  # another folder's pictures are not this set's
        self._unused = unused
        return media

    def _add(self, media: Media, item: str, uri: str, media_type: str) -> None:
        if item in media.uris:
            first, second = (os.path.relpath(path.split("#dim=")[0], self.root) for path in (media.uris[item], uri))
            raise UsageError(
                f"--input: {self.root} has two media for {item} ({first} and {second}), and nobody can tell which is "
                "meant. Take one of them out of this folder."
            )
        media.uris[item], media.types[item] = uri, media_type

    def _only(self, name: str, paths: list[str]) -> str:
        if len(paths) > 1:
            first, second = (os.path.relpath(path, self.root) for path in sorted(paths)[:2])
            raise UsageError(
                f"--input: {self.root} has {name} more than once ({first}, {second}). Take one of them away."
            )
        return paths[0]


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder with the names of its files, sorted."""
    entered: set[str] = set()
    try:
        for folder, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
            real = os.path.realpath(folder)
            if real in entered or STATE in folders:
                folders.clear()
                continue
            entered.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield Path(folder), sorted(name for name in files if not name.startswith("."))
    except OSError as error:
        raise UsageError(f"--input: cannot list {error.filename}: {error.strerror}. Make it readable.") from error


def _refuse(error: OSError) -> None:
    raise error
