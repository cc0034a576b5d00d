"""Numbers that a pair's two sides name: digits and number words, and how far the sides agree.

A number that the other side lacks is a weak sign (translators write "a pair", "both", or leave it out); a number that
stands against *another* one is a strong sign. "One" is left out, being an article in most languages.
"""

import re
from collections import Counter

from pipeline.quality.languages import base
from pipeline.quality.number_words import CONNECTORS, COUNTERS, LOOSE, PREFIXES, WORDS

MISSING = 0.25  # what a number that the other side lacks counts; one against another number counts 1
MAX_DIGITS = 15
_TENS = frozenset(range(20, 100, 10))

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
_HAN_NUMBER = re.compile(rf"([一二两兩三四五六七八九十百]+)(?=[{COUNTERS}])")


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
    words, joints = WORDS[language], CONNECTORS.get(language, frozenset())
    found: list[float] = []
    last_end, joint = -1, False
    for match in _WORD.finditer(text):
        word = match.group()
        value = words.get(word)
        beside = last_end >= 0 and _GAP.fullmatch(text, last_end, match.start()) is not None
        if value is None and beside and found[-1] in _TENS and LOOSE.get(language, {}).get(word) == 1:
            value = 1.0  # twenty-one: a number only here
        if value is None:
            joint = beside and word in joints and not joint
            last_end = match.end() if joint else -1
            continue
        last = found[-1] if found and beside else 0
        if last and not joint and _multiplies(last, value):
            found[-1] = last * value
        elif last and _adds(last, value, language):
            found[-1] = last + value
        else:
            found.append(value)
        last_end, joint = match.end(), False
    return Counter(found)


def _multiplies(last: float, value: float) -> bool:
    return (value in (100, 1000) and last < value) or (last, value) == (4, 20)  # quatre-vingts


def _adds(last: float, value: float, language: str) -> bool:
    if language == "fr" and ((last == 10 and 7 <= value <= 9) or (last in (60, 80) and 10 <= value < 20)):
        return True  # dix-sept, soixante-dix, quatre-vingt-onze
    room = 100 if last % 100 == 0 else 10 if last % 10 == 0 and last >= 20 else 0
    return value < room


def numbers(text: str, tag: str) -> tuple[Counter[float], Counter[float]]:
    """Numbers that a text names, and those it only hints at (both, dozen, 2nd), which may match but never miss."""
    language, text = base(tag), text.lower()
    named: Counter[float] = Counter()
    hinted: Counter[float] = Counter(float(digits[:MAX_DIGITS]) for digits in _ATTACHED.findall(text))
    for whole, fraction, suffix in _DIGITS.findall(text):
        (hinted if suffix else named)[_number(whole, fraction)] += 1
    if language in ("zh", "ja"):
        named.update(float(value) for match in _HAN_NUMBER.finditer(text) if (value := _han(match.group(1))) > 1)
    if language in WORDS:
        named.update(_spelt(text, language))
    loose, prefixes = LOOSE.get(language, {}), PREFIXES.get(language, {})
    for word in _WORD.findall(text) if loose or prefixes else ():
        if word in loose:
            hinted[loose[word]] += 1
        elif word not in WORDS.get(language, {}):
            hinted.update(value for prefix, value in prefixes.items() if word.startswith(prefix))
    return named, hinted


def agreement(source: str, text: str, source_tag: str, tag: str) -> float | None:
    """Share of the numbers on either side that the other side has too, in [0, 1]; None where neither names any.

    With m numbers matched, c standing against another number and e lacking on one side: (m + 0.75 e) / (m + c + e).

    >>> agreement("Two dogs.", "Drei Hunde.", "en", "de"), agreement("Two dogs.", "Hunde.", "en", "de")
    (0.0, 0.75)
    """
    (ours, our_hints), (theirs, their_hints) = numbers(source, source_tag), numbers(text, tag)
    if base(source_tag) not in WORDS or base(tag) not in WORDS:  # one side's words cannot be read: digits alone
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
