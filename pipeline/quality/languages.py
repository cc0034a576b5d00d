"""Facts about languages: their scripts, the usual length of their texts, and which language a text is in.

Language identification is done by `lingua`, restricted to the languages that can be expected. Its confidences shrink as
more languages are admitted, so the score here compares the expected language with its likeliest rival: 0.5 is a tie,
whatever the number of languages. Few letters are weak evidence, above all between close relatives, so the score of a
short text is drawn towards 0.5. Languages that share nearly all words (Croatian, Serbian, Bosnian) count as one.
"""

import contextlib
import functools
import importlib.util
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import langcodes
import yaml

from pipeline.optional import import_optional

MIN_LETTERS = 10  # the language of a shorter text is uncertain, and it may rightly equal its source
MIN_OWN_LETTERS = 4  # of the words that the source does not have
MAX_CHARACTERS = 2_000  # characters of a text that are identified: more change nothing
FULL_LETTERS = 60  # from so many letters on, the evidence counts in full
FULL_LETTERS_NEIGHBOUR = 100  # where the rival is a close relative
LEAST_WEIGHT = 0.3  # of the evidence of the shortest texts, as an exponent of the odds

# Languages that a translator, or a model of another pair, may write although no corpus asks for them.
COMMON = frozenset({"cs", "de", "en", "es", "fi", "fr", "hu", "it", "nl", "pl", "pt", "ro", "sv", "tr"})
NOT_LATIN = frozenset({"ar", "bg", "el", "he", "hi", "ja", "ko", "ru", "th", "uk", "zh"})  # common, in other scripts

# Lingua does not count ó among the Czech letters: one of them rules Czech out for a short text.
FOREIGN_LETTERS = {"cs": str.maketrans("óÓ", "oO")}

# Languages written without spaces: their unit is the character.
UNSEGMENTED = frozenset({"ja", "km", "lo", "my", "th", "zh"})

_LANGUAGE = {"no": "nb", "iw": "he", "in": "id", "cmn": "zh"}
_LETTERS = re.compile(r"[^\W\d_]")
_LATIN = "A-Za-zÀ-ɏ"
_LETTER_RUN = re.compile(rf"[{_LATIN}]+|[^\W\d_{_LATIN}]+")


@functools.cache
def facts() -> dict[str, dict[str, Any]]:
    """The tables of languages.yaml, by name."""
    return yaml.safe_load(Path(__file__).with_name("languages.yaml").read_text("utf-8"))


@functools.cache
def base(tag: str) -> str:
    """The language subtag of a BCP 47 tag: `pt` of `pt-BR`."""
    language = tag.lower().replace("_", "-").split("-")[0]
    return _LANGUAGE.get(language, language)


def letters(text: str) -> list[str]:
    """The letters of a text, without its digits."""
    return _LETTERS.findall(text)


def own_words(text: str, source: str, tag: str) -> str:
    """The text without the words that its source has, too: loan words and names say nothing of its language.

    The whole text where too few letters would be left.

    >>> own_words("Ein Laptop neben einem Monitor.", "A laptop next to a monitor.", "de")
    'Ein   neben einem  .'
    """
    known = {word.lower() for word in _LETTER_RUN.findall(source)}
    rest = _LETTER_RUN.sub(lambda match: " " if match[0].lower() in known else match[0], text)
    least = MIN_OWN_LETTERS if "LATIN" in _script_words(tag) else 1
    return rest if len(letters(rest)) >= least else text


@functools.cache
def _script_words(tag: str) -> frozenset[str]:
    language = langcodes.Language.get(tag)
    scripts = [language.maximize().script or ""]
    if not language.script:
        scripts += facts()["also_written"].get(language.language or "", "").split()
    return frozenset(word for script in scripts for word in facts()["scripts"].get(script, "").split())


@functools.cache
def _chinese_form(tag: str) -> str | None:
    """Hans or Hant where a tag names one of them, or a region that writes one of them."""
    language = langcodes.Language.get(tag)
    form = language.maximize().script if language.script or language.territory else None
    return form if form in ("Hans", "Hant") else None


@functools.lru_cache(maxsize=1 << 16)
def _form_of(character: str) -> str | None:
    """Hans or Hant for a character that is simplified or traditional, as the old character sets of both show."""
    sets = []
    for form, encoding in (("Hans", "gb2312"), ("Hant", "big5hkscs")):
        with contextlib.suppress(UnicodeEncodeError):
            character.encode(encoding)
            sets.append(form)
    return sets[0] if len(sets) == 1 else None


@functools.lru_cache(maxsize=1 << 16)
def _script_of(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ")[0]


def script_share(text: str, tag: str) -> float | None:
    """The share of letters that are in a script of the language; None for no letters and for unknown scripts.

    Where the tag asks for simplified or traditional Chinese, it is multiplied by the share of characters in that form
    among those that are in one form only.
    """
    scripts, characters = _script_words(tag), letters(text)
    if not scripts or not characters:
        return None
    share = sum(_script_of(letter) in scripts for letter in characters) / len(characters)
    if form := _chinese_form(tag):
        forms = [written for letter in characters if (written := _form_of(letter))]
        share *= forms.count(form) / len(forms) if forms else 1.0
    return share


def usual_ratio(source: str, target: str) -> float:
    """The usual number of characters of a translation for one of its source; 1 for unknown languages."""
    lengths = facts()["usual_length"]
    return float(lengths.get(base(target), 1.0) / lengths.get(base(source), 1.0))


def identify(text: str) -> str | None:
    """The likeliest of the common languages that a text may be in; None for few letters or without lingua."""
    if len(letters(text)) < MIN_LETTERS or importlib.util.find_spec("lingua") is None:
        return None
    is_latin = (script_share(text, "en") or 0) >= 0.5
    detector = _detector(_candidates("en", ()) if is_latin else tuple(sorted(NOT_LATIN)))
    language = detector.detect_language_of(text[:MAX_CHARACTERS])
    return None if language is None else str(language.iso_code_639_1.name).lower()


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


def confidences(
    texts: Sequence[str], tags: Sequence[str], expected: Sequence[str], sources: Sequence[str] = ()
) -> list[float | None]:
    """Compute how likely each text is in the language of its tag, in [0, 1]; 0.5 is a tie with another language.

    Args:
        texts: The texts.
        tags: The tag of each text.
        expected: The languages of the corpus.
        sources: What each text is a translation of, whose words are left out, see `own_words`.

    Returns:
        None for texts of few letters, for languages that lingua does not know, and where there is no rival.
    """
    values: list[float | None] = [None] * len(texts)
    for tag in sorted(set(tags)):
        rows = [row for row, text in enumerate(texts) if tags[row] == tag and len(letters(text)) >= MIN_LETTERS]
        own = [own_words(texts[row], sources[row], tag) if sources else texts[row] for row in rows]
        cut = [text[:MAX_CHARACTERS].translate(FOREIGN_LETTERS.get(base(tag), {})) for text in own]
        for row, value in zip(rows, _confidences(cut, base(tag), expected), strict=True):
            values[row] = value
    return values


@functools.cache
def _same(language: str) -> frozenset[str]:
    """The languages that count as this one."""
    return frozenset((language, *facts()["same"].get(language, "").split()))


def _candidates(language: str, expected: Sequence[str]) -> tuple[str, ...]:
    languages = {base(tag) for tag in expected} | _same(language) | COMMON
    neighbours = facts()["neighbours"]
    return tuple(sorted(languages | {neighbours[known] for known in languages & neighbours.keys()}))


def _confidences(texts: list[str], language: str, expected: Sequence[str]) -> list[float | None]:
    targets = {name for same in _same(language) if (name := _lingua_language(same)) is not None}
    detector = _detector(_candidates(language, expected))
    if not targets or detector is None or not texts:
        return [None] * len(texts)
    neighbours = facts()["neighbours"]
    related = {near for pair in neighbours.items() for near in pair if language in pair}
    relatives = {_lingua_language(near) for near in related}
    shares: list[float | None] = []
    for text, values in zip(texts, detector.compute_language_confidence_values_in_parallel(texts), strict=True):
        ours = sum(value.value for value in values if value.language in targets)
        rival = max((value for value in values if value.language not in targets), key=lambda value: value.value)
        if ours + rival.value == 0:
            shares.append(None)
            continue
        full = FULL_LETTERS_NEIGHBOUR if rival.language in relatives else FULL_LETTERS
        weight = min(1.0, max(LEAST_WEIGHT, len(letters(text)) / full))
        odds, against = ours**weight, rival.value**weight
        shares.append(odds / (odds + against))
    return shares
