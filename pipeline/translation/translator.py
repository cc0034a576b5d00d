"""What a translator is, and the service that translates whole texts with one.

A translator is data: it is pickled to Beam's workers, and each opens a backend there, which does the work.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any, ClassVar, Protocol

from pipeline.captioning.response_cache import ResponseCache
from pipeline.engine.stage import Progress, Run
from pipeline.hashing import canonical_json, short_hash
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


@dataclasses.dataclass(frozen=True)
class Translator:
    """Who translates. What `identity` returns is recorded in every row and in the settings.

    Attributes:
        name: Name of the model.
        revision: Which version of the model.
        license: Licence of the model, and so of its translations; "" where unknown.
        decoding: How translations are decoded, as JSON. Decides, with name and revision, what is cached.
        packages: Packages whose versions decide its translations.
    """

    name: str
    revision: str
    license: str
    decoding: dict[str, Any]

    packages: ClassVar[tuple[str, ...]] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides its translations, as JSON."""
        return {"name": self.name, "revision": self.revision, "license": self.license, "decoding": self.decoding}

    def open(self, run: Run) -> Backend:
        """Start working in this process. Called within its event loop."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class GivenTranslator(Translator):
    """`--translator given`: stands for whoever translated the captions of origin `mt` that came with the input.

    Caption `ITEM#de#3` of origin `mt` is the German translation of `ITEM#en#3`. No model is asked.
    """


def translated_id(caption_id: str, item_id: str, language: str) -> str:
    """The id of a caption's translation in table `captions`: that of `language` with the same number.

    >>> translated_id("cat.jpg#en#3", "cat.jpg", "de")
    'cat.jpg#de#3'
    """
    return f"{item_id}#{language}#{caption_id.rpartition('#')[2]}"


class Engine(Protocol):
    """A model loaded in this process. Called by one thread at a time; blocks."""

    def translate(self, sentences: Sequence[str], source: str, target: str) -> list[Result]:
        """One result per sentence, in order: a pure function of the list.

        Any text may come, including empty ones and ones with control characters or lone surrogates.
        """


def translate_texts(engine: Engine, texts: Sequence[str], source: str, target: str) -> list[str]:
    """Translate texts with an engine in this process; a text that cannot be translated stays as it is.

    Args:
        engine: The engine.
        texts: The texts.
        source: Their language, BCP 47.
        target: The language to translate into, BCP 47.
    """
    parts = [split(text, source) for text in texts]
    segments = sorted({segment for text in parts for segment, _ in text}, key=lambda segment: (len(segment), segment))
    results = dict(zip(segments, engine.translate(segments, source, target), strict=True))
    joined = [join_results([(results[segment], gap) for segment, gap in text], target) for text in parts]
    return [result.text if isinstance(result, Translated) else text for text, result in zip(texts, joined, strict=True)]


class LocalBackend:
    """An engine in this process, loaded when it is first needed and called in a thread of its own."""

    exclusive = True

    def __init__(self, load: Callable[[], Engine], batch_segments: int):
        """Prepare the backend.

        Args:
            load: Loads the engine.
            batch_segments: Segments per call: what is lost if the run is killed, and how long a stop request waits.
        """
        self._load, self._batch_segments = functools.cache(load), batch_segments
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
        return self._load().translate(batch, source, target)

    async def close(self) -> None:
        """Give up the batches that have not started."""
        self._thread.shutdown(wait=False, cancel_futures=True)


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


class TranslationService:
    """All translators of one process, and the cache between them and the stage.

    Distinct segments are translated once, sorted by length: large even batches, and the same ones in every run. A
    segment is cached as soon as its batch is done, so a killed run pays for one batch again.
    """

    def __init__(self, run: Run, progress: Progress):
        self._run, self._progress = run, progress
        self._cache = ResponseCache(run.cache, run.answers)
        self._backends: dict[str, Backend] = {}  # one may serve several languages, and the way back
        self._pending: dict[str, asyncio.Future[Result | None]] = {}  # keyed like the cache
        self._exclusive = asyncio.Lock()

    async def translate(
        self,
        translator: Translator,
        texts: Collection[str],
        source: str,
        target: str,
        advance: Callable[[float], None] = lambda share: None,
    ) -> dict[str, Result]:
        """Translate texts.

        Args:
            translator: Who translates.
            texts: The texts; each distinct one is translated once.
            source: Their language, BCP 47.
            target: The language to translate into, BCP 47.
            advance: Called with the share of the work that each answer of a translator completes.

        Returns:
            The result by text.
        """
        identity = [translator.name, translator.revision, translator.decoding]
        name = canonical_json(identity)
        if name not in self._backends:
            self._backends[name] = translator.open(self._run)
        backend = self._backends[name]
        parts = {text: backend.segments(text, source) for text in sorted(set(texts))}
        keys = {
            segment: short_hash(canonical_json(["translate", *identity, source, target, segment]))
            for text in parts
            for segment, _ in parts[text]
        }
        results: dict[str, Result] = {}

        def on_results(new: dict[str, Result]) -> None:
            # Before anything else is sent: what is answered is not paid for again. Failures are tried by the next run.
            translated = [(keys[part], result) for part, result in new.items() if isinstance(result, Translated)]
            self._cache.put((key, dataclasses.asdict(result)) for key, result in translated)
            for segment, result in new.items():
                self._pending[keys[segment]].set_result(result)
            self._progress.counts["requests"] += len(new)
            results.update(new)
            advance(len(new) / len(keys))

        while missing := keys.keys() - results.keys():
            for segment in missing:
                if (stored := self._cache.get(keys[segment])) is not None:
                    results[segment] = Translated(stored["text"], stored["finished"], tuple(stored["notes"]))
            uncached = sorted(missing - results.keys(), key=lambda segment: (len(segment), segment))
            self._progress.counts["from_cache"] += len(missing) - len(uncached)
            # Segments that another shard is already waiting for are not requested twice.
            others = {segment: self._pending[keys[segment]] for segment in uncached if keys[segment] in self._pending}
            own = [segment for segment in uncached if segment not in others]
            # Engines in this process would compete for its processors; servers serve languages and shards at once.
            turn = self._exclusive if backend.exclusive else contextlib.nullcontext()
            async with self._requesting([keys[segment] for segment in own]), turn:
                await backend.translate(own, source, target, on_results)
            for segment, future in others.items():
                if result := await future:
                    results[segment] = result
        return {text: join_results([(results[part], gap) for part, gap in parts[text]], target) for text in parts}

    @contextlib.asynccontextmanager
    async def _requesting(self, keys: Sequence[str]) -> AsyncIterator[None]:
        """Let others wait for these results meanwhile. They get None for what was given up, and request it."""
        loop = asyncio.get_running_loop()
        futures: dict[str, asyncio.Future[Result | None]] = {key: loop.create_future() for key in keys}
        self._pending |= futures
        try:
            yield
        finally:
            for key, future in futures.items():
                del self._pending[key]
                if not future.done():
                    future.set_result(None)

    async def close(self) -> None:
        """End the backends and close the cache."""
        for backend in self._backends.values():
            await backend.close()
        self._cache.close()
