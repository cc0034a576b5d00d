"""A chat model as translator: the captions' client and server, with a prompt that asks for a translation.

What such models add to an answer is taken off and noted in the row:

    preamble_removed   an opening such as "Here is the translation:", or a closing remark
    quotes_removed     quotation marks around the whole, which the source does not have
    echo_removed       the source, repeated before or after its translation
"""

import asyncio
import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import langcodes

from pipeline.captioning.captioners import MllmCaptioner
from pipeline.captioning.chat_client import ChatClient, Media, RequestFailed, api_key
from pipeline.captioning.cleaning import without_remarks
from pipeline.captioning.prompts import View
from pipeline.engine.run_state import run_folder
from pipeline.engine.stage import Run
from pipeline.hashing import short_hash
from pipeline.translation.sentences import split
from pipeline.translation.translator import Made, Result, Translated, Untranslated

PROMPT = (
    "Translate the description of a picture below from {source} into {target}. Answer with the translation alone: no "
    "notes, no quotation marks, nothing of the original.\n\n{text}"
)
MAX_CHARACTERS = 1_000  # of a request: whole texts read better than sentences, but answers to long ones get lost
TOKENS_PER_CHARACTER, MORE_TOKENS = 1.0, 32  # of the answer, to characters of the request
_NOTES = re.compile(r"\n\s*[(\[*]*(?:notes?|explanation|literally|alternatively)\b.*$", re.IGNORECASE | re.DOTALL)
MIN_ECHO = 12  # characters
_SIGNS = "-–—=:→>"
_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»", "»": "«", "「": "」", "'": "'", "‘": "’", "‚": "‘", "”": "”"}


@dataclasses.dataclass(frozen=True)
class LlmTranslator:
    """A model on chat servers, asked as the captioner is."""

    server: MllmCaptioner
    license: str = ""

    @property
    def name(self) -> str:
        return self.server.name

    @property
    def revision(self) -> str:
        return self.server.revision

    @property
    def decoding(self) -> dict[str, Any]:
        limit = {"max_tokens_per_character": TOKENS_PER_CHARACTER, "max_tokens_more": MORE_TOKENS}
        return {"prompt_id": short_hash(PROMPT), "temperature": 0.0, **limit}


class LlmSpeaker:
    """Asks for many segments at once; the client's window bounds the requests in flight."""

    alone = False

    def __init__(self, translator: LlmTranslator, run: Run):
        server = translator.server
        self._window = server.window
        self._client = ChatClient(
            server.urls, server.name, server.window, server.retries, api_key(run_folder(run.folder))
        )

    def segments(self, text: str, language: str) -> list[tuple[str, str]]:
        """The text whole, or sentences together up to MAX_CHARACTERS."""
        parts: list[tuple[str, str]] = []
        for sentence, gap in split(text, language):
            if parts and len(parts[-1][0]) + len(parts[-1][1]) + len(sentence) <= MAX_CHARACTERS:
                parts[-1] = (parts[-1][0] + parts[-1][1] + sentence, gap)
            else:
                parts.append((sentence, gap))
        return parts

    async def translate(self, segments: Sequence[str], source: str, target: str, made: Made) -> None:
        rest = iter(segments)

        async def ask_on() -> None:
            for segment in rest:
                made({segment: await self._ask(segment, source, target)})

        async with asyncio.TaskGroup() as group:  # twice what fills the window, for those that wait for a retry
            for _ in range(min(2 * self._window, len(segments))):
                group.create_task(ask_on())

    async def _ask(self, segment: str, source: str, target: str) -> Result:
        prompt = PROMPT.format(source=_name(source), target=_name(target), text=segment)
        view = View("translation", prompt, MORE_TOKENS + round(TOKENS_PER_CHARACTER * len(segment)))
        try:
            answer = await self._client.ask(view, prompt, Media(b""))
        except RequestFailed as error:
            return Untranslated(error.kind, str(error), error.attempts)
        text, notes = stripped(answer.text, segment, target)
        return Translated(text, answer.finish_reason != "length", notes)

    async def close(self) -> None:
        await self._client.close()


def _name(language: str) -> str:
    return langcodes.Language.get(language).display_name("en")


def stripped(answer: str, source: str, target: str) -> tuple[str, tuple[str, ...]]:
    """The translation into `target` in a model's answer, and notes of what was taken off."""
    text, source = _lines(answer), _lines(source)
    steps = {
        "preamble_removed": lambda text: _without_preamble(text, source, target),
        "echo_removed": lambda text: _without_echo(text, source),
        "quotes_removed": lambda text: text if _unquoted(source) != source else _unquoted(text),
    }
    notes = []
    for note, step in steps.items():
        if (shorter := step(text).strip()) != text:
            notes.append(note)
            text = shorter
    return " ".join(text.split()), tuple(notes)


def _lines(text: str) -> str:
    """The text with single spaces and line breaks: the patterns below take long on long runs of them."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def _without_preamble(text: str, source: str, target: str) -> str:
    """The text less remarks, where neither the source has such words nor the translation may."""
    if "\n" not in source:
        text = _NOTES.sub("", text) or text
    if target.split("-")[0] != "en" and without_remarks(source) == source:
        text = without_remarks(text)
    opening = re.compile(rf"(?:translation|{re.escape(_name(target))}(?: translation)?) ?: ?", re.IGNORECASE)
    found = opening.match(text)
    return text[found.end() :] or text if found and not opening.search(source) else text


def _without_echo(text: str, source: str) -> str:
    """The text less the source before or after it; an answer that is nothing else stays, to be flagged as copied.

    Between the two a line break or a sign with a space before it is wanted, and some length of the source: `T` and
    `T-Shirt` are no echo.
    """
    if len(source) < MIN_ECHO or text == source:
        return text
    for echo in (source, f'"{source}"', f"“{source}”", f"«{source}»"):
        rest = text.removeprefix(echo)
        if rest != text and (rest[:1] in ("\n", ":") or (rest[:1] == " " and rest[1:2] in _SIGNS)):
            return rest.lstrip(f" \n{_SIGNS}") or text
        rest = text.removesuffix(f"({echo})")
        if rest != text:
            return rest.rstrip() or text
        rest = text.removesuffix(echo)
        if rest != text and (rest[-1:] == "\n" or (rest.rstrip()[-1:] in _SIGNS and rest.rstrip()[-2:-1] == " ")):
            return rest.rstrip(f" \n{_SIGNS}") or text
    return text


def _unquoted(text: str) -> str:
    quoted = len(text) > 2 and _QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1]
    return text[1:-1] if quoted else text
