"""What a source yields: items with their captions, not yet opened. And the names of splits."""

import itertools
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Protocol

from pipeline.errors import UsageError
from pipeline.sources.account import Account

# Names of the three splits that the stages know, as other data sets write them; "restval" is Karpathy's COCO.
_SPELLINGS = {
    "train": ("train", "training", "restval"),
    "val": ("val", "valid", "validation", "dev", "validierung"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLIT_NAMES = {spelling: split for split, spellings in _SPELLINGS.items() for spelling in spellings}
WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+|[^A-Za-z0-9_. -]+")
# What may stand next to a split in the name of its folder. Numbers may, too.
_FILLERS = ("image", "img", "picture", "photo", "video", "clip", "frame")
SPLIT_FILLERS = frozenset((*_FILLERS, *(f"{word}s" for word in _FILLERS), "coco", "data", "split", "subset", ""))


@dataclass(frozen=True)
class SourceCaption:
    """One caption of an item.

    Attributes:
        text: The caption.
        language: BCP 47 tag.
        origin: `human`, `mt` or `mllm`.
        number: Its number among those of its item and language, from 0; None where its place decides. A translation
            has the number of the caption that it translates.
    """

    text: str
    language: str = "en"
    origin: str = "human"
    number: int | None = None


@dataclass(frozen=True)
class SourceItem:
    """One image or video, by reference.

    Attributes:
        item_id: Unique in the source.
        uri: Opened by `pipeline.media.uri.open_media`; "" where the media are missing.
        split: train, val, test, or a name of the source's own.
        source: Where the item comes from.
        license: Its licence.
        captions: Its captions.
        media_type: `image` or `video` where the media are missing.
    """

    item_id: str
    uri: str
    split: str = "train"
    source: str = ""
    license: str = ""
    captions: tuple[SourceCaption, ...] = ()
    media_type: str = ""


@dataclass(frozen=True)
class Defaults:
    """Fields of items whose source does not name them."""

    split: str = "train"
    caption_language: str = "en"
    license: str = ""


class Source(Protocol):
    """An input whose files were looked through.

    Attributes:
        kind: One of `pipeline.sources.KINDS`.
        name: Short name of the input: the items' `source`, and the prefix of their ids where there are other inputs.
        account: What was not taken, complete once `items()` has run to its end.
    """

    kind: str
    name: str
    account: Account

    @property
    def summary(self) -> str:
        """One line for the user. For tar files its counts are complete once `items()` has run to its end."""

    def items(self) -> Iterator[SourceItem]:
        """List the items, in the same order every time. Raises UsageError where the input is damaged."""


class Hashes:
    """Finds texts that come twice. The hashes are sorted on disk, so memory does not grow with the number of texts."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.execute("CREATE TABLE hashes (hash INTEGER)")

    def add(self, text: str) -> None:
        """Add a text."""
        self._database.execute("INSERT INTO hashes VALUES (?)", (hash(text),))

    def repeated(self) -> frozenset[int]:
        """The hashes that two of the texts have."""
        rows = self._database.execute("SELECT hash FROM hashes GROUP BY hash HAVING COUNT(*) > 1")
        return frozenset(value for (value,) in rows)


def all_items(sources: Sequence[Source]) -> Iterator[SourceItem]:
    """List the items of all sources. With several sources their ids begin with the input's name.

    Raises:
        UsageError: An id comes twice in one source.
    """
    for source, prefix in zip(sources, _prefixes(sources), strict=True):
        hashes = Hashes()
        for item in source.items():
            if source.kind not in ("folder", "paths"):  # which make sure of it
                hashes.add(item.item_id)
            yield replace(item, item_id=prefix + item.item_id) if prefix else item
        if repeated := hashes.repeated():
            item_id = next(item.item_id for item in source.items() if hash(item.item_id) in repeated)
            raise UsageError(
                f"--input: {source.name}: the id {item_id!r} comes twice: leave one out, or give them as two inputs"
            )


def _prefixes(sources: Sequence[Source]) -> list[str]:
    """Nothing for a single source, else each one's name and `/`; a name that is taken gets the next free number."""
    if len(sources) == 1:
        return [""]
    names: list[str] = []
    for source in sources:
        name = source.name
        numbers = itertools.count(2)
        while name in names:
            name = f"{source.name}-{next(numbers)}"
        names.append(name)
    return [f"{name}/" for name in names]


def split_named(name: str, default: str) -> str:
    """The split that a cell names: a known name in our spelling, any other as it is, a blank one as `default`."""
    name = name.strip()
    return SPLIT_NAMES.get(name.lower(), name) or default


def split_of_folder(name: str) -> str:
    """The split that a folder's name stands for: `val`, `val2017`, `test_images`, `images-train`, `TestSet`.

    "" where it stands for none: a name with further words is the user's own, as `test drive` and `dev team`.
    """
    words = [re.sub("s?(?:set|data|daten)$", "", word.lower()) for word in WORD.findall(name)]
    splits = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
    return splits[0] if splits and not set(words) - SPLIT_NAMES.keys() - SPLIT_FILLERS else ""


def splits_of_neighbours(folders: Iterable[str]) -> dict[str, str]:
    """Splits of folders with further words in their names that neighbours of other splits have, too.

    >>> splits_of_neighbours(["x/seg_train", "x/seg_test", "x/test drive"])
    {'x/seg_train': 'train', 'x/seg_test': 'test'}
    """
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for folder in folders:
        parent, _, name = folder.rpartition("/")
        for match in WORD.finditer(name):
            if split := SPLIT_NAMES.get(match[0].lower()):
                others = (re.sub(r"\d+", "0", part) for part in (name[: match.start()], name[match.end() :]))
                groups.setdefault((parent, *others), {})[folder] = split
    pairs = (group for group in groups.values() if "train" in group.values() and len(set(group.values())) > 1)
    return {folder: split for group in pairs for folder, split in group.items()}


def split_of_path(path: str, default: str, neighbours: Mapping[str, str] | None = None) -> str:
    """The split that the outermost of a path's folders names that names one: `images/val/1.jpg`, `train2017/1.jpg`.

    `neighbours` are those of `splits_of_neighbours`.
    """
    *folders, _ = path.split("/")
    for depth, name in enumerate(folders, start=1):
        if split := split_of_folder(name) or (neighbours or {}).get("/".join(folders[:depth])):
            return split
    return default


def split_of_shard(path: str, default: str) -> str:
    """The split of a shard, whose file name may have it too: `data/validation-00000-of-00001`, `cc3m-test-0000`."""
    words = [word.lower() for word in WORD.findall(PurePosixPath(path).name)]
    return split_of_path(path, next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), default))


def clean_text(value: Any) -> str:
    """A cell's text, stripped; "" for null. Half a surrogate pair, which JSON allows and tables do not, is U+FFFD."""
    text = "" if value is None else str(value).strip()
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
