"""What a translator is, and what it returns.

A translator is data: it is pickled to Beam's workers, and each opens a backend there, which does the work.
"""

import asyncio
import concurrent.futures
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pipeline.engine.stage import Rows, Run
from pipeline.translation.sentences import join, split

GIVEN_ORIGIN = "mt"  # the origin of captions that somebody else translated


@dataclasses.dataclass(frozen=True)
class Translated:
    """The translation of a segment.

    Attributes:
        text: The translation.
        finished: False where the decoder reached its length limit.
        notes: Flags for the row: what was removed from a chat model's answer.
    """

    text: str
    finished: bool = True
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Untranslated:
    """Why a segment has no translation.

    Attributes:
        kind: `engine` where an engine in this process failed, else the failure of the request to the server.
        message: The error's message.
        attempts: How often it was tried.
    """

    kind: str
    message: str
    attempts: int = 1


Result = Translated | Untranslated
OnResults = Callable[[dict[str, Result]], None]  # takes results by segment as soon as they are available


def join_results(parts: Sequence[tuple[Result, str]], target: str) -> Result:
    """Join the results of a text's segments: failed where one of them is, unfinished where one is.

    Args:
        parts: (result, whitespace after the segment).
        target: BCP 47 tag.
    """
    translated = []
    for result, gap in parts:
        if isinstance(result, Untranslated):
            return result
        translated.append((result, gap))
    text = join([(result.text, gap) for result, gap in translated], target)
    notes = sorted({note for result, _ in translated for note in result.notes})
    return Translated(text, all(result.finished for result, _ in translated), tuple(notes))


class Backend(Protocol):
    """A translator at work in one process.

    `exclusive`: it uses all processors of this machine, so only one call runs at a time.
    """

    exclusive: bool

    def segments(self, text: str, language: str) -> list[tuple[str, str]]:
        """The parts of a text that are translated one by one, each with the whitespace after it."""

    async def translate(self, segments: Sequence[str], source: str, target: str, on_results: OnResults) -> None:
        """Pass the result of every segment to `on_results` as it comes. `segments` are distinct, sorted by length."""

    async def close(self) -> None:
        """End threads and connections."""


class Translator(Protocol):
    """Who translates. The properties are recorded in every row and in the settings."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def revision(self) -> str:
        """Which version of the model."""

    @property
    def license(self) -> str:
        """Licence of the model, and so of its translations; "" where unknown."""

    @property
    def decoding(self) -> dict[str, Any]:
        """How translations are decoded, as JSON. Decides, with name and revision, what is cached."""

    def open(self, run: Run) -> Backend:
        """Start working in this process. Called within its event loop."""


class Engine(Protocol):
    """A model loaded in this process. Called by one thread at a time; blocks."""

    def translate(self, sentences: Sequence[str], source: str, target: str) -> list[Result]:
        """One result per sentence, in order: a pure function of the list.

        Any text may come, including empty ones and ones with control characters or lone surrogates.
        """


class LocalBackend:
    """An engine in this process, loaded when it is first needed and called in a thread of its own."""

    exclusive = True

    def __init__(self, load: Callable[[], Engine], batch_segments: int):
        """Prepare the backend.

        Args:
            load: Loads the engine.
            batch_segments: Segments per call: what is lost if the run is killed, and how long a stop request waits.
        """
        self._load, self._batch_segments = load, batch_segments
        self._engine: Engine | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "translate")

    def segments(self, text: str, language: str) -> list[tuple[str, str]]:
        """The sentences of the text."""
        return split(text, language)

    async def translate(self, segments: Sequence[str], source: str, target: str, on_results: OnResults) -> None:
        """Translate batch by batch; see Backend."""
        for start in range(0, len(segments), self._batch_segments):
            batch = segments[start : start + self._batch_segments]
            loop = asyncio.get_running_loop()
            results = await loop.run_in_executor(self._thread, self._translate, batch, source, target)
            on_results(dict(zip(batch, results, strict=True)))

    def _translate(self, batch: Sequence[str], source: str, target: str) -> list[Result]:
        if self._engine is None:
            self._engine = self._load()
        return self._engine.translate(batch, source, target)

    async def close(self) -> None:
        """Give up the batches that have not started."""
        self._thread.shutdown(wait=False, cancel_futures=True)


@dataclasses.dataclass(frozen=True)
class GivenTranslator:
    """`--translator given`: stands for whoever translated the captions of origin `mt` that came with the input.

    Caption `ITEM#de#3` of origin `mt` is the German translation of `ITEM#en#3`. No model is asked.
    """

    license: str = ""

    name = "given"
    revision = ""

    @property
    def decoding(self) -> dict[str, Any]:
        """Recorded in every row."""
        return {"engine": "given"}


def translated_id(caption_id: str, item_id: str, language: str) -> str:
    """The id of a caption's translation in table `captions`: that of `language` with the same number.

    >>> translated_id("cat.jpg#en#3", "cat.jpg", "de")
    'cat.jpg#de#3'
    """
    return f"{item_id}#{language}#{caption_id.rpartition('#')[2]}"


def given_texts(captions: Rows) -> dict[str, str]:
    """The captions that somebody else translated, by caption_id."""
    return {row["caption_id"]: row["text"] for row in captions if row["origin"] == GIVEN_ORIGIN}
