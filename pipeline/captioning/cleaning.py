"""Judging of a model's answers: pure functions from an answer to its text, flags and language.

    wrappings removed, until nothing changes → loop cut → broken end trimmed → doubts flagged

Marks of chat templates, reasoning, the question, JSON, fences and remarks are removed where it is clear which text they
wrap. Whatever is removed or doubted leaves a flag. `answers.yaml` has all flags, whether
`--stage pack` leaves such rows out, and the patterns. Time is linear in the length of the answer, which is bounded.
"""

import ast
import dataclasses
import functools
import html
import importlib.util
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.captioning.prompts import Answer
from pipeline.quality.languages import base, confidences, facts, identify, letters, script_share
from pipeline.quality.surface import repeats

MAX_CHARACTERS = 20_000  # of an answer: several times what the longest description has
MAX_TOKENS = 2**31 - 1  # what the tables hold
ROUNDS = 6  # wrappings within wrappings
ECHO_WORDS = 8  # words of the question in a row that no description has
MIN_LANGUAGE, MIN_SENTENCE_LANGUAGE = 0.25, 0.02  # confidence in the language, of a text and of a sentence in it
MIN_SENTENCE_LETTERS = 30
WRITTEN = ("en", "de", "fr", "es", "pt", "it", "ru", "zh", "ja", "ko")  # languages that have rules
LABELS = ("USER", "ROLE", "KEY")  # parts of the table
MIN_SCRIPT = 0.8  # share of letters in a script of the language

_TABLE: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("answers.yaml").read_text(encoding="utf-8"))
FLAGS: dict[str, str] = {flag: meaning for flag, (_, meaning) in _TABLE["flags"].items()}
DROPPED = frozenset(flag for flag, (action, _) in _TABLE["flags"].items() if action == "drop")
"""Flags of descriptions that `--stage pack` leaves out."""


class Rule(NamedTuple):
    """A row of the table.

    Attributes:
        flag: Flag that it leaves; for an ending, the language it is for.
        name: Its name.
        pattern: What it matches.
        detail: What replaces that; for a doubt, the language it is for, or "".
    """

    flag: str
    name: str
    pattern: re.Pattern[str]
    detail: str = ""


@functools.cache
def _parts() -> dict[str, str]:
    return {name: re.sub(r"(?<=\|)\s+", "", part.strip()) for name, part in _TABLE["parts"].items()}


@functools.cache
def rules(section: str) -> tuple[Rule, ...]:
    """The rules `unwrap`, `doubt` or `endings` of the table; compiled at the first use."""

    def compiled(alternatives: str | list[str]) -> re.Pattern[str]:
        pattern = alternatives if isinstance(alternatives, str) else "|".join(alternatives)
        for name, part in _parts().items():
            pattern = pattern.replace(f"{{{name}}}", part)
        return re.compile(pattern, re.IGNORECASE)

    return tuple(Rule(flag, name, compiled(pattern), *to) for flag, name, pattern, *to in _TABLE[section])


_FINISH = {name: frozenset(words.replace("''", " ").split(" ")) for name, words in _TABLE["finish"].items()}

_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_MARKS = re.compile(r"^ ?(?:[-*•] +|#{1,6} +|\d{1,2}[.)] +|> ?)", re.MULTILINE)
_EMPHASIS = re.compile(r"(\*\*|__)(?=\S)([^*_\n]{1,500})(?<=\S)\1")
_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’)\]」]*(?=\s|$)|[。！？]")
_ENDS_SENTENCE = re.compile(r"[.!?…。！？]+[\"'”’)\]」]*\Z")
_ABBREVIATION = re.compile(r"\b(?:mr|mrs|ms|dr|st|no|vs|e\.g|i\.e|etc|approx|[a-z])\.$", re.IGNORECASE)
_QUOTED = re.compile(
    r"\"[^\"\n]{0,300}\"|“[^“”]{0,300}”|«[^«»]{0,300}»|„[^„“”]{0,300}[“”]|「[^「」]{0,300}」|『[^『』]{0,300}』"
)
_JSON_START = re.compile(r"\A[^{\[\n]{0,100}[:：\n]\s*(?=[{\[])")

# What comes again and again: a phrase of words, see `_loop`, or up to thirty characters without regard to spaces.
_CHARACTERS = re.compile(r"(\S)\1{15,}|(.{2,3}?)\2{7,}|(.{4,30}?)\3{3,}", re.DOTALL)


class Description(NamedTuple):
    """A judged answer: its text on one line, its flags, sorted, and the language that it is in."""

    text: str
    flags: tuple[str, ...]
    language: str


def bounded(answer: Answer) -> Answer:
    """The answer if it has the shape and size of one; impossible token counts become None.

    Raises:
        ValueError: It has another shape, or is longer than any description.
    """
    if not isinstance(answer.text, str) or not isinstance(answer.finish_reason, str):
        raise ValueError("the text or the finish reason of the answer is not a string")
    if len(answer.text) > MAX_CHARACTERS:
        raise ValueError(f"the answer has {len(answer.text):,} characters, expected at most {MAX_CHARACTERS:,}")
    counts = [
        count if type(count) is int and 0 <= count <= MAX_TOKENS else None
        for count in (answer.prompt_tokens, answer.completion_tokens)
    ]
    reason = visible(answer.finish_reason)[:100]
    return dataclasses.replace(answer, finish_reason=reason, prompt_tokens=counts[0], completion_tokens=counts[1])


def ending(finish_reason: str) -> str:
    """How a server says that an answer ended: `complete`, at its `limit` of tokens, or "" for anything else."""
    reason = finish_reason.lower().rsplit(".", 1)[-1]
    return next((name for name, reasons in _FINISH.items() if reason in reasons), "")


def visible(text: str) -> str:
    """The text without control characters, which a terminal would obey, and without halves of characters."""
    return _HIDDEN.sub("", _ESCAPES.sub("", text))


def clean(text: str, finish_reason: str, question: str = "", language: str = "en") -> Description:
    """Judge one answer of at most MAX_CHARACTERS.

    Args:
        text: As the model gave it.
        finish_reason: Of the server.
        question: What the model was asked.
        language: What the view asks for, BCP 47.
    """
    text, flags = unwrap(text, question)
    end_of_answer = ending(finish_reason)
    if not end_of_answer:
        flags.add("unfinished")
    text, is_list = _without_markdown(text)
    if is_list:
        flags.add("markdown")
    text = " ".join(text.split())
    if (end := _loop(text)) is not None:
        flags.add("loop")
        text = text[:end]
    outside = _QUOTED.sub(lambda match: '"quote"', text.replace("’", "'"))
    tags = ("", base(language)) if base(language) != "en" else ("", *WRITTEN)
    flags |= {rule.flag for rule in rules("doubt") if rule.detail in tags and rule.pattern.search(outside)}
    if _repeats_question(text, question):
        flags.add("echo")
    if end_of_answer == "limit" or ("loop" not in flags and breaks_off(text, language)):
        flags.add("cut")
    if flags & {"cut", "loop"}:
        sentences = _full_sentences(text)
        if not sentences:
            flags.add("fragment")
        text = sentences or text
    written = written_language(outside, language)
    if written != language:
        flags.add("wrong_language")
    return Description(text, tuple(sorted(flags)), written)


def unwrap(text: str, question: str = "") -> tuple[str, set[str]]:
    """The text without what wraps it, its lines trimmed, and flags of what was removed.

    The text is unchanged if nothing would be left.
    """
    text, flags = single_spaced(text), set[str]()
    original = text
    if visible(text) != text:
        text = visible(text)
        flags.add("unwrapped")
    for _ in range(ROUNDS):
        before = text
        for flag, step in _steps(question):
            shorter = step(text)
            if shorter != text and (shorter := single_spaced(shorter)) != text and any(map(str.isalnum, shorter)):
                flags.add(flag)
                text = shorter
        if text == before:
            break
    if "boilerplate" in flags:
        text = text[0].upper() + text[1:]
    return text or " ".join(original.split()), flags


def without_thoughts(text: str) -> str:
    """The text after the model's reasoning, if that has an end; unchanged if nothing would be left."""
    (rule,) = (rule for rule in rules("unwrap") if rule.name == "thoughts")
    return rule.pattern.sub("", text).strip() or text


def without_remarks(text: str) -> str:
    """The text without the opening and closing phrases that models add; unchanged if nothing would be left."""
    for rule in rules("unwrap"):
        if rule.flag == "boilerplate":
            text = rule.pattern.sub("", text) or text
    return text


def written_language(text: str, expected: str) -> str:
    """The language of a text: the expected one unless the text, or a sentence of it, is clearly in another.

    Without the package of extra `quality` only the script is compared.
    """
    share = script_share(text, expected)
    if share is not None and share < MIN_SCRIPT:
        return identify(text) or "und"
    if importlib.util.find_spec("lingua") is None:
        return expected
    sentences = [part for part in _sentences(text) if len(letters(part)) >= MIN_SENTENCE_LETTERS]
    texts = [text, *(sentences if len(sentences) > 1 else [])]
    limits = [MIN_LANGUAGE, *[MIN_SENTENCE_LANGUAGE] * (len(texts) - 1)]
    for part, value, limit in zip(texts, confidences(texts, [expected] * len(texts), [expected]), limits, strict=True):
        if value is not None and value < limit:
            return identify(part) or "und"
    return expected


def breaks_off(text: str, language: str) -> bool:
    """Whether the text ends within a sentence, as far as its last words show. A missing full stop does not."""
    stripped = re.sub(r"(?:…|\.\.+)$", "", text).rstrip()
    if _ENDS_SENTENCE.search(stripped):
        return False
    if stripped.count("(") > stripped.count(")") or (stripped.count('"') % 2 and not re.search(r'\d"', stripped)):
        return True
    words = re.findall(r"\w+", stripped[-60:].lower())
    dangling = "" if language == "en" else str(facts()["dangling"].get(base(language), ""))
    return bool(words and words[-1] in dangling.split()) or any(
        rule.flag in ("", base(language)) and rule.pattern.search(stripped) for rule in rules("endings")
    )


def single_spaced(text: str) -> str:
    """The text with single spaces and line breaks: the patterns would be slow on long runs of them."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def _steps(question: str) -> Iterator[tuple[str, Callable[[str], str]]]:
    """All that removes a wrapping, with its flag."""
    yield "unwrapped", html.unescape
    yield "unwrapped", functools.partial(_without_question, question=question)
    for rule in rules("unwrap"):
        yield rule.flag, functools.partial(rule.pattern.sub, rule.detail)
    yield "unwrapped", _without_json


def _without_question(text: str, question: str) -> str:
    """The text without sentences of the question; unchanged if at most a label is left."""
    rest = text
    for sentence in _sentences(question):
        words = re.findall(r"\w+", sentence)
        if len(words) >= 4:
            phrase = r"\W+".join(map(re.escape, words))
            # The lookbehind keeps this linear: a run of signs is entered only at its beginning.
            rest = re.sub(rf"(?<![\s\"'*>])[\s\"'*>]*{phrase}[.?!\"'*:]*", "\n", rest, flags=re.IGNORECASE)
    is_label = re.fullmatch(
        rf"\W*(?:(?:the )?(?:{'|'.join(_parts()[part] for part in LABELS)})(?: is)?)?\W*", rest, re.I
    )
    return text if is_label else rest


def _repeats_question(text: str, question: str) -> bool:
    theirs, ours = (re.findall(r"\w+", side.lower()) for side in (question, text))
    runs = {tuple(theirs[start : start + ECHO_WORDS]) for start in range(len(theirs) - ECHO_WORDS + 1)}
    return any(tuple(ours[start : start + ECHO_WORDS]) in runs for start in range(len(ours)))


def _without_json(text: str) -> str:
    """The caption in an answer that is JSON or a Python literal; the text if it is not clear which one it is."""
    body = _JSON_START.sub("", text)
    if body[:1] not in ("{", "[", '"'):
        return text
    for parse in (functools.partial(json.loads, strict=False), ast.literal_eval):
        try:
            return _caption_of(parse(body)) or text
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return text


def _caption_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        are_names = all(isinstance(entry, str) and len(entry.split()) <= 5 for entry in value)
        return _caption_of(value[0]) if len(value) == 1 else ", ".join(value) if are_names else ""
    if not isinstance(value, dict):
        return ""
    texts = {key: entry for key, entry in value.items() if isinstance(entry, str | list | dict)}
    named = [key for key in texts if re.fullmatch(_parts()["KEY"], str(key), re.IGNORECASE)]
    if len(texts) == 1 and (named or len(value) == 1):
        return _caption_of(next(iter(texts.values())))
    others = [entry for key, entry in texts.items() if key not in named]
    are_labels = all(isinstance(entry, str) and len(entry.split()) <= 2 for entry in others)
    only = texts[named[0]] if len(named) == 1 and are_labels else ""
    return only if isinstance(only, str) else ""


def _without_markdown(text: str) -> tuple[str, bool]:
    bare = _EMPHASIS.sub(r"\2", text)
    marked = bool(_MARKS.search(bare))
    lines = [line.strip() for line in _MARKS.sub("", bare).splitlines() if line.strip()]
    if marked:
        lines = [line if line[-1] in ".!?:;,。" else f"{line}." for line in lines]
    return " ".join(lines) or " ".join(text.split()), marked or bare != text


def _loop(text: str) -> int | None:
    """Where the first round of the first loop ends: a phrase four times in a row, a long one three times."""
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    words = [re.sub(r"\d+", "0", text[start:stop].lower().rstrip(",;")) for start, stop in spans]
    ends = []
    for period in range(1, min(40, len(words) // 2) + 1):
        rounds = 4 if period < 4 else 3
        for start, stop in repeats(words, period):
            phrase = "".join(words[start - period : start])
            if stop - start >= (rounds - 1) * period and not phrase.isdigit():
                ends.append(spans[start - 1][1])
                break
    counts = Counter(sentence.lower() for sentence in _sentences(text))
    thrice = [part for part in _sentences(text) if counts[part.lower()] >= 3 and len(part) >= 12]
    if thrice:
        ends.append(text.index(thrice[0]) + len(thrice[0]))
    if not ends and (match := _CHARACTERS.search(text)):
        ends.append(match.start() + len(next(filter(None, match.groups()))))
    return min(ends, default=None)


def _sentences(text: str) -> list[str]:
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    return [text[start:end].strip() for start, end in itertools.pairwise(ends) if text[start:end].strip()]


def _full_sentences(text: str) -> str:
    """The text up to the end of its last full sentence, or "" if there is none."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return next((text[:end] for end in reversed(ends) if not _ABBREVIATION.search(text[max(0, end - 10) : end])), "")
