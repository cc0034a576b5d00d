"""The one place where the fields of a row about a medium are read, whatever file it comes from.

A row is a dict from a line of JSON, a CSV file, a JSON member of a tar or a dataset's columns:

    file, file_name, filename                    which medium it is about; see sidecars.py
    captions, caption, sentences, text, raw      a text, a dict with a text, or a list of these
    language, split, license, license_url, source
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.sources.items import SourceCaption, clean_text

FILE_KEYS = ("file", "file_name", "filename")
CAPTION_KEYS = ("captions", "caption", "sentences", "text", "raw")


@dataclass(frozen=True)
class RowFields:
    """What a row says about its medium; "" for what it does not say."""

    captions: tuple[SourceCaption, ...] = ()
    language: str = ""
    split: str = ""
    source: str = ""
    license: str = ""
    license_url: str = ""


def read_fields(row: Mapping[str, Any], language: str) -> RowFields:
    """Read the fields of a row.

    Args:
        row: The row.
        language: BCP 47 tag of captions whose row names no language.

    Raises:
        ValueError: Its captions are not text.
    """
    texts = {name: clean_text(row.get(name)) for name in ("language", "split", "source", "license", "license_url")}
    try:
        return RowFields(distinct(read_captions(dict(row), language)), **texts)
    except RecursionError as error:
        raise ValueError("its captions are lists nested without end") from error


def read_captions(value: Any, language: str) -> Iterator[SourceCaption]:
    """Captions in a text, a dict with a text and perhaps a `language`, or a list of these; blank ones are dropped.

    Raises:
        ValueError: The value is something else.
        RecursionError: Lists are nested without end.
    """
    if isinstance(value, str):
        if text := clean_text(value):
            yield SourceCaption(text, language)
    elif isinstance(value, dict):
        inner = next((value[key] for key in CAPTION_KEYS if value.get(key)), None)
        yield from read_captions(inner, clean_text(value.get("language")) or language)
    elif isinstance(value, list):
        for part in value:
            yield from read_captions(part, language)
    elif value is not None:
        raise ValueError(f"a caption must be a text or a list of texts, not {value!r} ({type(value).__name__})")


def distinct(captions: Iterable[SourceCaption]) -> tuple[SourceCaption, ...]:
    """The captions in order, each once."""
    return tuple(dict.fromkeys(captions))
