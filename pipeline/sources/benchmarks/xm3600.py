"""Crossmodal-3600: pictures from Open Images with captions that people wrote in 36 languages, only to test on.

    captions.jsonl    an object for each picture: `image/key`, and by language `{"caption": ["…", "…"], …}`
    KEY.jpg           the pictures, anywhere below the folder

Items are named by their keys, and all of them are split `test`. A caption's number is its place in its list. Captions
of two languages with one number do not translate each other: each was written for the picture. Languages have the tags
that the rest of this project uses: Cusco Quechua, `quz` in the file, is `qu`, the other 35 are as in the file.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.sources.benchmarks.importer import Importer, first_names
from pipeline.sources.benchmarks.reading import read_lines, refusal, text_in, texts_in, unique
from pipeline.sources.items import SourceCaption
from pipeline.translation.tags import check_language

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
    """One picture. `captions` by the language as the file names it, in the file's order, blank ones too."""

    key: str
    captions: dict[str, list[str]]


def read_set(importer: Importer) -> None:
    """Add the set."""
    path = importer.files.text(CAPTIONS)
    if path is None:
        raise importer.absent(CAPTIONS, "Give the folder with the set's captions and its pictures anywhere below it.")
    rows = list(_rows(path))
    unique((row.key for row in rows), str(path))
    _check_captions(path, rows, importer)
    for row in rows:
        uri = importer.files.medium(*(f"{row.key}{suffix}" for suffix in SUFFIXES))
        importer.add(row.key, "test", _captions(row), uri)


def _captions(row: _Row) -> Iterator[SourceCaption]:
    for language, texts in row.captions.items():
        for number, text in enumerate(texts) if language in LANGUAGES else ():
            if text:
                yield SourceCaption(text, check_language(language, "xm3600"), "human", number)


def _check_captions(path: Path, rows: list[_Row], importer: Importer) -> None:
    """Published counts of pictures, languages and captions; pictures that lack some of the languages."""
    languages = {language for row in rows for language in row.captions}
    texts = [text for row in rows for listed in row.captions.values() for text in listed]
    importer.count(f"pictures in {path.name}", len(rows), IMAGES)
    importer.count(f"languages in {path.name}", len(languages.intersection(LANGUAGES)), len(LANGUAGES))
    importer.count(f"captions in {path.name}", len(texts), TOTAL)
    if strange := sorted(languages.difference(LANGUAGES)):
        importer.problem(
            f"{path} has captions in {first_names(map(repr, strange))}, which are not among the set's "
            f"{len(LANGUAGES)} languages. Fetch the file as it was published."
        )
    importer.note("blank captions left out", sum(not text for text in texts))
    silent = sum(not any(row.captions.get(language, ())) for row in rows for language in languages)
    importer.note("times a picture has no caption in a language", silent)


def _rows(path: Path) -> Iterator[_Row]:
    """Raises UsageError for a line that is broken or has another layout, naming it."""
    for number, line in enumerate(read_lines(path), start=1):
        try:
            row = json.loads(line)
            key = text_in(row[KEY])
            if not key:
                raise ValueError(f"{KEY} is blank")
            # The other columns are `split`, and those with a slash, which describe the picture.
            languages = [column for column in row if column != "split" and "/" not in column]
            yield _Row(key, {language: texts_in(row[language]["caption"]) for language in languages})
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise refusal(
                f"{path} line {number:,}",
                f"no row of the set ({type(error).__name__}: {error})",
                f"an object with {KEY} and, by language, a list named caption",
            ) from error
