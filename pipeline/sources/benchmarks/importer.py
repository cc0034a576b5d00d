"""An import of a benchmark: collects its items, compares counts with the published ones, reports all that is wrong.

Differences are reported together, because whoever repairs a folder wants the whole list.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.items import Defaults, SourceCaption, SourceItem
from pipeline.sources.locations import short_name


@dataclass(frozen=True)
class Options:
    """How strictly a benchmark's folder is read."""

    defaults: Defaults
    subset: bool = False  # --subset: counts that differ from the published ones are notes, not errors
    allow_missing_media: bool = False  # --allow-missing-media: items without media are kept for their texts


class BenchmarkSource:
    """A benchmark that was read and checked. It is held in memory: its texts, 700,000 at most."""

    def __init__(self, kind: str, given: str | Path, items: Sequence[SourceItem], notes: Sequence[str] = ()) -> None:
        """Raises UsageError where there is no item."""
        self.kind = kind
        self.name = short_name(str(given))
        self._items = list(items)
        if not self._items:
            raise UsageError(
                f"--source {kind}: {given} holds no item of the set. Give the folder that holds its texts."
            )
        splits = collections.Counter(item.split for item in self._items)
        captions = collections.Counter(caption.language for item in self._items for caption in item.captions)
        counts = [f"{len(self._items):,} items ({_counts(splits)})"]
        counts += [f"{captions.total():,} captions ({_counts(captions)})"] if captions else ["no captions"]
        self.summary = f"{kind} {given}: {'; '.join([', '.join(counts), *notes])}"

    def items(self) -> Iterator[SourceItem]:
        """The items in the order of the set."""
        return iter(self._items)


class Importer:
    """Collects the items of the set `kind` below `root`, and what is wrong with the folder or worth a note."""

    def __init__(self, kind: str, root: Path, options: Options) -> None:
        self.kind, self.root, self.options = kind, root, options
        self.items: list[SourceItem] = []
        self._problems: list[str] = []
        self._notes: list[str] = []

    def add(
        self, item_id: str, split: str, captions: Iterable[SourceCaption], uri: str, media_type: str = "image"
    ) -> None:
        """Add an item. A `uri` of "" says that its media are missing; `media_type` is what they would be."""
        license = self.options.defaults.license
        self.items.append(SourceItem(item_id, uri, split, self.kind, license, tuple(captions), media_type))

    def count(self, what: str, number: int, *published: int) -> None:
        """Compare a count. Where editions of the set differ, all their counts are `published`."""
        if number in published:
            return
        difference = f"{what}: found {number:,}, expected {' or '.join(f'{count:,}' for count in published)}"
        if self.options.subset:
            self._notes.append(f"{difference} (--subset)")
        else:
            self._problems.append(f"{difference}. Fetch what is missing, or give --subset to take what is there.")

    def note(self, text: str) -> None:
        """Add something worth knowing to the summary."""
        self._notes.append(text)

    def problem(self, text: str) -> None:
        """Add a difference that no option allows: what is there, what is expected, what to do."""
        self._problems.append(text)

    def finish(self, unused_media: Sequence[str] = ()) -> BenchmarkSource:
        """The set, once everything is added. `unused_media` are names of media that belong to no item.

        Raises UsageError listing every problem, one per line.
        """
        missing = [item.item_id for item in self.items if not item.uri]
        if missing and self.options.allow_missing_media:
            self._notes.append(f"{len(missing):,} of {len(self.items):,} items have no media, their texts are kept")
        elif missing:
            self._problems.append(
                f"media: {len(missing):,} of {len(self.items):,} items have none under {self.root} "
                f"({first_names(missing)}). Put them there, or give --allow-missing-media to keep their texts."
            )
        if unused_media:
            self._notes.append(
                f"{len(unused_media):,} media files belong to no id and are not used ({first_names(unused_media)})"
            )
        if self._problems:
            lines = "".join(f"\n  {problem}" for problem in self._problems)
            raise UsageError(f"--source {self.kind}: {self.root} is not the set as published:{lines}")
        return BenchmarkSource(self.kind, self.root, self.items, self._notes)


def first_names(names: Iterable[str], most: int = 3) -> str:
    """The first few names, for a message."""
    listed = list(names)
    return ", ".join([*listed[:most], *(["…"] if listed[most:] else [])])


def _counts(counts: "collections.Counter[str]") -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
