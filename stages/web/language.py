"""The language that a query seems to be in: a guess from few words, for its writer. No result depends on it."""

import functools
from typing import Any

import langcodes

from pipeline.optional import import_optional
from pipeline.quality.languages import MAX_CHARACTERS, letters

# The languages it distinguishes. Their models take 370 MB, and two seconds of CPU to load.
LANGUAGES = "ar cs de el en es fr he hi it ja ko nl pl pt ru th tr uk vi zh"  # BCP 47
CLEAR = 1.5  # times as sure as of the next language


@functools.cache
def load_detector() -> Any:
    """Lingua's detector with all its languages, which a first query would otherwise wait for."""
    lingua = import_optional("lingua", "serve", "the search page")
    codes = [lingua.IsoCode639_1.from_str(tag) for tag in LANGUAGES.split()]
    return lingua.LanguageDetectorBuilder.from_iso_codes_639_1(*codes).with_preloaded_language_models().build()


def language_note(text: str, known: frozenset[str] = frozenset()) -> str:
    """The language of a text in words, or the two that are as likely; empty where there is nothing to go by.

    Args:
        text: The query.
        known: BCP 47 tags that the index can be searched in; empty if that is not known.
    """
    if len(letters(text)) < 2:
        return ""
    values = load_detector().compute_language_confidence_values(text[:MAX_CHARACTERS])[:2]
    likely = [value.language for value in values if value.value > 0 and value.value * CLEAR >= values[0].value]
    if not likely:
        return ""
    tags = [language.iso_code_639_1.name.lower() for language in likely]
    note = f"Your words look like {' or '.join(langcodes.Language.get(tag).display_name() for tag in tags)}."
    unknown = known and known.isdisjoint(tags)
    return f"{note} This index does not know that language: results may be far off." if unknown else note
