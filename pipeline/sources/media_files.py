"""Media that are files: a folder of them with the captions in side files, or a text file of their paths."""

import posixpath
from collections.abc import Iterator

from pipeline.errors import UsageError
from pipeline.sources.items import Defaults, SourceItem, split_of_path
from pipeline.sources.locations import SIDE_NAMES, Listing, absolute, exists, is_url, short_name, text_lines
from pipeline.sources.sidecars import SideFile, add_fields


class FolderSource:
    """The media under a folder, sorted by path. Memory: their paths."""

    kind = "folder"

    def __init__(self, given: str, listing: Listing, defaults: Defaults):
        """Read the side files of a folder that was listed; `given` is its name on the command line."""
        self.name = short_name(given)
        self._given, self._defaults = given, defaults
        self._root, self._media = listing.root.rstrip("/"), listing.media
        if not self._media:
            raise UsageError(f"--input: {given} holds {listing.describe()}, but no images or videos: name their folder")
        self._sides: list[SideFile] = []
        notes = self._read_sides(listing)
        if ignored := listing.suffixes.total() - len(listing.media) - len(listing.side):
            notes.append(f"{ignored:,} other files ignored")
        if listing.unnameable:
            notes.append(f"{listing.unnameable:,} names that are not UTF-8, not used")
        parts = [f"{len(self._media):,} media files", *map(str, self._sides), *notes]
        self.summary = f"folder {given}: {', '.join(parts)}"

    def _read_sides(self, listing: Listing) -> list[str]:
        """Read the side files in the folder and next to it; the notes are about those that are not used."""
        notes: list[str] = []
        above, _, last = self._root.rpartition("/")
        files: list[tuple[str, str, str | None]] = [(f"{self._root}/{path}", path, None) for path in listing.side]
        if is_url(above) or not is_url(self._root):
            places = [(f"{above}/{name}", f"../{name}") for name in SIDE_NAMES]
            files += [(location, label, f"{last}/") for location, label in places if exists(location)]
        for location, label, below in files:
            side = SideFile(location, label, self._media, self._defaults.caption_language, below)
            try:
                side.read()
            except UsageError as error:
                if below is None or side.matched:
                    raise
                notes.append(f"{label} not used ({error})")  # it may belong to something else
                continue
            if side.matched:
                self._sides.append(side)
            elif below is None:
                raise UsageError(
                    f"--input: {self._given}: {label} has {side.rows:,} rows, none of which is about a file here. Its "
                    "paths must be relative to the folder, or names that are unique in it. Correct it, or remove it"
                )
            else:
                notes.append(f"{label} not used (about no file here)")
        return notes

    def items(self) -> Iterator[SourceItem]:
        """The media with their captions; see Source."""
        for position, path in enumerate(self._media):
            split = split_of_path(path, self._defaults.split)
            item = SourceItem(path, f"{self._root}/{path}", split, self.name, self._defaults.license)
            rows = [row for side in self._sides for row in side.fields(position)]
            yield add_fields(item, rows) if rows else item


class PathsSource:
    """The files that a list names, in its order: paths relative to the list's folder, or URLs; `#` begins a comment."""

    kind = "paths"

    def __init__(self, given: str, defaults: Defaults):
        """Count the paths in a list; `given` is its name on the command line."""
        self.name = short_name(given)
        self._location, self._defaults = absolute(given), defaults
        count = sum(1 for _ in self.items())
        if not count:
            raise UsageError(f"--input: {given} names no file: write one path or URL per line")
        self.summary = f"paths {given}: {count:,} paths"

    def items(self) -> Iterator[SourceItem]:
        """The files; see Source."""
        folder = self._location.rpartition("/")[0]
        for line in map(str.strip, text_lines(self._location)):
            if not line or line.startswith("#"):
                continue
            item_id = uri = line
            if not is_url(line):
                item_id = posixpath.normpath(line)
                uri = f"{folder}/{item_id}" if is_url(folder) else posixpath.normpath(posixpath.join(folder, item_id))
            yield SourceItem(item_id, uri, self._defaults.split, self.name, self._defaults.license)
