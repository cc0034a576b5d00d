"""Crossmodal-3600: pictures from Open Images with captions that people wrote in 36 languages, to test on alone.

    captions.jsonl    an object a picture: `image/key`, and by language `{"caption": ["…", "…"], …}`
    KEY.jpg           the pictures, anywhere below the folder

Items are named by their keys, and all of them are split `test`. A caption's number is its place in its list:
captions of two languages with one number are no translations of each other, as each was written for the picture. They
are taken as written, not as cut into words. Languages have the tags by which the rest of this project calls them: Cusco
Quechua, `quz` in the file, is `qu`, the other 35 are as in the file.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.checks import BenchmarkSource, Checks, Options, read_lines, unique
from pipeline.sources.benchmarks.files import Files
from pipeline.sources.benchmarks.locating import shown
from pipeline.sources.items import SourceCaption, SourceItem, clean_text
from pipeline.translation.tags import check_language

KIND = "xm3600"
CAPTIONS = "captions.jsonl"
KEY = "image/key"
IMAGES = 3_600
TOTAL = 261_375  # captions
LANGUAGES = (
    "ar", "bn", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fil", "fr",
    "he", "hi", "hr", "hu", "id", "it", "ja", "ko", "mi", "nl", "no", "pl",
    "pt", "quz", "ro", "ru", "sv", "sw", "te", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class _Row:
    """What a line says of a picture. `captions` by the file's name of their language, in its order, blank ones too."""

    key: str
    captions: dict[str, list[str]]


def open_xm3600(root: Path, options: Options) -> BenchmarkSource:
    """The set under `root`, see above."""
    files, checks = Files(root), Checks(KIND, options)
    path = files.text(CAPTIONS)
    if path is None:
        raise UsageError(
            f"--source {KIND}: got {root}, which has no {CAPTIONS}, wanted the set's captions, unpacked, and its "
            "pictures, anywhere below it"
        )
    rows = list(_rows(path))
    unique((row.key for row in rows), str(path))
    _check_captions(path, rows, checks)
    items = [_item(row, files, options) for row in rows]
    checks.missing_media([item.item_id for item in items if not item.uri], len(items), str(root))
    checks.unused_media(files.unused_media())
    return BenchmarkSource(KIND, root, items, checks.finish())


def _item(row: _Row, files: Files, options: Options) -> SourceItem:
    path = files.medium(*(f"{row.key}{suffix}" for suffix in SUFFIXES))
    captions = tuple(
        SourceCaption(text, check_language(language, KIND), "human", number)
        for language, texts in row.captions.items()
        if language in LANGUAGES
        for number, text in enumerate(texts)
        if text
    )
    return SourceItem(row.key, path, "test", KIND, options.defaults.license, captions, "" if path else "image")


def _check_captions(path: Path, rows: list[_Row], checks: Checks) -> None:
    """Counts of pictures, languages and captions, as published; pictures that lack some of the languages."""
    found = {language for row in rows for language in row.captions}
    checks.count(f"pictures in {path.name}", len(rows), IMAGES)
    checks.count(f"languages in {path.name}", len(found.intersection(LANGUAGES)), len(LANGUAGES))
    texts = [text for row in rows for listed in row.captions.values() for text in listed]
    checks.count(f"captions in {path.name}", len(texts), TOTAL)
    if strange := sorted(found.difference(LANGUAGES)):
        checks.wrong(
            f"{path}: got captions in {shown(map(repr, strange))}, wanted the set's {len(LANGUAGES)} languages alone: "
            "fetch the file as it was published"
        )
    if blank := sum(not text for text in texts):
        checks.note(f"{blank:,} blank captions left out")
    if silent := sum(not any(row.captions.get(language, ())) for row in rows for language in found):
        checks.note(f"{silent:,} times a picture has no caption in a language")


def _rows(path: Path) -> Iterator[_Row]:
    """Raises UsageError for a line that is broken or of another shape, naming it."""
    for at, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            raise _refused(path, at, "a blank line")
        try:
            row = json.loads(line)
        except (RecursionError, ValueError) as error:
            raise _refused(path, at, f"broken JSON ({error})") from error
        if not isinstance(row, dict) or not isinstance(row.get(KEY), str) or not clean_text(row[KEY]):
            raise _refused(path, at, f"no {KEY}")
        yield _Row(
            clean_text(row[KEY]), {name: _texts(path, at, name, cell) for name, cell in row.items() if _named(name)}
        )


def _named(column: str) -> bool:
    """Whether a column is a language's: the others are `split`, and those with a slash, which speak of the picture."""
    return column != "split" and "/" not in column


def _texts(path: Path, at: int, language: str, cell: Any) -> list[str]:
    texts = cell.get("caption") if isinstance(cell, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _refused(path, at, f"{language!r} without a list of texts named caption")
    return [clean_text(text) for text in texts]


def _refused(path: Path, at: int, got: str) -> UsageError:
    return UsageError(
        f"--input: {path} line {at:,}: got {got}, wanted an object with {KEY} and, by language, a list named caption: "
        "fetch the file as it was published"
    )
