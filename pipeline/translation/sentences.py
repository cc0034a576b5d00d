"""Long texts are translated sentence by sentence: cut here, and joined again."""

import re
from collections.abc import Sequence

# About 200 tokens of most vocabularies, in any script: models get worse beyond that, and those of 512 positions fail.
MAX_BYTES = 800
# Written without spaces between sentences.
UNSPACED = ("zh", "ja", "yue")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]+")
# Where to cut, best first: after these, with the whitespace that follows.
_BREAKS = (r"[;:.!?…]\s+|[。！？；：]\s*", r"[,،]\s+|[、，]\s*", r"\s+")


def clean(text: str) -> str:
    """The text without what tokenizers fail on: lone surrogates are dropped, control characters become spaces."""
    return _CONTROLS.sub(" ", _SURROGATE.sub("", text)).strip()


def split(text: str, language: str) -> list[tuple[str, str]]:
    """Cut a text into sentences of at most MAX_BYTES (UTF-8).

    A longer sentence is cut at a comma, else at a space, else anywhere.

    Returns:
        (sentence, whitespace after it); joined they give `text`. Only the first may begin with whitespace.
    """
    import sentencex  # takes a while

    # The segmenter takes no lone surrogates; a stand-in of the same length keeps the positions.
    segments = sentencex.segment(language.split("-")[0], _SURROGATE.sub("�", text))
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
    """Join translated sentences the way the target language separates them.

    Chinese and Japanese put nothing between sentences, other languages at least a space; a line break stays one in
    any language.

    Args:
        parts: (translated sentence, whitespace after its source).
        target: BCP 47 tag.
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


def halves(text: str) -> tuple[str, str]:
    """Cut the text near its middle, at the best place there is."""
    middle, quarter = len(text) // 2, len(text) // 4
    for breaks in _BREAKS:
        ends = [match.end() for match in re.finditer(breaks, text)]
        places = [end for end in ends if quarter <= end <= len(text) - quarter]
        if places:
            middle = min(places, key=lambda place: abs(place - middle))
            break
    return text[:middle], text[middle:]


def _cut(text: str) -> list[str]:
    """Pieces of at most MAX_BYTES, not counting whitespace at their ends."""
    if len(text.strip().encode("utf-8", "surrogatepass")) <= MAX_BYTES:
        return [text]
    return [piece for half in halves(text) for piece in _cut(half)]
