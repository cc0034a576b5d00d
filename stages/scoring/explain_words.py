"""What the tokens of a description stand for: sub-words joined to words, sentences and phrases as they are.

V views · T tokens of a view
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from model.processing import LeccrProcessor, pieces

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")  # scripts without spaces between words


class Word(NamedTuple):
    text: str
    view: int  # place of its view; 0 of sentences and phrases, which are taken from all of them
    tokens: tuple[int, ...]  # their places on the axis V·T of the description's states


def words(processor: LeccrProcessor, views: Sequence[str], length: int) -> list[Word]:
    """The words of a description whose views were read as `length` tokens each. Tokens that stand for no character
    (marks of beginning and end) are in none.
    """
    if processor.policy.kind == "embedded":
        return [Word(text, 0, (place,)) for place, text in enumerate(pieces(views))]
    found = []
    for view, text in enumerate(views):
        if text.strip():
            for word, places in joined(processor.surfaces(text)[:length]):
                found.append(Word(word, view, tuple(view * length + place for place in places)))
    return found


def joined(surfaces: Sequence[str | None]) -> list[tuple[str, list[int]]]:
    """The words that tokens make up, with the places of their tokens. A word ends at a space; in a script without
    spaces each token is one.

    >>> joined([None, " a", " so", "fa", ".", None])
    [('a', [1]), ('sofa.', [2, 3, 4])]
    """
    found: list[tuple[str, list[int]]] = []
    for place, surface in enumerate(surfaces):
        if surface is None:
            continue
        text = surface.strip()
        before = found[-1][0] if found else ""
        apart = surface[:1].isspace() or unspaced(text[:1]) or (unspaced(before[:1]) and text[:1].isalnum())
        if found and (not surface or not apart or not before):
            word, places = found.pop()
            found.append((word + text, [*places, place]))
        else:
            found.append((text, [place]))
    return [(word, places) for word, places in found if word]


def unspaced(character: str) -> bool:
    return bool(character) and unicodedata.name(character, "").startswith(UNSPACED)
