"""The language that a query seems to be in: a guess from few words, for its writer. No result depends on it."""

import functools
import threading
from typing import TYPE_CHECKING

import langcodes

from pipeline.optional import import_optional
from pipeline.quality.languages import MAX_CHARACTERS, letters

if TYPE_CHECKING:
    import lingua

# Those that are told apart. Together they take 370 MB, and two seconds of CPU to load.
LANGUAGES = "ar cs de el en es fr he hi it ja ko nl pl pt ru th tr uk vi zh"  # BCP 47
CLEAR = 1.5  # times as sure as of the next language
_loading = threading.Lock()


@functools.cache
def _detector() -> "lingua.LanguageDetector":
    lingua = import_optional("lingua", "serve", "the search page")
    codes = [lingua.IsoCode639_1.from_str(tag) for tag in LANGUAGES.split()]
    return lingua.LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()


def load_detector() -> None:
    """Load what a first query, and with it every other, would wait for."""
    guess_languages("a word of every alphabet: ein Wort, слово")


def guess_languages(text: str) -> list[str]:
    """BCP 47 tags of the language, or of the two that are as likely; empty where there is nothing to go by."""
    if len(letters(text)) < 2:
        return []
    with _loading:
        values = _detector().compute_language_confidence_values(text[:MAX_CHARACTERS])[:2]
    likely = [value for value in values if value.value > 0 and value.value * CLEAR >= values[0].value]
    return [value.language.iso_code_639_1.name.lower() for value in likely]


def language_note(text: str, known: frozenset[str] = frozenset()) -> str:
    """The guess in words, empty where there is none. `known`: BCP 47 tags that the index can be searched in."""
    tags = guess_languages(text)
    if not tags:
        return ""
    note = f"Your words look like {' or '.join(langcodes.Language.get(tag).display_name() for tag in tags)}."
    unknown = known and known.isdisjoint(tags)
    return f"{note} This index does not know that language: results may be far off." if unknown else note
