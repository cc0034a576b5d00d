"""The one place where rows are matched to the media they are about."""

import posixpath
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence


class RowMatches:
    """Which rows of a side file belong to which medium of a folder.

    A row belongs to the medium at its path, relative to the media's folder or to the side file's own. A row whose path
    does not exist belongs to the medium of the same name where that is certain: there is one medium of that name, no
    row with its path, and one path with that name among the rows.

    Memory: 16 bytes per row.

    Attributes:
        unmatched: Rows about no medium here.
        ambiguous: Rows whose name several media or several paths have.
    """

    def __init__(self, media: Sequence[str], folder: str = "", below: str | None = None):
        """Prepare for the rows of one side file.

        Args:
            media: Sorted paths of the media, relative to their folder.
            folder: The side file's folder, relative to the media's, with `/` at its end unless empty.
            below: For a side file above the media's folder: the part of its paths that leads down there.
        """
        self._media, self._folder, self._below = media, folder, below
        self._positions, self._offsets = array("q"), array("q")  # of the medium; of the row in its file
        self._by_name: list[tuple[str, int]] = []  # rows whose path does not exist
        self.unmatched = self.ambiguous = 0

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, file: str, offset: int) -> None:
        """Add the row at `offset` of its file, about the medium at `file`."""
        file = posixpath.normpath(file.strip())
        position = next((at for path in self._paths(file) if (at := find_path(self._media, path)) is not None), None)
        if position is not None:
            self._positions.append(position)
            self._offsets.append(offset)
        elif self._below is not None and "/" in file:  # about a neighbouring folder
            self.unmatched += 1
        else:
            self._by_name.append((file, offset))

    def _paths(self, file: str) -> Iterator[str]:
        if self._below is None:
            yield self._folder + file
        elif file.startswith(self._below):
            yield file.removeprefix(self._below)
        yield file

    def finish(self) -> None:
        """Match the remaining rows by name, once all rows are added."""
        paths: dict[str, set[str]] = {}
        for file, _ in self._by_name:
            paths.setdefault(posixpath.basename(file), set()).add(file)
        named: dict[str, int] = {}  # position by name; -1 where several media have the name
        if paths:
            for position, path in enumerate(self._media):
                name = posixpath.basename(path)
                if name in paths:
                    named[name] = -1 if name in named else position
        taken = set(self._positions)
        for file, offset in self._by_name:
            name = posixpath.basename(file)
            place = named.get(name)
            if place is None or place in taken:
                self.unmatched += 1
            elif place < 0 or len(paths[name]) > 1:
                self.ambiguous += 1
            else:
                self._positions.append(place)
                self._offsets.append(offset)
        self._by_name.clear()
        order = sorted(range(len(self)), key=self._positions.__getitem__)
        self._positions = array("q", (self._positions[at] for at in order))
        self._offsets = array("q", (self._offsets[at] for at in order))

    def offsets(self, position: int) -> Sequence[int]:
        """Where the rows of the medium at `position` begin, in the file's order."""
        first, end = bisect_left(self._positions, position), bisect_right(self._positions, position)
        return self._offsets[first:end]


def find_path(sorted_paths: Sequence[str], path: str) -> int | None:
    """The position of a path in a sorted list; None where it is not there."""
    at = bisect_left(sorted_paths, path)
    return at if at < len(sorted_paths) and sorted_paths[at] == path else None
