"""Long texts go to a translator sentence by sentence: cut here, and put together again."""

import re
from collections.abc import Sequence

from pipeline.translation.translator import need

# About 200 tokens of most vocabularies, in any script: models get worse beyond that, and those of 512 positions fail.
MAX_BYTES = 800
# Written without spaces between sentences.
UNSPACED = ("zh", "ja", "yue")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Where to cut, best first: after these, with the whitespace that follows.
_BREAKS = (r"[;:.!?…]\s+|[。！？；：]\s*", r"[,،]\s+|[、，]\s*", r"\s+")


def split(text: str, language: str) -> list[tuple[str, str]]:
    """(sentence, whitespace after it), which joined give `text` back. Only the first may begin with whitespace.

    A sentence of more than MAX_BYTES (UTF-8) is cut further: at a comma, else at a space, else anywhere.
    """
    # The segmenter takes no lone surrogates; a stand-in of the same length keeps the positions.
    segments = need("sentencex").segment(language.split("-")[0], _SURROGATE.sub("�", text))
    parts: list[tuple[str, str]] = []
    start = 0
    for segment in segments:
        for piece in _cut(text[start : start + len(segment)]):
            sentence = piece.strip()
            before, _, after = piece.partition(sentence) if sentence else (piece, "", "")
            if not parts:
                parts.append((before + sentence, after) if sentence else ("", piece))
                continue
            parts[-1] = (parts[-1][0], parts[-1][1] + before)
            if sentence:
                parts.append((sentence, after))
        start += len(segment)
    return parts


def join(parts: Sequence[tuple[str, str]], target: str) -> str:
    """The translated text of (translated sentence, whitespace after its source).

    Sentences are set apart as the target language does: by nothing in Chinese and Japanese, else at least by a space;
    a line break stays one in any language.
    """
    unspaced = target.split("-")[0] in UNSPACED
    joined = ""
    for sentence, gap in parts:
        joined += sentence
        if "\n" in gap:
            joined += gap
        elif sentence and not unspaced:
            joined += gap or " "
    return joined.strip()


def halves(text: str) -> tuple[str, str] | None:
    """The text cut near its middle, at the best place there is; None for a single character."""
    if len(text) < 2:
        return None
    middle = len(text) // 2
    for breaks in _BREAKS:
        places = [m.end() for m in re.finditer(breaks, text) if len(text) // 4 <= m.end() <= len(text) - len(text) // 4]
        if places:
            place = min(places, key=lambda place: abs(place - middle))
            return text[:place], text[place:]
    return text[:middle], text[middle:]


def _cut(text: str) -> list[str]:
    """Pieces of at most MAX_BYTES, whitespace at their ends not counted."""
    if len(text.strip().encode("utf-8", "surrogatepass")) <= MAX_BYTES:
        return [text]
    cut = halves(text)
    if cut is None:
        return [text]
    return [piece for half in cut for piece in _cut(half)]
