"""Numbers that the two sides of a pair name, in digits and words, and how far the sides agree.

A number that the other side lacks is a weak sign (translators write "a pair", "both", or leave it out); a number that
stands against *another* one is a strong sign. "One" is left out, as it is an article in most languages.
"""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.quality.languages import base

MISSING = 0.25  # the weight of a number that the other side lacks; one against another number has 1
MAX_DIGITS = 15
VALUES = [*range(2, 20), *range(20, 100, 10), 100, 1000]  # what the cardinals in number_words.yaml mean, in order
TENS = frozenset(range(20, 100, 10))

_LATIN = "A-Za-zÀ-ɏ"
_LETTER = f"{_LATIN}Ѐ-ӿ"
_DIGITS = re.compile(
    rf"(?<![{_LETTER}\d])(?<!\d[.,])(\d{{1,3}}(?:[.,'’\u00a0\u202f ]\d{{3}})+(?!\d)|\d+)([.,]\d+)?"
    rf"(-?[{_LETTER}ºª]{{1,3}}(?!\w))?"
)
_ATTACHED = re.compile(rf"(?<=[{_LETTER}])-?(\d+)")
_WORD = re.compile(r"[^\W\d_]+")
_GAP = re.compile(r"[\s\u2010\u2011-]*")
_HAN = {character: value for value, character in enumerate("一二三四五六七八九", 1)} | {"两": 2, "兩": 2}
# What a Chinese or Japanese numeral counts: without it, 三 is part of another word.
_COUNTERS = "个個名位只隻条條人辆輛把匹张張块塊对對双雙支座棵架件头頭岁歲歳层層种種艘台根杯排本枚つ羽軒足着組回艇階"
_HAN_NUMBER = re.compile(rf"([一二两兩三四五六七八九十百]+)(?=[{_COUNTERS}])")


@dataclasses.dataclass(frozen=True)
class NumberWords:
    """The number words of one language, as number_words.yaml describes them; values by word."""

    cardinals: Mapping[str, float]
    hints: Mapping[str, float]
    prefixes: Mapping[str, float]
    joints: frozenset[str]


@functools.cache
def number_words() -> dict[str, NumberWords]:
    """The number words by language."""
    listed = yaml.safe_load(Path(__file__).with_name("number_words.yaml").read_text(encoding="utf-8"))
    return {language: _parse(entry) for language, entry in listed.items()}


def _parse(entry: Mapping[str, Any]) -> NumberWords:
    def by_word(name: str) -> dict[str, float]:
        return {word: float(value) for value, words in entry.get(name, {}).items() for word in words.split()}

    forms = zip(entry.get("cardinals", "").split(), VALUES, strict=False)
    words = {form: float(value) for listed, value in forms for form in listed.split("/")}
    joints = frozenset(entry.get("joints", "").split())
    return NumberWords(words | by_word("compounds"), by_word("hints"), by_word("prefixes"), joints)


def _number(whole: str, fraction: str | None) -> float:
    digits = re.sub(r"\D", "", whole)[:MAX_DIGITS]
    return float(f"{int(digits)}.{int(fraction[1:][:MAX_DIGITS])}" if fraction else int(digits))


def _han(text: str) -> int:
    """The value of Chinese numerals below a thousand."""
    total = unit = 0
    for character in text:
        if character in "十百":
            total += (unit or 1) * (10 if character == "十" else 100)
            unit = 0
        else:
            unit = _HAN[character]
    return total + unit


def _spelt(text: str, language: str) -> Counter[float]:
    """Number words, those of one number joined: twenty-three, two hundred, quatre-vingt-dix."""
    known = number_words()[language]
    values: list[float] = []
    last_end, joint = -1, False
    for match in _WORD.finditer(text):
        word = match.group()
        value = known.cardinals.get(word)
        adjacent = last_end >= 0 and _GAP.fullmatch(text, last_end, match.start()) is not None
        if value is None and adjacent and values[-1] in TENS and known.hints.get(word) == 1:
            value = 1.0  # twenty-one: a number only here
        if value is None:
            joint = adjacent and word in known.joints and not joint
            last_end = match.end() if joint else -1
            continue
        last = values[-1] if values and adjacent else 0
        if last and not joint and _multiplies(last, value):
            values[-1] = last * value
        elif last and _adds(last, value, language):
            values[-1] = last + value
        else:
            values.append(value)
        last_end, joint = match.end(), False
    return Counter(values)


def _multiplies(last: float, value: float) -> bool:
    return (value in (100, 1000) and last < value) or (last, value) == (4, 20)  # quatre-vingts


def _adds(last: float, value: float, language: str) -> bool:
    if language == "fr" and ((last == 10 and 7 <= value <= 9) or (last in (60, 80) and 10 <= value < 20)):
        return True  # dix-sept, soixante-dix, quatre-vingt-onze
    room = 100 if last % 100 == 0 else 10 if last % 10 == 0 and last >= 20 else 0
    return value < room


def numbers(text: str, tag: str) -> tuple[Counter[float], Counter[float]]:
    """Count the numbers that a text names, and those that it only hints at (both, dozen, 2nd).

    Hints may match a number of the other side; they are never missing.
    """
    language, text = base(tag), text.lower()
    named: Counter[float] = Counter()
    hinted: Counter[float] = Counter(float(digits[:MAX_DIGITS]) for digits in _ATTACHED.findall(text))
    for whole, fraction, suffix in _DIGITS.findall(text):
        (hinted if suffix else named)[_number(whole, fraction)] += 1
    if language in ("zh", "ja"):
        named.update(float(value) for match in _HAN_NUMBER.finditer(text) if (value := _han(match.group(1))) > 1)
    if known := number_words().get(language):
        named.update(_spelt(text, language))
        for word in _WORD.findall(text) if known.hints or known.prefixes else ():
            if word in known.hints:
                hinted[known.hints[word]] += 1
            elif word not in known.cardinals:
                hinted.update(value for prefix, value in known.prefixes.items() if word.startswith(prefix))
    return named, hinted


def agreement(source: str, text: str, source_tag: str, tag: str) -> float | None:
    """Compute how far the numbers of both sides agree, from 0 to 1; None if neither side has any.

    With m matched numbers, c numbers against a different one, and e numbers that one side merely lacks, it is
    (m + 0.75 e) / (m + c + e): a changed number counts 0, a missing one 0.75.

    >>> agreement("Two dogs.", "Drei Hunde.", "en", "de"), agreement("Two dogs.", "Hunde.", "en", "de")
    (0.0, 0.75)
    """
    (ours, our_hints), (theirs, their_hints) = numbers(source, source_tag), numbers(text, tag)
    if not {base(source_tag), base(tag)} <= number_words().keys():  # one side's words are unknown: only digits
        ours, theirs = ours & _digits(source), theirs & _digits(text)
    if not ours and not theirs:
        return None
    matched = (ours & theirs).total()
    ours, theirs = ours - theirs, theirs - ours
    hinted = (ours & their_hints).total() + (theirs & our_hints).total()
    left, right = (ours - their_hints).total(), (theirs - our_hints).total()
    against, lacking = min(left, right), abs(left - right)
    agreed = matched + hinted
    return (agreed + (1 - MISSING) * lacking) / (agreed + against + lacking)


def _digits(text: str) -> Counter[float]:
    return Counter(_number(whole, fraction) for whole, fraction, _ in _DIGITS.findall(text))
