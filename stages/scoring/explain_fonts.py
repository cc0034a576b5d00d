"""Fonts for the texts of pictures: of those installed, some that have all letters; else something else stands there."""

import functools
import unicodedata
from collections.abc import Callable
from typing import Any

from matplotlib import font_manager, ft2font

BASE = "DejaVu Sans"  # comes with matplotlib
# Tried first, as they are made for text; what else is installed is tried by its name.
PREFERRED = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans SC", "Noto Sans JP", "Source Han Sans", "IPAexGothic"),
    *("WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Yu Gothic"),
    *("Noto Sans", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans KR"),
)
BOXES = ("last resort", "emoji", "math", "stix")  # fonts that draw a box for everything, or are for no text
LETTERS = "LMN"  # categories of Unicode that must be drawn; of others what no font has is left out
RIGHT_TO_LEFT = ("R", "AL")


class Fonts:
    """`say`: told once a script that no font has, and what stands there instead."""

    def __init__(self, say: Callable[[str], Any]):
        self._say, self._told = say, set[str]()

    def shown(self, text: str, instead: str) -> tuple[str, list[str]]:
        """The text on one line, or `instead` where it has letters that no font has, and the fonts to draw it with."""
        text = " ".join(text.split())
        families, missing = families_for(frozenset(text))
        lost = [character for character in text if character in missing and is_letter(character)]
        if not lost and not (right_to_left(text) and not shapes()):
            return "".join(character for character in text if character not in missing), list(families)
        script = unicodedata.name((lost or [_first_letter(text)])[0], "letter").split()[0].lower()
        if script not in self._told:
            self._told.add(script)
            what = f"no installed font has {script} letters ({lost[0]})" if lost else f"{script} needs matplotlib 3.11"
            self._say(f"note: {what}: ids stand in the pictures instead: install one, such as Noto Sans CJK")
        return instead.encode("ascii", "backslashreplace").decode(), [BASE]


def is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in LETTERS


def right_to_left(text: str) -> bool:
    """Whether its first letter is of a script that runs so."""
    return unicodedata.bidirectional(_first_letter(text)) in RIGHT_TO_LEFT


def shapes() -> bool:
    """Whether matplotlib joins letters and turns them, as Arabic wants."""
    return hasattr(ft2font, "__libraqm_version__")


def _first_letter(text: str) -> str:
    return next((character for character in text if is_letter(character)), " ")


@functools.lru_cache(4096)
def families_for(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families that have these characters between them, and the characters that no font has."""
    missing = frozenset(character for character in characters if not character.isspace()) - _characters(_path(BASE))
    families = [BASE]
    for name, path in _installed():
        if not any(map(is_letter, missing)):
            break
        if found := missing & _characters(path):
            families.append(name)
            missing -= found
    return tuple(families), missing


@functools.cache
def _installed() -> list[tuple[str, str]]:
    """Names and files of upright fonts, preferred ones first."""
    plain = {
        font.name: font.fname
        for font in sorted(
            font_manager.fontManager.ttflist,
            key=lambda font: (abs(int(font.weight) - 400) if str(font.weight).isdigit() else 400, font.fname),
        )[::-1]
        if font.style == "normal" and not any(word in font.name.lower() for word in BOXES)
    }
    order = {name: place for place, name in enumerate(PREFERRED)}
    return sorted(plain.items(), key=lambda pair: (order.get(pair[0], len(order)), pair[0]))


def _path(family: str) -> str:
    return font_manager.findfont(family)


@functools.lru_cache(256)
def _characters(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, ft2font.FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):  # a file that is gone, or no font that can be drawn
        return frozenset()
