"""Human translations of Multi30K and faults to plant in them: what a translator, or a join gone wrong, may do.

The number words here are the benchmark's own, apart from those it tests.
"""

import gzip
import random
import re
from collections.abc import Callable
from pathlib import Path

from bench.common import DATA

LANGUAGES = ("de", "fr", "cs")
SPLITS = ("test_2016_flickr", "test_2018_flickr")
FAULTS = ("shuffled", "wrong language", "copied", "empty", "cut off", "looped", "numeral")

# Forms of one row stand in one place of a sentence: a number is exchanged for another of its row.
NUMERALS = {
    "en": ["two three four five six seven eight nine ten twelve"],
    "de": ["zwei drei vier fünf sechs sieben acht neun zehn zwölf"],
    "fr": ["deux trois quatre cinq six sept huit neuf dix douze"],
    "cs": [
        "dva tři čtyři pět šest sedm osm devět deset",
        "dvě tři čtyři pět šest sedm osm devět deset",
        "dvou tří čtyř pěti šesti sedmi osmi devíti deseti",
        "dvěma třemi čtyřmi pěti šesti sedmi osmi devíti deseti",
    ],
}
_ROWS = {language: [row.split() for row in rows] for language, rows in NUMERALS.items()}
_WORD = re.compile(r"\d+|[^\W\d_]+")


def data_folder() -> Path:
    """The raw texts of Multi30K task 1."""
    folder = DATA / "multi30k" / "task1" / "raw"
    if not folder.is_dir():
        raise SystemExit(f"there is no {folder}: put the texts of Multi30K's task 1 there")
    return folder


def read(split: str, language: str) -> list[str]:
    """The captions of one split, in order."""
    with gzip.open(data_folder() / f"{split}.{language}.gz", "rt", encoding="utf-8", newline="\n") as stream:
        return [line.rstrip("\n") for line in stream]


def has_numeral(source: str, text: str, language: str) -> bool:
    """Both sides name a number."""
    return any(_place(_ROWS["en"], word) for word in _WORD.findall(source)) and any(
        _place(_ROWS[language], word) for word in _WORD.findall(text)
    )


def _place(rows: list[list[str]], word: str) -> list[str] | None:
    """The words that may stand for a numeral, None for what is none."""
    if word.isdigit():
        return [str(value) for value in range(2, 100)]
    return next((row for row in rows if word.lower() in row), None)


def other_numeral(text: str, language: str, generator: random.Random) -> str:
    """The text with one of its numbers, drawn by chance, changed to another of the same form."""
    found = [match for match in _WORD.finditer(text) if _place(_ROWS[language], match.group())]
    match = generator.choice(found)
    word = match.group()
    row = _place(_ROWS[language], word) or []
    others = [other for other in row if other != word.lower()]
    other = generator.choice(others)
    return text[: match.start()] + (other.capitalize() if word[0].isupper() else other) + text[match.end() :]


def cut_off(text: str, generator: random.Random) -> str:
    """The first half of the words, with nothing after them."""
    words = text.split()
    return " ".join(words[: max(1, len(words) // 2)])


def looped(text: str, generator: random.Random) -> str:
    """A phrase of one to four words said four to eight times; in half of the texts nothing follows it."""
    words = text.split()
    length = min(generator.randint(1, 4), len(words))
    start = generator.randint(0, len(words) - length)
    end = start + length
    rest = words[end:] if generator.random() < 0.5 else []
    return " ".join(words[:start] + words[start:end] * generator.randint(4, 8) + rest)


def plant(texts: dict[str, list[str]], language: str, generator: random.Random) -> dict[str, list[tuple[int, str]]]:
    """Faults in the translations of `language`, each in a tenth of the pairs: {fault: [(row, faulty text)]}.

    `texts` holds the captions by language, row by row. No row has two faults.
    """
    sources, targets = texts["en"], texts[language]
    rows = list(range(len(targets)))
    generator.shuffle(rows)
    tenth = len(rows) // 10
    numbered = [row for row in rows if has_numeral(sources[row], targets[row], language)][:tenth]
    rest = [row for row in rows if row not in set(numbered)]
    taken = {fault: [rest.pop() for _ in range(tenth)] for fault in FAULTS[:-1]} | {"numeral": numbered}
    others = [other for other in texts if other != language]
    shuffled = dict(zip(taken["shuffled"], taken["shuffled"][1:] + taken["shuffled"][:1], strict=True))
    wrong = dict(zip(taken["wrong language"], others * tenth, strict=False))
    makers: dict[str, Callable[[int], str]] = {
        "shuffled": lambda row: targets[shuffled[row]],
        "wrong language": lambda row: _foreign(texts, wrong[row], row),
        "copied": lambda row: sources[row],
        "empty": lambda row: "",
        "cut off": lambda row: cut_off(targets[row], generator),
        "looped": lambda row: looped(targets[row], generator),
        "numeral": lambda row: other_numeral(targets[row], language, generator),
    }
    return {fault: [(row, makers[fault](row)) for row in taken[fault]] for fault in FAULTS}


def _foreign(texts: dict[str, list[str]], language: str, row: int) -> str:
    """The same caption in another language; for English, the caption of another picture, so that it is no copy."""
    return texts[language][(row + 1) % len(texts[language]) if language == "en" else row]
