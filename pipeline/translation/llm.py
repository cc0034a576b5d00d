"""A chat model as translator: the captions' client and server, with a prompt that asks for a translation.

What such models add to an answer is taken off and noted in the row:

    preamble_removed   an opening such as "Here is the translation:", or a closing remark
    quotes_removed     quotation marks around the whole, which the source does not have
    echo_removed       the source, repeated before or after its translation
"""

import asyncio
import dataclasses
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import langcodes

from pipeline.captioning.captioners import MllmCaptioner
from pipeline.captioning.clean import without_remarks
from pipeline.captioning.client import ChatClient, Media, RequestFailed, api_key
from pipeline.captioning.views import View
from pipeline.identity import short_hash
from pipeline.runstate import run_folder
from pipeline.stage import Run
from pipeline.translation.engines import Result, Translated, Untranslated
from pipeline.translation.sentences import split

PROMPT = (
    "Translate the description of a picture below from {source} into {target}. Answer with the translation alone: no "
    "notes, no quotation marks, nothing of the original.\n\n{text}"
)
MAX_CHARACTERS = 1_000  # of a request: whole texts read better than sentences, but answers to long ones get lost
TOKENS_PER_CHARACTER, MORE_TOKENS = 1.0, 32  # of the answer, to characters of the request
_NOTES = re.compile(r"\n\s*[(\[*]*(?:notes?|explanation|literally|alternatively)\b.*$", re.IGNORECASE | re.DOTALL)
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

    async def translate(self, segments: Sequence[str], source: str, target: str) -> AsyncIterator[dict[str, Result]]:
        waiting: set[asyncio.Task[tuple[str, Result]]] = set()
        rest = iter(segments)
        try:
            while True:
                while len(waiting) < 2 * self._window and (segment := next(rest, None)) is not None:
                    waiting.add(asyncio.create_task(self._ask(segment, source, target)))
                if not waiting:
                    return
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.gather(*done, return_exceptions=True)  # one error is raised, those beside it are the same
                yield dict(task.result() for task in done)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _ask(self, segment: str, source: str, target: str) -> tuple[str, Result]:
        prompt = PROMPT.format(source=_name(source), target=_name(target), text=segment)
        view = View("translation", prompt, MORE_TOKENS + round(TOKENS_PER_CHARACTER * len(segment)))
        try:
            answer = await self._client.ask(view, prompt, Media(b""))
        except RequestFailed as error:
            return segment, Untranslated(error.kind, str(error), error.attempts)
        text, notes = stripped(answer.text, segment, target)
        return segment, Translated(text, answer.finish_reason != "length", notes)

    async def close(self) -> None:
        await self._client.close()


def _name(language: str) -> str:
    return langcodes.Language.get(language).display_name("en")


def stripped(answer: str, source: str, target: str) -> tuple[str, tuple[str, ...]]:
    """The translation into `target` in a model's answer, and notes of what was taken off."""
    steps = {
        "preamble_removed": lambda text: _without_preamble(text, _name(target)),
        "echo_removed": lambda text: _without_echo(text, source.strip()),
        "quotes_removed": lambda text: text if _unquoted(source.strip()) != source.strip() else _unquoted(text),
    }
    notes, text = [], answer.strip()
    for note, step in steps.items():
        if (shorter := step(text).strip()) != text:
            notes.append(note)
            text = shorter
    return " ".join(text.split()), tuple(notes)


def _without_preamble(text: str, language: str) -> str:
    text = _NOTES.sub("", without_remarks(text)) or text
    return re.sub(rf"^{re.escape(language)}(?: translation)?\s*:\s*", "", text, flags=re.IGNORECASE) or text


def _without_echo(text: str, source: str) -> str:
    """The text less the source before or after it; an answer that is nothing else stays, to be flagged as copied."""
    if not source or text == source:
        return text
    same = re.escape(source)
    for pattern in (rf"^[\"“«]?{same}[\"”»]?\s*[-–—=:→>\n]+\s*", rf"\s*[-–—=:→>\n(]+\s*[\"“«]?{same}[\"”»)]*$"):
        shorter = re.sub(pattern, "", text)
        if shorter.strip() and shorter != text:
            return shorter
    return text


def _unquoted(text: str) -> str:
    quoted = len(text) > 2 and _QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1]
    return text[1:-1] if quoted else text
