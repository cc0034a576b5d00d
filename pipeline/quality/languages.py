"""Facts about languages: their scripts, the usual length of their texts, and which language a text is in.

Language identification is done by `lingua`, restricted to the languages that can be expected. Its confidences shrink as
more languages are admitted, so the score here compares the expected language with its likeliest rival: 0.5 is a tie,
whatever the number of languages.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import langcodes
import yaml

from pipeline.optional import import_optional

MIN_LETTERS = 10  # the language of a shorter text is uncertain, and it may rightly equal its source
MAX_CHARACTERS = 2_000  # characters of a text that are identified: more change nothing

# Languages that a translator, or a model of another pair, may write although no corpus asks for them.
COMMON = frozenset({"cs", "de", "en", "es", "fi", "fr", "hu", "it", "nl", "pl", "pt", "ro", "sv", "tr"})

# Lingua does not count ó among the Czech letters: one of them rules Czech out for a short text.
FOREIGN_LETTERS = {"cs": str.maketrans("óÓ", "oO")}

# Languages written without spaces: their unit is the character.
UNSEGMENTED = frozenset({"ja", "km", "lo", "my", "th", "zh"})

_LANGUAGE = {"no": "nb", "iw": "he", "in": "id", "cmn": "zh"}
_LETTERS = re.compile(r"[^\W\d_]")


@functools.cache
def facts() -> dict[str, dict[str, Any]]:
    """The tables of languages.yaml, by name."""
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("languages.yaml").read_text("utf-8"))
    return loaded


@functools.cache
def base(tag: str) -> str:
    """The language subtag of a BCP 47 tag: `pt` of `pt-BR`."""
    language = tag.lower().replace("_", "-").split("-")[0]
    return _LANGUAGE.get(language, language)


def letters(text: str) -> list[str]:
    """The letters of a text, without its digits."""
    return _LETTERS.findall(text)


@functools.cache
def _script_words(tag: str) -> frozenset[str]:
    return frozenset(facts()["scripts"].get(langcodes.Language.get(tag).maximize().script or "", "").split())


@functools.lru_cache(maxsize=1 << 16)
def _script_of(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ")[0]


def script_share(text: str, tag: str) -> float | None:
    """The share of letters that are in a script of the language; None for no letters and for unknown scripts."""
    scripts, characters = _script_words(tag), letters(text)
    if not scripts or not characters:
        return None
    return sum(_script_of(letter) in scripts for letter in characters) / len(characters)


def usual_ratio(source: str, target: str) -> float:
    """The usual number of characters of a translation for one of its source; 1 for unknown languages."""
    lengths = facts()["usual_length"]
    return float(lengths.get(base(target), 1.0) / lengths.get(base(source), 1.0))


@functools.cache
def _lingua_language(language: str) -> Any:
    """Lingua's name of a language; None where it does not know it."""
    lingua = import_optional("lingua", "quality", "language identification")
    try:
        if len(language) == 2:
            return lingua.Language.from_iso_code_639_1(lingua.IsoCode639_1.from_str(language))
        return lingua.Language.from_iso_code_639_3(lingua.IsoCode639_3.from_str(language))
    except ValueError:
        return None


@functools.cache
def _detector(languages: tuple[str, ...]) -> Any:
    lingua = import_optional("lingua", "quality", "language identification")
    known = [name for language in languages if (name := _lingua_language(language)) is not None]
    return lingua.LanguageDetectorBuilder.from_languages(*known).build() if len(known) > 1 else None


def confidences(texts: Sequence[str], tags: Sequence[str], expected: Sequence[str]) -> list[float | None]:
    """Compute how likely each text is in the language of its tag, in [0, 1]; 0.5 is a tie with another language.

    Args:
        texts: The texts.
        tags: The tag of each text.
        expected: The languages of the corpus.

    Returns:
        None for texts of few letters, for languages that lingua does not know, and where there is no rival.
    """
    values: list[float | None] = [None] * len(texts)
    for tag in sorted(set(tags)):
        rows = [row for row, text in enumerate(texts) if tags[row] == tag and len(letters(text)) >= MIN_LETTERS]
        cut = [texts[row][:MAX_CHARACTERS].translate(FOREIGN_LETTERS.get(base(tag), {})) for row in rows]
        for row, value in zip(rows, _confidences(cut, base(tag), expected), strict=True):
            values[row] = value
    return values


def _confidences(texts: list[str], language: str, expected: Sequence[str]) -> list[float | None]:
    languages = {base(tag) for tag in expected} | {language} | COMMON
    neighbours = facts()["neighbours"]
    languages |= {neighbours[known] for known in languages & neighbours.keys()}
    target, detector = _lingua_language(language), _detector(tuple(sorted(languages)))
    if target is None or detector is None or not texts:
        return [None] * len(texts)
    shares: list[float | None] = []
    for values in detector.compute_language_confidence_values_in_parallel(texts):
        ours = max((value.value for value in values if value.language == target), default=0.0)
        rival = max((value.value for value in values if value.language != target), default=0.0)
        shares.append(ours / (ours + rival) if ours + rival > 0 else None)
    return shares
