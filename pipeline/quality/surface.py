"""Scores of a pair's form, whatever it means: length, copying, repetition, completeness, chatter."""

import functools
import re
from collections.abc import Iterator, Sequence

from pipeline.quality.languages import MIN_LETTERS, UNSEGMENTED, base, facts, letters, usual_ratio

LOOP_WORDS = 40  # longest phrase whose repetition is detected
MIN_REPEATS = 2  # a single word twice in a row is emphasis or a name (pom-pom), more is a loop
LEAST_CHATTER = 0.15  # of a text with chatter, however long it is: more than the rule `boilerplate` allows
CHATTER_ROUNDS = 4
COPIED_RUN = {False: 2, True: 4}  # consecutive words, or characters where a language has no spaces

_WORD = re.compile(r"[^\W_]+")
_ENDS = ".!?…。！？؟।։።"
_CLOSERS = "\"'”’»)]}』」）"
_OPENERS = "\"'“‘„«»『「"
_UNPUNCTUATED = frozenset({"km", "lo", "my", "th"})  # sentences that end in no mark
_FULL_LENGTH = 0.8  # share of the usual length: a longer text counts as complete even without a full stop

# What stands for a word or character that the model could not write.
_LOST = re.compile(r"⁇|\ufffd|<unk>|\[unk\]|<0x[0-9a-f]{2}>", re.IGNORECASE)
_LABEL = re.compile(r"\W*\w+(?:\W\w+){0,3} ?[:：](?!\d)")
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|（[^（）]*）")


@functools.cache
def _chatter() -> re.Pattern[str]:
    return re.compile(str(facts()["chatter"]), re.IGNORECASE | re.VERBOSE | re.DOTALL)


@functools.cache
def _dangling_words(language: str) -> frozenset[str]:
    return frozenset(facts()["dangling"].get(language, "").split())


def units(text: str, tag: str) -> list[str]:
    """The words of a text in lower case; its characters where the language is written without spaces."""
    words = _WORD.findall(text.lower())
    return list("".join(words)) if base(tag) in UNSEGMENTED else words


def size(text: str) -> int:
    """Letters and digits."""
    return sum(map(str.isalnum, text))


def length_ratio(source: str, text: str, source_tag: str, tag: str) -> float:
    """Letters and digits of the text to those of the source, over what is usual for the languages: 1 is usual.

    0 for a text without any; a source without any counts as one.
    """
    return size(text) / max(size(source), 1) / usual_ratio(source_tag, tag)


def copied(source: str, text: str, source_tag: str, tag: str) -> float | None:
    """Share of the text, in letters and digits, that stands in the source in runs of two words or four characters.

    None within one language, and for texts so short that both sides may rightly be equal ("Taxi.").
    """
    if base(source_tag) == base(tag) or len(letters(text)) < MIN_LETTERS:
        return None
    theirs, ours = units(source, tag), units(text, tag)
    run = min(COPIED_RUN[base(tag) in UNSEGMENTED], len(ours))
    known = {tuple(theirs[start : start + run]) for start in range(len(theirs) - run + 1)}
    covered = [False] * len(ours)
    for start in range(len(ours) - run + 1):
        if tuple(ours[start : start + run]) in known:
            covered[start : start + run] = [True] * run
    total = sum(map(len, ours))
    return sum(len(unit) for unit, is_copied in zip(ours, covered, strict=True) if is_copied) / total if total else None


def repeats(words: Sequence[str], period: int) -> Iterator[tuple[int, int]]:
    """The runs of words that equal the word `period` places before, as (start, stop)."""
    start = period
    for place in range(period, len(words) + 1):
        if place == len(words) or words[place] != words[place - period]:
            if place > start:
                yield start, place
            start = place + 1


def repeated_share(words: Sequence[str]) -> float:
    """Share of the words that repeat the phrase of up to LOOP_WORDS words directly before them."""
    repeated: set[int] = set()
    for period in range(1, min(LOOP_WORDS, len(words) // 2) + 1):
        for start, stop in repeats(words, period):
            if stop - start >= max(period, MIN_REPEATS):
                repeated.update(range(start, stop))
    return len(repeated) / len(words) if words else 0.0


def repetition(source: str, text: str, source_tag: str, tag: str) -> float:
    """Share of the text's words that only repeat a phrase before them, less that of the source."""
    ours, theirs = repeated_share(units(text, tag)), repeated_share(units(source, source_tag))
    return max(0.0, ours - theirs)


def complete(source: str, text: str, tag: str, finished: bool, ratio: float) -> float:
    """0 where the text breaks off, else 1, or the share of the usual length of a text that lacks its full stop.

    A comma, an article or a conjunction at the end breaks off too. 0 also where a word is lost: ⁇, � or <unk> is in its
    place.
    """
    if not finished or not text.strip() or len(_LOST.findall(text)) > len(_LOST.findall(source)):
        return 0.0
    source_end, end = source.strip().rstrip(_CLOSERS)[-1:], text.strip().rstrip(_CLOSERS)[-1:]
    if (end and end in _ENDS) or base(tag) in _UNPUNCTUATED or not source_end or source_end not in _ENDS:
        return 1.0
    words = units(text, tag)
    if end in ",;-–—、，" or (words and words[-1] in _dangling_words(base(tag))):
        return 0.0
    return min(1.0, ratio / _FULL_LENGTH)


def _chatter_spans(text: str, source: str) -> list[tuple[int, int]]:
    """Where a text has chatter that its source does not have; no labels if the source begins with one."""
    if _chatter().search(source):
        return []
    spans = [match.span() for match in _chatter().finditer(text)]
    return [span for span in spans if text[slice(*span)].strip()[-1:] not in ":：" or not _LABEL.match(source)]


def without_chatter(text: str, source: str) -> str:
    """The text without chatter at its beginning and end, unless the source has chatter or nothing would be left."""
    for _ in range(CHATTER_ROUNDS):  # an announcement may stand behind another one
        spans = _chatter_spans(text, source)
        start, stop = 0, len(text)
        for begin, end in spans:
            start = end if not text[start:begin].strip() else start
        for begin, end in reversed(spans):
            stop = begin if not text[end:stop].strip() else stop
        rest = text[start:stop].strip()
        if rest == text or not any(map(str.isalnum, rest)):
            break
        text = rest
    return text


def boilerplate(source: str, text: str) -> float:
    """Share of the text that is chatter: announcements, notes, marks, brackets or quotes where the source has none.

    At least LEAST_CHATTER where there are announcements, notes or marks, however long the text is.
    """
    if not text.strip():
        return 0.0
    spans = _chatter_spans(text, source)
    least = LEAST_CHATTER if spans else 0.0
    if not _BRACKETS.search(source):
        spans += [match.span() for match in _BRACKETS.finditer(text)]
    chatter = set().union(*(range(*span) for span in spans))
    inner = text.strip()
    if len(inner) > 1 and inner[0] in _OPENERS and inner[-1] in _CLOSERS and source.strip()[:1] not in _OPENERS:
        chatter |= {text.index(inner[0]), text.rindex(inner[-1])}
    return max(least, len(chatter) / len(text))
