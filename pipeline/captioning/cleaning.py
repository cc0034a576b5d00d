"""Cleaning of a language model's answers: pure functions from text to (text, flags).

Everything that is trimmed or suspected leaves a flag in the row; filters of later stages decide.

    boilerplate   an opening such as "Here is a description:" was removed
    markdown      list marks, headings or emphasis were removed
    refusal       the model declined or spoke of itself; the text is unchanged
    loop          a phrase was repeated over and over; cut before its second round
    cut           the answer ended at the token limit; trimmed at the last full sentence
    fragment      there is no full sentence to trim to; the text is unchanged
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

# A phrase of up to twelve words that comes four times in a row or more.
_LOOP = re.compile(r"(?<!\S)(\S+(?: \S+){0,11}?)(?: \1){3,}(?!\S)")


def clean(text: str, finish_reason: str) -> tuple[str, tuple[str, ...]]:
    """Clean one answer.

    Args:
        text: As the model gave it.
        finish_reason: `length` if the answer ended at the token limit.

    Returns:
        The text on one line, and its flags, sorted.
    """
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
    if loop := _LOOP.search(text):
        flags.add("loop")
        text = text[: loop.end(1)]
    if finish_reason == "length":
        flags.add("cut")
    if flags & {"cut", "loop"}:
        sentences = _full_sentences(text)
        if not sentences:
            flags.add("fragment")
        text = sentences or text
    return text, tuple(sorted(flags))


def without_remarks(text: str) -> str:
    """The text without the opening and closing phrases that models add; unchanged if nothing would be left."""
    return _CLOSINGS.sub("", _CHATTER.sub("", _OPENINGS.sub("", text))) or text


def _without_markdown(text: str) -> tuple[str, bool]:
    bare = _EMPHASIS.sub(r"\2", text)
    lines = [line.strip() for line in _MARKS.sub("", bare).splitlines() if line.strip()]
    if _MARKS.search(bare):
        lines = [line if line[-1] in ".!?:;,。" else f"{line}." for line in lines]
    return " ".join(lines), bool(_MARKS.search(bare)) or bare != text


def _full_sentences(text: str) -> str:
    """The text up to the end of its last full sentence, or "" if there is none."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if not _ABBREVIATION.search(text[: match.end()])]
    return text[: ends[-1]] if ends else ""
