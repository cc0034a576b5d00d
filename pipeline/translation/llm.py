"""A chat model as translator: asked with a prompt, like the captioner, through the same client and server.

What such models add to a translation is removed and noted in the row:

    thoughts_removed   the model's reasoning, up to its closing tag
    preamble_removed   an opening such as "Here is the translation:", a closing remark, or marks of a chat
    quotes_removed     quotation marks around the whole, which the source does not have
    echo_removed       the source, repeated before or after its translation
    marks_removed      marks of chats, JSON or fences around it
"""

import asyncio
import dataclasses
import re
from collections.abc import Callable, Sequence

import langcodes

from pipeline.captioning.captioners import MllmCaptioner
from pipeline.captioning.chat_client import Media, RequestFailed
from pipeline.captioning.cleaning import ending, single_spaced, unwrap, without_remarks, without_thoughts
from pipeline.captioning.prompts import View
from pipeline.engine.stage import Run
from pipeline.hashing import short_hash
from pipeline.quality.surface import without_chatter
from pipeline.translation.sentences import split
from pipeline.translation.translator import OnResults, Result, Translated, Translator, Untranslated

PROMPT = (
    "Translate the description of a picture below from {source} into {target}. Answer with the translation alone: no "
    "notes, no quotation marks, nothing of the original.\n\n{text}"
)
MAX_CHARACTERS = 1_000  # per request: whole texts read better than single sentences, but long ones lose parts
TOKENS_PER_CHARACTER, MORE_TOKENS = 1.0, 32  # limit of the answer by characters of the request
_LIMIT = {"max_tokens_per_character": TOKENS_PER_CHARACTER, "max_tokens_more": MORE_TOKENS}
DECODING = {"prompt_id": short_hash(PROMPT), "temperature": 0.0, **_LIMIT}
_NOTES = re.compile(r"\n\s*[(\[*]*(?:notes?|explanation|literally|alternatively)\b.*$", re.IGNORECASE | re.DOTALL)
MIN_ECHO = 12  # characters
_SIGNS = r"\-–—=:→>"  # within a character class
_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»", "»": "«", "「": "」", "'": "'", "‘": "’", "‚": "‘", "”": "”"}


@dataclasses.dataclass(frozen=True)
class LlmTranslator(Translator):
    """A model on chat servers, asked as the captioner is."""

    server: MllmCaptioner

    def open(self, run: Run) -> "LlmBackend":
        """See Translator."""
        return LlmBackend(self, run)


class LlmBackend:
    """Asks for many segments at once; the client's window bounds the requests in flight."""

    exclusive = False

    def __init__(self, translator: LlmTranslator, run: Run):
        self._client = translator.server.client(run)

    def segments(self, text: str, language: str) -> list[tuple[str, str]]:
        """The whole text, or groups of sentences of up to MAX_CHARACTERS."""
        parts: list[tuple[str, str]] = []
        for sentence, gap in split(text, language):
            if parts and len(parts[-1][0]) + len(parts[-1][1]) + len(sentence) <= MAX_CHARACTERS:
                parts[-1] = (parts[-1][0] + parts[-1][1] + sentence, gap)
            else:
                parts.append((sentence, gap))
        return parts

    async def translate(self, segments: Sequence[str], source: str, target: str, on_results: OnResults) -> None:
        """Ask for every segment; see Backend."""

        async def ask(segment: str) -> None:
            on_results({segment: await self._ask(segment, source, target)})

        async with asyncio.TaskGroup() as group:
            for segment in segments:
                group.create_task(ask(segment))

    async def _ask(self, segment: str, source: str, target: str) -> Result:
        prompt = PROMPT.format(source=_english_name(source), target=_english_name(target), text=segment)
        view = View("translation", prompt, MORE_TOKENS + round(TOKENS_PER_CHARACTER * len(segment)))
        try:
            answer = await self._client.ask(view, prompt, Media(b""))
        except RequestFailed as error:
            return Untranslated(error.kind, str(error), error.attempts)
        text, notes = strip_additions(answer.text, segment, target)
        return Translated(text, ending(answer.finish_reason) == "complete", notes)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _english_name(language: str) -> str:
    return langcodes.Language.get(language).display_name("en")


def strip_additions(answer: str, source: str, target: str) -> tuple[str, tuple[str, ...]]:
    """Remove from a model's answer what is not the translation.

    Args:
        answer: The model's answer.
        source: The text that was to be translated.
        target: The language to translate into.

    Returns:
        The translation, and notes of what was removed.
    """
    text, source = single_spaced(answer), single_spaced(source)
    steps: dict[str, Callable[[str], str]] = {
        "thoughts_removed": without_thoughts,
        "preamble_removed": lambda text: _without_preamble(text, source, target),
        "echo_removed": lambda text: _without_echo(text, source),
        "quotes_removed": lambda text: text if _without_quotes(source) != source else _without_quotes(text),
        "marks_removed": lambda text: _without_wrapping(text, source),
    }
    notes = []
    for note, step in steps.items():
        if (shorter := step(text).strip()) != text:
            notes.append(note)
            text = shorter
    return " ".join(text.split()), tuple(notes)


def _without_wrapping(text: str, source: str) -> str:
    """The text without marks of chats, JSON and fences around it, unless the source has such things too."""
    shorter, flags = unwrap(text)
    return shorter if "unwrapped" in flags and unwrap(source)[0] == source else text


def _without_preamble(text: str, source: str, target: str) -> str:
    """The text without remarks that neither the source contains nor the translation may."""
    if "\n" not in source:
        text = _NOTES.sub("", text) or text
    if target.split("-")[0] != "en" and without_remarks(source) == source:
        text = without_chatter(without_remarks(text), source)
    label = re.compile(rf"(?:translation|{re.escape(_english_name(target))}(?: translation)?) ?: ?", re.IGNORECASE)
    match = label.match(text)
    return text[match.end() :] or text if match and not label.search(source) else text


def _without_echo(text: str, source: str) -> str:
    """The text without the source before or after it. An answer that is only the source stays: it is flagged as copied.

    Between the two there must be a line break, or a sign with a space before it, and the source must not be short: `T`
    and `T-Shirt` are not an echo.
    """
    if len(source) < MIN_ECHO or text == source:
        return text
    echo = rf"[\"“«]?{re.escape(source)}[\"”»]?"
    before = re.match(rf"{echo}(?:[\n:]| [{_SIGNS}])[ \n{_SIGNS}]*", text)
    after = re.search(rf"(?:\n| [{_SIGNS}]+ ?){echo}$|\({re.escape(source)}\)$", text)
    return (text[before.end() :] if before else text[: after.start()].rstrip() if after else text) or text


def _without_quotes(text: str) -> str:
    quoted = len(text) > 2 and _QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1]
    return text[1:-1] if quoted else text
