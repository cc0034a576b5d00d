"""An import of a benchmark: collects its items, compares counts with the published ones, reports all that is wrong.

Differences are reported together, because whoever repairs a folder wants the whole list.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.files import CLIPS, PICTURES, Files, Medium, bare
from pipeline.sources.items import Defaults, SourceCaption, SourceItem, clean_text
from pipeline.sources.locations import short_name


@dataclass(frozen=True)
class Options:
    """How strictly a benchmark's folder is read."""

    defaults: Defaults
    subset: bool = False  # --subset: counts that differ from the published ones are notes, not errors
    allow_missing_media: bool = False  # --allow-missing-media: items without media are kept for their texts


class Importer:
    """Collects the items of the set `kind` below `root`, and what is wrong with the folder or worth a note.

    A `Source` once it is finished. The set is held in memory: its texts, 700,000 at most.

    `texts` are captions that people wrote: by item and language, from number to text.
    """

    summary = ""

    def __init__(self, kind: str, root: Path, options: Options) -> None:
        self.kind, self.root, self.options = kind, root, options
        self.name, self.files = short_name(str(root)), Files(root)
        self.account = self.files.account
        self.texts: dict[str, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
        self._items: list[SourceItem] = []
        self._blank = 0
        self._problems: list[str] = []
        self._notes: list[str] = []

    def add_text(self, item: str, language: str, text: str, number: int | None = None) -> None:
        """Add a caption, by default with the next number of its item and language. A blank one is only counted."""
        texts = self.texts[item][language]
        if text:
            texts[len(texts) if number is None else number] = text
        else:
            self._blank += 1

    def add_lines(
        self, path: Path, lines: Sequence[str], items: Sequence[str], language: str, number: int | None = None
    ) -> None:
        """Add the captions of a file with a line for each of some items, but no text that its item has already."""
        if len(lines) != len(items):
            self.problem(
                f"{path} has {len(lines):,} lines, but the list of its pictures has {len(items):,}. Line N of both is "
                "the same picture: fetch both from one release."
            )
        for item, text in zip(items, map(clean_text, lines), strict=False):
            if text not in self.texts[item][language].values():
                self.add_text(item, language, text, number)

    def captions(self, item: str) -> list[SourceCaption]:
        """The captions of `texts` of an item, in the order in which languages and captions were added."""
        return [
            SourceCaption(text, language, "human", number)
            for language, texts in self.texts[item].items()
            for number, text in texts.items()
        ]

    def add_items(
        self,
        splits: Mapping[str, str],
        media_type: str = "image",
        captions: Callable[[str], Iterable[SourceCaption]] | None = None,
        media: Mapping[str, Medium] | None = None,
    ) -> None:
        """Add the items.

        Args:
            splits: The split of each item, in the order of the set.
            media_type: What the media are, also of items that have none.
            captions: From an item to its captions; by default those of `texts`.
            media: The items' media, by default files under their ids.
        """
        if media is None:
            suffixes = PICTURES if media_type == "image" else CLIPS
            media = self.files.media({bare(item): item for item in splits}, suffixes)
        missing = Medium("", media_type, "")
        for item, split in splits.items():
            medium = media.get(item, missing)
            texts = tuple((captions or self.captions)(item))
            license = self.options.defaults.license
            self._items.append(SourceItem(item, medium.uri, split, self.kind, license, texts, medium.type))

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
        numbers = Counter(splits.values())
        for split, number in published.items():
            self.count(f"{what} of {split}", numbers[split], number)

    def note(self, text: str, count: int) -> None:
        """Add a count worth knowing to the summary, unless it is 0."""
        if count:
            self._notes.append(f"{count:,} {text}")

    def problem(self, text: str) -> None:
        """Add a difference that no option allows: what is there, what is expected, what to do."""
        self._problems.append(text)

    def absent(self, what: str, advice: str) -> UsageError:
        """The error for a folder without the files that every copy of the set has."""
        return UsageError(f"--source {self.kind}: {self.root} has no {what}. {advice}")

    def items(self) -> Iterator[SourceItem]:
        """The items in the order of the set."""
        return iter(self._items)

    def finish(self) -> Self:
        """The set, once everything is added. Raises UsageError listing every problem, one per line."""
        items = self._items
        missing = [item.item_id for item in items if not item.uri]
        if missing and not self.options.allow_missing_media:
            self._problems.append(
                f"media: {len(missing):,} of {len(items):,} items have none under {self.root} "
                f"({first_names(missing)}). Put them there, or give --allow-missing-media to keep their texts."
            )
        self.note(f"of {len(items):,} items have no media, their texts are kept", len(missing))
        self.note("captions are blank: not used", self._blank)
        unused = sorted(set(self.files.unused))
        self.note(f"media files belong to no id and are not used ({first_names(unused)})", len(unused))
        if self._problems:
            lines = "".join(f"\n  {problem}" for problem in self._problems)
            raise UsageError(f"--source {self.kind}: {self.root} is not the set as published:{lines}")
        if not items:
            raise UsageError(
                f"--source {self.kind}: {self.root} holds no item of the set. Give the folder that holds its texts."
            )
        splits = Counter(item.split for item in items)
        languages = Counter(caption.language for item in items for caption in item.captions)
        counts = f"{len(items):,} items ({_counts(splits)}), {languages.total():,} captions ({_counts(languages)})"
        self.summary = f"{self.kind} {self.root}: {'; '.join([counts, *self._notes])}"
        return self


def first_names(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    listed = list(names)
    return ", ".join([*listed[:3], *(["…"] if listed[3:] else [])])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
