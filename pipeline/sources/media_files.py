"""Media that are files: a folder of them with the captions in side files, or a text file of their paths."""

import posixpath
import re
from collections.abc import Iterator

from pipeline.errors import UsageError
from pipeline.sources.account import Account
from pipeline.sources.items import Defaults, Hashes, SourceItem, split_of_path, splits_of_neighbours
from pipeline.sources.listing import Listing
from pipeline.sources.locations import CAPTION_SUFFIXES, absolute, exists, is_url, short_name, text_lines
from pipeline.sources.sidecars import add_fields, open_sides


class FolderSource:
    """The media under a folder, sorted by path. Memory does not grow with their number."""

    kind = "folder"

    def __init__(self, given: str, listing: Listing, defaults: Defaults):
        """Read the side files of a folder that was listed; `given` is its name on the command line."""
        self.name, self.account = short_name(given), listing.account
        self._defaults = defaults
        self._root, self._media = listing.root.rstrip("/"), listing.media
        if not self._media:
            raise UsageError(f"--input: {given} has no images or videos, only {listing.describe()}: name their folder")
        self._neighbours = splits_of_neighbours(listing.folders())
        self._sides, notes = open_sides(listing, defaults.caption_language)
        listing.account_for_others((*self._media.suffixes, *CAPTION_SUFFIXES))
        parts = [f"{len(self._media):,} media files", *map(str, self._sides), *notes]
        self.summary = f"folder {given}: {', '.join(parts)}"

    def items(self) -> Iterator[SourceItem]:
        """The media with their captions; see Source."""
        for path in self._media:
            split = split_of_path(path, self._defaults.split, self._neighbours)
            item = SourceItem(path, f"{self._root}/{path}", split, self.name, self._defaults.license)
            rows = [row for side in self._sides for row in side.fields(path)]
            yield add_fields(item, rows) if rows else item


class PathsSource:
    """The files that a list names, in its order: paths relative to the list's folder, or URLs.

    `#` begins a comment, unless a file has the name. A path that comes again is taken once. Folders name splits; of
    absolute paths and URLs those do that not all have in common.
    """

    kind = "paths"

    def __init__(self, given: str, defaults: Defaults):
        """Count the paths in a list; `given` is its name on the command line."""
        self.name, self.account = short_name(given), Account()
        self._location, self._defaults = absolute(given), defaults
        self._label = self._location.rpartition("/")[2]
        hashes, count = Hashes(), 0
        shared = ""
        for item_id, uri in self._paths(Account()):
            hashes.add(item_id)
            shared = posixpath.commonprefix([shared or uri, uri])
            count += 1
        self._shared = shared.rpartition("/")[0]
        if not count:
            raise UsageError(f"--input: {given} names no file: write one path or URL per line")
        self._repeated = hashes.repeated()
        self.summary = f"paths {given}: {count:,} paths"

    def _paths(self, account: Account) -> Iterator[tuple[str, str]]:
        """The id and the location of each line's file."""
        folder = self._location.rpartition("/")[0]
        for line in map(str.strip, text_lines(self._location)):
            if not line:
                continue
            item_id, uri = self._locate(folder, line)
            # As Windows writes and copies paths.
            other = re.sub('^"(.+)"$', r"\1", line).replace("\\", "/")
            if other != line and not is_url(line) and not exists(uri):
                item_id, uri = self._locate(folder, other)
            if line.startswith("#") and not exists(uri):
                account.add("", f"lines of {self._label} begin with # and name no file", line)
            else:
                yield item_id, uri

    @staticmethod
    def _locate(folder: str, path: str) -> tuple[str, str]:
        if is_url(path):
            return path, path
        item_id = posixpath.normpath(path)
        return item_id, f"{folder}/{item_id}" if is_url(folder) else posixpath.normpath(posixpath.join(folder, item_id))

    def items(self) -> Iterator[SourceItem]:
        """The files; see Source."""
        seen: set[str] = set()
        for item_id, uri in self._paths(self.account):
            if hash(item_id) in self._repeated:
                if item_id in seen:
                    self.account.add("", f"lines of {self._label} repeat a path", item_id)
                    continue
                seen.add(item_id)
            is_relative = not is_url(item_id) and not item_id.startswith("/")
            split = split_of_path(item_id if is_relative else uri.removeprefix(self._shared), self._defaults.split)
            yield SourceItem(item_id, uri, split, self.name, self._defaults.license)
