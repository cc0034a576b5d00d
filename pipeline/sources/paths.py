"""A text file of paths and URLs, one a line."""

import posixpath
from collections.abc import Iterator

from pipeline.errors import UsageError
from pipeline.sources.items import Defaults, SourceItem
from pipeline.sources.locations import absolute, is_url, open_binary, short_name


class PathsSource:
    """The files that a list names, in its order. A relative path starts at the list's folder; `#` begins a comment."""

    kind = "paths"

    def __init__(self, given: str, defaults: Defaults):
        self.location = absolute(given)
        self.name = short_name(given)
        self.defaults = defaults
        count = sum(1 for _ in self._lines())
        if not count:
            raise UsageError(f"--input: {given} names no file, wanted one path or URL a line")
        self.summary = f"paths {given}: {count:,} paths"

    def items(self) -> Iterator[SourceItem]:
        folder = self.location.rpartition("/")[0]
        for line in self._lines():
            if is_url(line):
                item_id = uri = line
            else:
                item_id = posixpath.normpath(line)
                uri = f"{folder}/{item_id}" if is_url(folder) else posixpath.normpath(posixpath.join(folder, item_id))
            yield SourceItem(item_id, uri, self.defaults.split, self.name, self.defaults.license)

    def _lines(self) -> Iterator[str]:
        with open_binary(self.location) as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise UsageError(
                        f"--input: {self.location} line {number}: got bytes that are not UTF-8, wanted a path or URL"
                    ) from error
                if text and not text.startswith("#"):
                    yield text
