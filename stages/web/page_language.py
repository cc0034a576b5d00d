"""The language that a query seems to be in, told to its writer: a guess from few words, on which no result depends."""

import functools
import threading
from typing import Any

import langcodes

from pipeline.quality.languages import MAX_CHARACTERS, letters, needs

# That are told apart. Together they take 370 MB, and two seconds of CPU to load.
LANGUAGES = "ar cs de el en es fr he hi it ja ko nl pl pt ru th tr uk vi zh"  # BCP 47
CLEAR = 1.5  # times as sure as of the next language
_loading = threading.Lock()


@functools.cache
def _detector() -> Any:
    try:
        import lingua
    except ImportError as error:
        raise needs("page", "the search page", error) from error
    codes = [lingua.IsoCode639_1.from_str(tag) for tag in LANGUAGES.split()]
    return lingua.LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()


def load() -> None:
    """What a first query would wait for, and with it every other: lingua lets no other thread run as it loads."""
    guessed("a word of every alphabet: ein Wort, слово")


def guessed(text: str) -> list[str]:
    """BCP 47 tags of the language, or of the two that are as likely; none where nothing can be told."""
    if len(letters(text)) < 2:
        return []
    with _loading:
        found = _detector().compute_language_confidence_values(text[:MAX_CHARACTERS])[:2]
    likely = [one for one in found if one.value > 0 and one.value * CLEAR >= found[0].value]
    return [one.language.iso_code_639_1.name.lower() for one in likely]


def told(text: str, known: frozenset[str] = frozenset()) -> str:
    """The guess in words, empty where there is none. `known`: tags that can be searched in, if that is told."""
    tags = guessed(text)
    if not tags:
        return ""
    line = f"Your words look like {' or '.join(langcodes.Language.get(tag).display_name() for tag in tags)}."
    unknown = known and known.isdisjoint(tags)
    return f"{line} This index was not made for that: results may be far off." if unknown else line
