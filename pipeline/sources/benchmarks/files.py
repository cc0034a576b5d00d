"""The files under a benchmark's folder, by name: sets are unpacked in many ways, but their files keep their names."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.corpus.table import STATE
from pipeline.errors import UsageError
from pipeline.sources.locations import MEDIA_SUFFIXES


class Files:
    """Every file under `root`, as `folders_below` lists them."""

    def __init__(self, root: Path):
        self.root = root
        self._found: dict[str, list[str]] = {}
        self._asked: set[str] = set()
        for folder, names in folders_below(root):
            for name in names:
                self._found.setdefault(name, []).append(f"{folder}/{name}")

    def text(self, name: str) -> Path | None:
        """The file of this name, or with `.gz` behind it; None where there is none. Raises UsageError for two."""
        found = [path for packed in (name, f"{name}.gz") for path in self._found.get(packed, ())]
        return Path(self._one(name, found)) if found else None

    def medium(self, *names: str) -> str:
        """Path of the medium that has one of these names, "" where there is none. Raises UsageError for two."""
        self._asked.update(names)
        for name in names:
            if found := self._found.get(name):
                return self._one(name, found)
        return ""

    def unused_media(self) -> list[str]:
        """Names of the media that nobody asked for, sorted."""
        media = (name for name in self._found if PurePosixPath(name).suffix.lower() in MEDIA_SUFFIXES)
        return sorted(set(media) - self._asked)

    def _one(self, name: str, found: list[str]) -> str:
        if len(found) > 1:
            one, other = (os.path.relpath(path, self.root) for path in sorted(found)[:2])
            raise UsageError(
                f"--input: {self.root} has {name} more than once ({one}, {other}), wanted it once: take one "
                "of them away"
            )
        return found[0]


def folders_below(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder with the names of its files, sorted; not hidden ones, nor corpora. Links are followed once."""
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
        raise UsageError(f"--input: cannot list {error.filename}: {error.strerror}: make it readable") from error


def _refuse(error: OSError) -> None:
    raise error
