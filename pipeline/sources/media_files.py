"""Media that are files: a folder of them with the captions in side files, or a text file of their paths."""

import posixpath
from collections.abc import Iterator
from contextlib import ExitStack

from pipeline.errors import UsageError
from pipeline.sources.items import Defaults, SourceItem, split_named, split_of_path
from pipeline.sources.locations import SIDE_NAMES, Listing, absolute, exists, is_url, open_binary, short_name
from pipeline.sources.matching import RowMatches
from pipeline.sources.rows import distinct
from pipeline.sources.sidecars import SideFile, first_text


class FolderSource:
    """The media under a folder, sorted by path. Memory: their paths, and 16 bytes per row of captions."""

    kind = "folder"

    def __init__(self, given: str, listing: Listing, defaults: Defaults):
        """Read the side files of a folder that was listed; `given` is its name on the command line."""
        self.name = short_name(given)
        self._given, self._defaults = given, defaults
        self._root, self._media = listing.root.rstrip("/"), listing.media
        if not self._media:
            raise UsageError(f"--input: {given} holds {listing.describe()}, but no images or videos: name their folder")
        notes = self._read_sides(listing)
        if ignored := sum(listing.others.values()) + sum(map(len, listing.shards.values())):
            notes.append(f"{ignored:,} other files ignored")
        if listing.unnameable:
            notes.append(f"{listing.unnameable:,} names that are not UTF-8, not used")
        parts = [f"{len(self._media):,} media files", *map(str, self._sides), *notes]
        self.summary = f"folder {given}: {', '.join(parts)}"

    def _read_sides(self, listing: Listing) -> list[str]:
        """Read the side files in the folder and next to it; the notes are about those that are not used."""
        language = self._defaults.caption_language
        self._sides: list[SideFile] = []
        notes: list[str] = []
        for path in listing.side:
            matches = RowMatches(self._media, path[: path.rfind("/") + 1])
            side = SideFile(f"{self._root}/{path}", path, matches, language)
            side.read()
            if not matches:
                raise UsageError(
                    f"--input: {self._given}: {path} has {side.rows:,} rows, none of which is about a file here. Its "
                    "paths must be relative to the folder, or names that are unique in it. Correct it, or remove it"
                )
            self._sides.append(side)
        above, _, last = self._root.rpartition("/")
        if is_url(self._root) and not is_url(above):
            return notes
        for name in SIDE_NAMES:
            if not exists(f"{above}/{name}"):
                continue
            matches = RowMatches(self._media, below=f"{last}/")
            side = SideFile(f"{above}/{name}", f"../{name}", matches, language)
            try:
                side.read()
            except UsageError as error:
                if matches:
                    raise
                notes.append(f"../{name} not used ({error})")  # it may belong to something else
                continue
            if matches:
                self._sides.append(side)
            else:
                notes.append(f"../{name} not used (about no file here)")
        return notes

    def items(self) -> Iterator[SourceItem]:
        """The media with their captions; see Source."""
        with ExitStack() as stack:
            streams = [(side, stack.enter_context(side.open())) for side in self._sides]
            for position, path in enumerate(self._media):
                fields = [row for side, stream in streams for row in side.fields(position, stream)]
                name, address = first_text(fields, "license"), first_text(fields, "license_url")
                # The address as well: the name often lacks the version.
                license_name = f"{name} <{address}>" if name and address else name or address
                yield SourceItem(
                    path,
                    f"{self._root}/{path}",
                    split_named(first_text(fields, "split"), split_of_path(path, self._defaults.split)),
                    first_text(fields, "source") or self.name,
                    license_name or self._defaults.license,
                    distinct([caption for row in fields for caption in row.captions]),
                )


class PathsSource:
    """The files that a list names, in its order: paths relative to the list's folder, or URLs; `#` begins a comment."""

    kind = "paths"

    def __init__(self, given: str, defaults: Defaults):
        """Count the paths in a list; `given` is its name on the command line."""
        self.name = short_name(given)
        self._location, self._defaults = absolute(given), defaults
        count = sum(1 for _ in self._lines())
        if not count:
            raise UsageError(f"--input: {given} names no file: write one path or URL per line")
        self.summary = f"paths {given}: {count:,} paths"

    def items(self) -> Iterator[SourceItem]:
        """The files; see Source."""
        folder = self._location.rpartition("/")[0]
        for line in self._lines():
            if is_url(line):
                item_id = uri = line
            else:
                item_id = posixpath.normpath(line)
                uri = f"{folder}/{item_id}" if is_url(folder) else posixpath.normpath(posixpath.join(folder, item_id))
            yield SourceItem(item_id, uri, self._defaults.split, self.name, self._defaults.license)

    def _lines(self) -> Iterator[str]:
        with open_binary(self._location) as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise UsageError(
                        f"--input: {self._location} line {number}: its bytes are not UTF-8: write a path or URL"
                    ) from error
                if text and not text.startswith("#"):
                    yield text
