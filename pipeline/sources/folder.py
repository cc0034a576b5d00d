"""A folder of images and videos, with the captions found beside them."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO

from pipeline.errors import UsageError
from pipeline.sources.items import Defaults, SourceCaption, SourceItem, distinct, plain, split_named, split_of_path
from pipeline.sources.locations import SIDE_NAMES, Listing, exists, is_url, short_name
from pipeline.sources.sidecars import SideFile


class FolderSource:
    """The media under a folder, sorted by path. Memory: their paths, and 16 bytes a row of captions."""

    kind = "folder"

    def __init__(self, given: str, listing: Listing, defaults: Defaults):
        self.name = short_name(given)
        self.defaults = defaults
        self.root = listing.root.rstrip("/")
        self.media = listing.media
        if not self.media:
            raise UsageError(f"--input: {given} holds {listing.found()}, wanted images or videos: name their folder")
        self.unused: list[str] = []
        self.sides = self._side_files(given, listing)
        ignored = sum(listing.others.values()) + sum(map(len, listing.shards.values()))
        parts = [f"{len(self.media):,} media files", *map(str, self.sides), *self.unused]
        parts += [f"{ignored:,} other files ignored"] if ignored else []
        parts += [f"{listing.unnameable:,} names that are not UTF-8, not used"] if listing.unnameable else []
        self.summary = f"folder {given}: {', '.join(parts)}"

    def _side_files(self, given: str, listing: Listing) -> list[SideFile]:
        sides = []
        for path in listing.side:
            folder = path[: path.rfind("/") + 1]
            side = SideFile(f"{self.root}/{path}", path, folder)
            side.match(self.media, self.defaults.caption_language)
            if not side.positions:
                raise UsageError(
                    f"--input: {given}: {path} has {side.rows:,} rows, of which none is about a file here: "
                    "wanted paths relative to the folder, or names that are unique in it. Mend it, or take it away"
                )
            sides.append(side)
        above, _, last = self.root.rpartition("/")
        if is_url(self.root) and not is_url(above):
            return sides
        for name in SIDE_NAMES:
            location = f"{above}/{name}"
            if exists(location):
                side = SideFile(location, f"../{name}", below=f"{last}/")
                try:
                    side.match(self.media, self.defaults.caption_language)
                except UsageError as error:
                    if side.positions:
                        raise
                    self.unused.append(f"../{name} not used ({error})")  # it may be somebody else's
                    continue
                if side.positions:
                    sides.append(side)
                else:
                    self.unused.append(f"../{name} not used (about no file here)")
        return sides

    def items(self) -> Iterator[SourceItem]:
        defaults = self.defaults
        with ExitStack() as stack:
            opened = [(side, stack.enter_context(side.open())) for side in self.sides]
            for position, path in enumerate(self.media):
                rows, captions = _read(opened, position, defaults.caption_language) if opened else ([], ())
                yield SourceItem(
                    path,
                    f"{self.root}/{path}",
                    split_named(_first(rows, "split"), split_of_path(path, defaults.split)),
                    _first(rows, "source") or self.name,
                    _licence(rows) or defaults.license,
                    captions,
                )


def _read(
    opened: list[tuple[SideFile, BinaryIO]], position: int, language: str
) -> tuple[list[dict[str, Any]], tuple[SourceCaption, ...]]:
    """The rows about one medium, and their captions, each once."""
    rows, captions = [], []
    for side, stream in opened:
        for row in side.rows_of(position, stream):
            rows.append(row)
            captions += side.captions(row, language)
    return rows, distinct(captions)


def _first(rows: list[dict[str, Any]], column: str) -> str:
    return next((text for row in rows if (text := plain(row.get(column)))), "")


def _licence(rows: list[dict[str, Any]]) -> str:
    """A licence's name, and its address where there is one: the name often lacks the version."""
    name, address = _first(rows, "license"), _first(rows, "license_url")
    return f"{name} <{address}>" if name and address else name or address
