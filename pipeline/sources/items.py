"""What a source yields: items with their human captions, not yet opened. And how captions and splits are spelled."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

# Names in use elsewhere, for the three splits that the stages know; "restval" is Karpathy's COCO.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
CAPTION_KEYS = ("captions", "caption", "sentences", "text", "raw")
NUMBERED_SPLIT = re.compile(r"(train|training|valid|validation|val|dev|test)(?=[-._0-9]|$)")


@dataclass(frozen=True)
class SourceCaption:
    """One caption found beside an item. `language` is BCP 47, `origin` one of `human`, `mt`, `mllm`.

    `number` is its number among those of its item and language, from 0; None where its place tells it. A translation
    has the number of the caption that it translates.
    """

    text: str
    language: str = "en"
    origin: str = "human"
    number: int | None = None


@dataclass(frozen=True)
class SourceItem:
    """One image or video, by reference: `uri` is opened by `pipeline.media.images.open_media`.

    A `uri` of "" says that its media are not there; `media_type`, `image` or `video`, is then what they would be.
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
    """What an item gets where its source does not say."""

    split: str = "train"
    caption_language: str = "en"
    license: str = ""


class Source(Protocol):
    """An input that was looked through. `items()` streams, in the same order each time it is called."""

    kind: str
    name: str  # of the input, short: names the items' `source` and prefixes their ids beside other inputs

    @property
    def summary(self) -> str:
        """One line said to the user. For tar files the counts are complete once `items()` has run to its end."""

    def items(self) -> Iterator[SourceItem]:
        """Raises UsageError where the input turns out to be damaged."""


def split_named(name: str, default: str) -> str:
    """The split that a `split` cell names: a known name in our spelling, any other as it is, blank as `default`."""
    name = name.strip()
    return SPLIT_NAMES.get(name.lower(), name) or default


def split_of_path(path: str, default: str) -> str:
    """The split that a relative path tells by its top-level folder."""
    top, slash, _ = path.partition("/")
    return SPLIT_NAMES.get(top.lower(), default) if slash else default


def split_of_shard(path: str, default: str) -> str:
    """The same for shards, whose file name may begin with it too: `data/validation-00000-of-00001.parquet`."""
    found = NUMBERED_SPLIT.match(PurePosixPath(path).name.lower())
    return split_of_path(path, SPLIT_NAMES[found[1]] if found else default)


def plain(value: Any) -> str:
    """A cell's text, stripped, "" for null. Half a surrogate pair, which JSON can hold and no table, becomes U+FFFD."""
    text = "" if value is None else str(value).strip()
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def captions_in(value: Any, language: str) -> Iterator[SourceCaption]:
    """Captions in a string, a dict (`text`, `raw`, `caption`, … and `language`) or a list of these; blank ones dropped.

    Raises ValueError for anything else, naming it, and RecursionError for lists in lists without end.
    """
    if isinstance(value, str):
        if text := plain(value):
            yield SourceCaption(text, language)
    elif isinstance(value, dict):
        found = next((value[key] for key in CAPTION_KEYS if value.get(key)), None)
        yield from captions_in(found, plain(value.get("language")) or language)
    elif isinstance(value, list):
        for one in value:
            yield from captions_in(one, language)
    elif value is not None:
        raise ValueError(f"got {value!r} ({type(value).__name__}) as a caption, wanted text or a list of texts")


def cell_captions(cell: str | None, language: str) -> list[SourceCaption]:
    """Captions in a CSV cell: a JSON list, or one caption as written."""
    if cell and cell.lstrip().startswith("["):
        try:
            return list(captions_in(json.loads(cell), language))
        except ValueError:  # a caption may begin with a bracket
            pass
    return list(captions_in(cell, language))


def distinct(captions: list[SourceCaption]) -> tuple[SourceCaption, ...]:
    """The captions in order, each once."""
    return tuple(dict.fromkeys(captions))
