"""Numbers that the two sides of a pair name, in digits and words, and how far the sides agree.

10,000 is 1万 and 10 mil; 10:30 PM is 22:30. A number that the other side lacks is a weak sign (translators write "a
pair", "both", or leave it out); a number that stands against *another* one is a strong sign. "One" is left out, as it
is an article in most languages.
"""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.quality.languages import base

MISSING = 0.25  # the weight of a number that the other side lacks; one against another number has 1
MAX_DIGITS = 15
VALUES = [*range(2, 20), *range(20, 100, 10), 100, 1000]  # what the cardinals in number_words.yaml mean, in order
TENS = frozenset(range(20, 100, 10))

_LATIN = "A-Za-zÀ-ɏ"
_LETTER = f"{_LATIN}Ѐ-ӿ"
_DIGITS = re.compile(
    rf"(?<![{_LETTER}\d])(?<!\d[.,])"
    r"(\d{1,3}(?:[.,'’\u00a0\u202f ]\d{3})+(?!\d)|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)|\d+)([.,]\d+)?"
    rf"(-?[{_LETTER}ºª]{{1,3}}(?!\w))?"
)
_ATTACHED = re.compile(rf"(?<=[{_LETTER}])-?(\d+)")
_WORD = re.compile(r"[^\W\d_]+")
_GAP = re.compile(r"[\s\u2010\u2011-]*")
# 10:30, 10:30 pm, 3 p.m.
_CLOCK = re.compile(
    r"(?<![\d.,:])(\d{1,2})(?:\s?[:.h]\s?(\d\d))?\s?([ap])\.?\s?m\b\.?|(?<![\d.,:])(\d{1,2}):(\d\d)(?![\d:])"
)
_HALF_TO = re.compile(r"\bhal[bf]\s+([^\W\d_]+)")  # halb elf: half past ten
_HALF_PAST = re.compile("[点點時时시] ?[半반]")
_SEPARATORS = str.maketrans("：٫٬", ":.,")
_POWERS = {"十": 10, "百": 100, "千": 1000}
_MYRIADS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_HAN = {character: value for value, character in enumerate("〇一二三四五六七八九")} | {"零": 0, "两": 2, "兩": 2}
_NUMERALS = "".join([*_HAN, *_POWERS])
# What a Chinese or Japanese numeral counts: without it, 三 is part of another word.
_COUNTERS = "个個名位只隻條条人辆輛把匹張张塊块對对雙双支座棵架件头頭岁歲歳層层種种艘台根杯排本枚つ羽軒足着組回艇階"
_HAN_NUMBER = re.compile(
    rf"(?<![几幾数數上])(?:([{_NUMERALS}]+[{''.join(_MYRIADS)}][{_NUMERALS}{''.join(_MYRIADS)}]*)"
    rf"|([{_NUMERALS}]+)(?=[多余餘]?[{_COUNTERS}]))"
)


class Clock(NamedTuple):
    """A time of day: the hour of 24, how the 12-hour clock writes it, and the minute."""

    hour: int
    other: int
    minute: int


class Numbers(NamedTuple):
    """The numbers of a text, how often each.

    Attributes:
        named: Those that the text names.
        hinted: Those that it only hints at (both, dozen, 2nd): they may match a number of the other side and are never
            missing.
        digits: Those of `named` that are written in digits.
        clocks: The times of day whose hours are written in another way by the other clock.
        mornings: The hours, in `named`, that are said to be before noon.
    """

    named: Counter[float]
    hinted: Counter[float]
    digits: Counter[float]
    clocks: list[Clock]
    mornings: set[int]


@dataclasses.dataclass(frozen=True)
class NumberWords:
    """The number words of one language, as number_words.yaml describes them; values by word."""

    cardinals: Mapping[str, float]
    hints: Mapping[str, float]
    prefixes: Mapping[str, float]
    joints: frozenset[str]


@functools.cache
def _listed() -> dict[str, dict[Any, Any]]:
    return yaml.safe_load(Path(__file__).with_name("number_words.yaml").read_text("utf-8"))


@functools.cache
def number_words() -> dict[str, NumberWords]:
    """The number words by language."""
    return {language: _parse(entry) for language, entry in _listed().items() if language not in ("scales", "signs")}


@functools.cache
def _scales(language: str) -> tuple[re.Pattern[str], tuple[int, ...]]:
    """What multiplies a number before it, a group of the pattern for each value; and the values."""
    words, signs = _listed()["scales"].get(language, {}), _listed()["signs"]
    groups = [f"({listed.replace(' ', '|')})(?![^\\W\\d_])" for listed in words.values()]
    groups += [f"({listed.replace(' ', '|')})" for listed in signs.values()]
    return re.compile(rf"[\s-]?(?:{'|'.join(groups)})"), (*words, *signs)


def _parse(entry: Mapping[str, Any]) -> NumberWords:
    def by_word(name: str) -> dict[str, float]:
        return {word: float(value) for value, words in entry.get(name, {}).items() for word in words.split()}

    forms = zip(entry.get("cardinals", "").split(), VALUES, strict=False)
    words = {form: float(value) for listed, value in forms for form in listed.split("/")}
    joints = frozenset(entry.get("joints", "").split())
    return NumberWords(words | by_word("compounds"), by_word("hints"), by_word("prefixes"), joints)


def _number(whole: str, fraction: str | None) -> float:
    digits = re.sub(r"\D", "", whole)[:MAX_DIGITS]
    return float(f"{digits}.{fraction[1:][:MAX_DIGITS]}" if fraction else digits)


def _multiplied(value: float, scale: int) -> float:
    """What a scale makes of the number before it: of 25 003 and a hundred, 25 300."""
    tail = value % scale
    return value - tail + tail * scale if tail else value * scale


def _han(text: str) -> float:
    """The value of Chinese numerals."""
    value, unit = 0.0, 0
    for character in text:
        if character in _HAN:
            unit = _HAN[character]
        elif character in _POWERS:
            value, unit = value + (unit or 1) * _POWERS[character], 0
        else:
            value, unit = _multiplied(value + unit, _MYRIADS[character]), 0
    return value + unit


def _clocks(text: str) -> tuple[str, list[Clock], set[int]]:
    """The text without its times of day; those times; and the hours that are said to be before noon."""
    clocks, mornings = [], set()

    def take(match: re.Match[str]) -> str:
        hour, minute, half, hour24, minute24 = match.groups()
        written, minutes = int(hour or hour24), int(minute or minute24 or 0)
        if written > 24 or minutes > 59 or (half and not 1 <= written <= 12):
            return match.group()
        value = written % 12 + 12 * (half == "p") if half else written % 24
        clocks.append(Clock(value, value % 12 or 12 if half or not 0 < value < 12 else value, minutes))
        if half == "a":
            mornings.add(value)
        return ";"

    return _CLOCK.sub(take, text), clocks, mornings


def _digit_numbers(text: str, language: str) -> tuple[str, list[float], list[float]]:
    """The text without its numbers in digits and what multiplies them; those numbers; and those only hinted at."""
    pattern, scales = _scales(language)
    values: list[float] = []
    hinted = [float(digits[:MAX_DIGITS]) for digits in _ATTACHED.findall(text)]
    rest, last_end, last_scale = [], 0, 0
    for match in _DIGITS.finditer(text):
        whole, fraction, suffix = match.groups()
        value, end, scale = _number(whole, fraction), match.end(2 if fraction else 1), 0
        while multiplier := pattern.match(text, end):
            scale = scales[(multiplier.lastindex or 1) - 1]
            value, end = _multiplied(value, scale), multiplier.end()
        if values and value < last_scale and not text[last_end : match.start()].strip():
            values[-1] += value  # 3억 5000만
        else:
            (hinted if suffix and not scale else values).append(value)
        rest.append(text[last_end : match.start()])
        last_end, last_scale = end, scale
    return ";".join([*rest, text[last_end:]]), values, hinted


def _spelt(text: str, language: str) -> tuple[list[float], list[float]]:
    """Number words, those of one number joined: twenty-three, two hundred, quatre-vingt-dix; and hints."""
    known = number_words()[language]
    pattern, scales = _scales(language)
    values: list[float] = []
    hinted: list[float] = []
    last_end, joint = -1, False
    for match in _WORD.finditer(text):
        word = match.group()
        value = known.cardinals.get(word)
        adjacent = last_end >= 0 and _GAP.fullmatch(text, last_end, match.start()) is not None
        if value is None and adjacent and values[-1] in TENS and known.hints.get(word) == 1:
            value = 1.0  # twenty-one: a number only here
        if value is None and (scale := pattern.fullmatch(word)):
            value = float(scales[(scale.lastindex or 1) - 1])
            if not adjacent:
                hinted.append(value)  # a million, millions
                continue
        if value is None:
            if word in known.hints:
                hinted.append(known.hints[word])
            hinted += [value for prefix, value in known.prefixes.items() if word.startswith(prefix)]
            joint = adjacent and word in known.joints and not joint
            last_end = match.end() if joint else -1
            continue
        last = values[-1] if values and adjacent else 0
        if last and not joint and _multiplies(last, value):
            values[-1] = _multiplied(last, int(value))
        elif last and _adds(last, value, language):
            values[-1] = last + value
        else:
            values.append(value)
        last_end, joint = match.end(), False
    return values, hinted


def _multiplies(last: float, value: float) -> bool:
    return (value >= 100 and 0 < last % value < value) or (last, value) == (4, 20)  # quatre-vingts


def _adds(last: float, value: float, language: str) -> bool:
    if language == "fr" and ((last == 10 and 7 <= value <= 9) or (last in (60, 80) and 10 <= value < 20)):
        return True  # dix-sept, soixante-dix, quatre-vingt-onze
    room = next((room for room in (1000, 100) if last % room == 0), 10 if last % 10 == 0 and last >= 20 else 0)
    return value < room


def numbers(text: str, tag: str) -> Numbers:
    """Count the numbers that a text names in digits and words, and find its times of day."""
    language = base(tag)
    text, clocks, mornings = _clocks(text.lower().translate(_SEPARATORS))
    if language in ("de", "nl"):
        cardinals = number_words()[language].cardinals
        text = _HALF_TO.sub(
            lambda match: f"{cardinals.get(match[1], 1) - 1:.0f} 30" if match[1] in cardinals else match[0], text
        )
    half_hours = [30.0] * len(_HALF_PAST.findall(text))
    rest, values, hinted = _digit_numbers(text, language)
    values += [float(clock.hour) for clock in clocks] + [float(clock.minute) for clock in clocks if clock.minute]
    spelt: list[float] = []
    if language in ("zh", "ja"):
        spelt = [value for match in _HAN_NUMBER.finditer(rest) if (value := _han(match[1] or match[2])) > 1]
    if language in number_words():
        words, hints = _spelt(rest, language)
        spelt, hinted = spelt + words, hinted + hints
    return Numbers(Counter(values + spelt), Counter(hinted + half_hours), Counter(values), clocks, mornings)


def _align(clocks: list[Clock], theirs: Numbers) -> None:
    """Write the hours of `theirs` in the way of the other side's clocks, which they name: 10 pm and 22.30 as 22."""
    for hour, other, minute in clocks:
        for counts in (theirs.named, theirs.hinted, theirs.digits):
            for written in (hour, other):
                if counts[decimal := round(written + minute / 100, 2)] and minute:
                    counts.update({decimal: -1, written: 1, minute: 1})
            if not theirs.named[hour] and counts[other] and other not in theirs.mornings and other != hour:
                counts.update({other: -1, hour: 1})


def agreement(source: str, text: str, source_tag: str, tag: str) -> float | None:
    """Compute how far the numbers of both sides agree, from 0 to 1; None if neither side has any.

    With m matched numbers, c numbers against a different one, and e numbers that one side merely lacks, it is
    (m + 0.75 e) / (m + c + e): a changed number counts 0, a missing one 0.75.

    >>> agreement("Two dogs.", "Drei Hunde.", "en", "de"), agreement("Two dogs.", "Hunde.", "en", "de")
    (0.0, 0.75)
    """
    our_side, their_side = numbers(source, source_tag), numbers(text, tag)
    _align(our_side.clocks, their_side)
    _align(their_side.clocks, our_side)
    ours, theirs = our_side.named, their_side.named
    if not {base(source_tag), base(tag)} <= number_words().keys():  # one side's words are unknown: only digits
        ours, theirs = ours & our_side.digits, theirs & their_side.digits
    if not ours and not theirs:
        return None
    matched = (ours & theirs).total()
    ours, theirs = ours - theirs, theirs - ours
    hinted = (ours & their_side.hinted).total() + (theirs & our_side.hinted).total()
    left, right = (ours - their_side.hinted).total(), (theirs - our_side.hinted).total()
    against, lacking = min(left, right), abs(left - right)
    agreed = matched + hinted
    return (agreed + (1 - MISSING) * lacking) / (agreed + against + lacking)
