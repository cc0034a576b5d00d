"""An import of a benchmark: collects its items, compares counts with the published ones, reports all that is wrong.

Differences are reported together, because whoever repairs a folder wants the whole list.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.media.images import VIDEO_SUFFIXES
from pipeline.sources.benchmarks.files import Files
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

    def __init__(self, kind: str, root: Path, items: list[SourceItem], notes: Sequence[str] = ()) -> None:
        """Raises UsageError where there is no item."""
        self.kind = kind
        self.name = short_name(str(root))
        self._items = items
        if not items:
            raise UsageError(f"--source {kind}: {root} holds no item of the set. Give the folder that holds its texts.")
        splits = collections.Counter(item.split for item in items)
        captions = collections.Counter(caption.language for item in items for caption in item.captions)
        counts = [f"{len(items):,} items ({_counts(splits)})"]
        counts += [f"{captions.total():,} captions ({_counts(captions)})"] if captions else ["no captions"]
        self.summary = f"{kind} {root}: {'; '.join([', '.join(counts), *notes])}"

    def items(self) -> Iterator[SourceItem]:
        """The items in the order of the set."""
        return iter(self._items)


class Importer:
    """Collects the items of the set `kind` below `root`, and what is wrong with the folder or worth a note."""

    def __init__(self, kind: str, root: Path, options: Options) -> None:
        self.kind, self.root, self.options = kind, root, options
        self.files = Files(root)
        self.items: list[SourceItem] = []
        self._problems: list[str] = []
        self._notes: list[str] = []

    def add(
        self, item_id: str, split: str, captions: Iterable[SourceCaption], uri: str, media_type: str = "image"
    ) -> None:
        """Add an item. A `uri` of "" says that its media are missing; `media_type` is what they would be."""
        license = self.options.defaults.license
        self.items.append(SourceItem(item_id, uri, split, self.kind, license, tuple(captions), media_type))

    def add_videos(self, splits: Mapping[str, str], captions: Callable[[str], Iterable[SourceCaption]]) -> None:
        """Add the videos of `splits`, which are clips or features under their names; `captions` are by video."""
        media = self.files.media({video: video for video in splits}, "video", suffixes=VIDEO_SUFFIXES)
        for video, split in splits.items():
            self.add(video, split, captions(video), media.uris.get(video, ""), "video")

    def count(self, what: str, number: int, *published: int) -> None:
        """Compare a count. Where editions of the set differ, all their counts are `published`."""
        if number in published:
            return
        difference = f"{what}: found {number:,}, expected {' or '.join(f'{count:,}' for count in published)}"
        if self.options.subset:
            self._notes.append(f"{difference} (--subset)")
        else:
            self._problems.append(f"{difference}. Fetch what is missing, or give --subset to take what is there.")

    def count_splits(self, what: str, splits: Mapping[str, str], published: Mapping[str, int]) -> None:
        """Compare how many items are in each split."""
        numbers = collections.Counter(splits.values())
        for split, number in published.items():
            self.count(f"{what} of {split}", numbers[split], number)

    def note(self, text: str, count: int | None = None) -> None:
        """Add something worth knowing to the summary. With a count, it comes first, and 0 of them are no note."""
        if count is None:
            self._notes.append(text)
        elif count:
            self._notes.append(f"{count:,} {text}")

    def problem(self, text: str) -> None:
        """Add a difference that no option allows: what is there, what is expected, what to do."""
        self._problems.append(text)

    def absent(self, what: str, advice: str) -> UsageError:
        """The error for a folder without the files that every copy of the set has."""
        return UsageError(f"--source {self.kind}: {self.root} has no {what}. {advice}")

    def finish(self) -> BenchmarkSource:
        """The set, once everything is added. Raises UsageError listing every problem, one per line."""
        missing = [item.item_id for item in self.items if not item.uri]
        if missing and self.options.allow_missing_media:
            self.note(f"of {len(self.items):,} items have no media, their texts are kept", len(missing))
        elif missing:
            self._problems.append(
                f"media: {len(missing):,} of {len(self.items):,} items have none under {self.root} "
                f"({first_names(missing)}). Put them there, or give --allow-missing-media to keep their texts."
            )
        unused = self.files.unused_media()
        self.note(f"media files belong to no id and are not used ({first_names(unused)})", len(unused))
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
