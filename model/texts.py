"""The usual form of captions and queries. Imports no torch."""

import itertools
import unicodedata


def normalize_text(text: str) -> str:
    """A text in the letters that encoders were trained on.

    Letters, digits and spaces become their usual forms (NFKC), and a text all in capitals small letters; punctuation
    stays as it is, and so do capitals beside letters that have no case, as in "Tシャツ".

    >>> normalize_text("ＥＩＮＥ　ＫＡＴＺＥ")
    'eine katze'
    """
    if not text.isascii():
        groups = itertools.groupby(text, lambda character: unicodedata.category(character)[0] in "LMNZ")
        parts = [("".join(group), has_letters) for has_letters, group in groups]
        text = "".join(unicodedata.normalize("NFKC", part) if has_letters else part for part, has_letters in parts)
    letters = [character for character in text if character.isalpha()]
    capitals = len(letters) > 1 and all(character.isupper() or character == "ß" for character in letters)
    return text.lower().replace("i\u0307", "i") if capitals else text
