"""Cleaning of what a language model answered: pure functions from text to (text, flags).

Nothing is hidden: whatever is trimmed or suspected leaves a flag in the row, and filters downstream decide.

    boilerplate   an opening such as "Here is a description:" was removed
    markdown      list marks, headings or emphasis were removed
    refusal       the model declined or spoke of itself; the text is kept as it came
    loop          the same words over and over; cut before the second round
    cut           the answer ended at the token limit; trimmed at the last full sentence
    fragment      not one full sentence was left to trim to; kept as it came
"""

import re

_OPENINGS = re.compile(
    r"^(?:(?:sure|certainly|of course|absolutely|okay|ok)\b[!,.:]*\s*)?"
    r"(?:(?:here(?:'s| is| are)|below (?:is|are)|the following (?:is|are))\b[^:.\n]{0,80}:\s*|"
    r"(?:description|caption|translation|answer|summary|objects|attributes|actions)\s*:\s*)",
    re.IGNORECASE,
)
_CHATTER = re.compile(r"^(?:sure|certainly|of course|absolutely)\b[!,.:]+\s*", re.IGNORECASE)
_CLOSINGS = re.compile(
    r"\s*(?:(?:let me know|feel free|please let me know|i hope this|if you (?:have|need|want|would like))"
    r"\b[^.!?]*[.!?]+\s*)+$",
    re.IGNORECASE,
)
_REFUSALS = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i can(?:'t|not|’t) (?:see|view|help|assist|identify|provide|describe|"
    r"comply|fulfill|process|access)|i (?:don't|do not) (?:see|have) (?:an?|any|the) (?:image|picture|photo|video)|"
    r"as an ai\b|as a language model)",
    re.IGNORECASE,
)
_MARKS = re.compile(r"^\s*(?:[-*•]\s+|#{1,6}\s+|\d{1,2}[.)]\s+)", re.MULTILINE)
_EMPHASIS = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1")
_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’)\]]*(?=\s|$)|[。！？]")
_ABBREVIATION = re.compile(r"\b(?:mr|mrs|ms|dr|st|no|vs|e\.g|i\.e|etc|approx|[a-z])\.$", re.IGNORECASE)

LOOP_WORDS = 12  # the longest phrase looked for
LOOP_ROUNDS = 4  # this many rounds of one phrase on end are a loop


def clean(text: str, finish_reason: str) -> tuple[str, tuple[str, ...]]:
    """The text as it is kept, on one line, and the flags of what was seen, sorted."""
    flags = set()
    text = text.strip().strip('"“”').strip()
    text, changed = _without_markdown(text)
    if changed:
        flags.add("markdown")
    shorter = without_remarks(text)
    if shorter != text:
        flags.add("boilerplate")
        text = shorter[0].upper() + shorter[1:]
    text = " ".join(text.split())
    if _REFUSALS.search(text[:200]):
        flags.add("refusal")
    before = text
    text = _unlooped(text)
    if text != before:
        flags.add("loop")
    if finish_reason == "length":
        flags.add("cut")
    if flags & {"cut", "loop"}:
        whole = _full_sentences(text)
        if not whole:
            flags.add("fragment")
        text = whole or text
    return text, tuple(sorted(flags))


def without_remarks(text: str) -> str:
    """The text without an opening or closing phrase that a model adds; as it is where nothing would be left."""
    return _CLOSINGS.sub("", _CHATTER.sub("", _OPENINGS.sub("", text))) or text


def _without_markdown(text: str) -> tuple[str, bool]:
    plain = _EMPHASIS.sub(r"\2", text)
    lines = [line.strip() for line in _MARKS.sub("", plain).splitlines() if line.strip()]
    if _MARKS.search(plain):
        lines = [line if line[-1] in ".!?:;,。" else f"{line}." for line in lines]
    return " ".join(lines), bool(_MARKS.search(plain)) or plain != text


def _unlooped(text: str) -> str:
    """The text up to the end of the first round of a phrase that comes LOOP_ROUNDS times on end."""
    words = text.split(" ")
    for start, first in enumerate(words):
        for length in range(1, min(LOOP_WORDS, (len(words) - start) // LOOP_ROUNDS) + 1):
            if words[start + length] != first:
                continue
            phrase = words[start : start + length]
            rounds = 1
            while words[start + rounds * length : start + (rounds + 1) * length] == phrase:
                rounds += 1
            if rounds >= LOOP_ROUNDS:
                return " ".join(words[: start + length])
    return text


def _full_sentences(text: str) -> str:
    """The text up to the end of its last full sentence, or "" where there is none."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if not _ABBREVIATION.search(text[: match.end()])]
    return text[: ends[-1]] if ends else ""
