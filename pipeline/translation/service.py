"""Translates whole texts: cut into segments, those that the cache lacks translated, and joined again.

Distinct segments are translated once, sorted by length: large even batches, and the same ones in every run. A segment
is cached as soon as its batch is done, so a killed run pays for one batch again.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from pipeline.captioning.response_cache import ResponseCache
from pipeline.engine.stage import Progress, Run
from pipeline.hashing import canonical_json, short_hash
from pipeline.translation.translator import Backend, Result, Translated, Translator, join_results

Advance = Callable[[float], None]  # takes the share that is done


class TranslationService:
    """All translators of one process, and the cache between them and the stage."""

    def __init__(self, run: Run, progress: Progress):
        self._run, self._progress = run, progress
        self._cache = ResponseCache(run.cache)
        self._backends: dict[str, Backend] = {}  # one may serve several languages, and the way back
        self._pending: dict[str, asyncio.Future[Result | None]] = {}  # by cache key
        self._exclusive = asyncio.Lock()

    async def translate(
        self, translator: Translator, texts: Collection[str], source: str, target: str, advance: Advance
    ) -> dict[str, Result]:
        """Translate texts.

        Args:
            translator: Who translates.
            texts: The texts; each distinct one is translated once.
            source: Their language, BCP 47.
            target: The language to translate into, BCP 47.
            advance: Called with the share that is done.

        Returns:
            The result by text.
        """
        identity = [translator.name, translator.revision, translator.decoding]
        backend = self._backend(translator, canonical_json(identity))
        parts = {text: backend.segments(text, source) for text in sorted(set(texts))}
        keys = {
            segment: short_hash(canonical_json(["translate", *identity, source, target, segment]))
            for text in parts
            for segment, _ in parts[text]
        }
        results: dict[str, Result] = {}

        def on_results(new: dict[str, Result]) -> None:
            self._store(keys, new)  # before anything else is sent: what is answered is not paid for again
            results.update(new)
            advance(len(results) / len(keys))

        while missing := keys.keys() - results.keys():
            results |= self._cached({segment: keys[segment] for segment in missing})
            uncached = sorted(missing - results.keys(), key=lambda segment: (len(segment), segment))
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

    def _backend(self, translator: Translator, identity: str) -> Backend:
        if identity not in self._backends:
            self._backends[identity] = translator.open(self._run)
        return self._backends[identity]

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

    def _cached(self, keys: dict[str, str]) -> dict[str, Result]:
        results: dict[str, Result] = {}
        for segment, key in keys.items():
            if (stored := self._cache.get(key)) is not None:
                results[segment] = Translated(stored["text"], stored["finished"], tuple(stored["notes"]))
        self._progress.counts["from_cache"] += len(results)
        return results

    def _store(self, keys: dict[str, str], results: dict[str, Result]) -> None:
        """Cache translations and hand them to those who wait. Failures are not cached: the next run tries again."""
        self._cache.put(
            (keys[segment], dataclasses.asdict(result))
            for segment, result in results.items()
            if isinstance(result, Translated)
        )
        for segment, result in results.items():
            self._pending[keys[segment]].set_result(result)
        self._progress.counts["requests"] += len(results)

    async def close(self) -> None:
        """End the backends and close the cache."""
        for backend in self._backends.values():
            await backend.close()
        self._cache.close()
