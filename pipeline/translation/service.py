"""Texts translated as a whole: cut into segments, those that the cache lacks translated, and joined again.

Distinct segments are translated once, sorted by length: large even batches, and the same ones in every run. A segment
goes into the cache as soon as its batch is done, so a killed run pays for one batch again.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path

from pipeline.captioning.response_cache import ResponseCache
from pipeline.engine.run_state import Progress
from pipeline.engine.stage import Run
from pipeline.hashing import canonical_json, short_hash
from pipeline.translation.sentences import join
from pipeline.translation.speakers import Speaker, open_speaker
from pipeline.translation.translator import Result, Translated, Translator, Untranslated

Advance = Callable[[float], None]  # takes the share that is done


class Texts:
    """All translators of one process, and the cache between them and the stage."""

    def __init__(self, run: Run, progress: Progress):
        self._run, self._progress = run, progress
        self._cache = ResponseCache(Path(run.cache))
        self._speakers: dict[str, Speaker] = {}  # one may serve several languages, and the way back
        self._asked: dict[str, asyncio.Future[Result | None]] = {}  # by cache key
        self._turn = asyncio.Lock()

    async def translate(
        self, translator: Translator, texts: Collection[str], source: str, target: str, advance: Advance
    ) -> dict[str, Result]:
        """By text, its translation from `source` into `target` (BCP 47)."""
        speaker = self._speaker(translator)
        parts = {text: speaker.segments(text, source) for text in sorted(set(texts))}
        keys = {segment: self._key(translator, source, target, segment) for text in parts for segment, _ in parts[text]}
        found: dict[str, Result] = {}

        def made(results: dict[str, Result]) -> None:
            self._remember(keys, results)  # before anything else is sent: what is answered is not paid for again
            found.update(results)
            advance(len(found) / len(keys))

        while lacking := keys.keys() - found.keys():
            found |= self._remembered({segment: keys[segment] for segment in lacking})
            missing = sorted(lacking - found.keys(), key=lambda segment: (len(segment), segment))
            others = {segment: self._asked[keys[segment]] for segment in missing if keys[segment] in self._asked}
            ours = [segment for segment in missing if segment not in others]
            # Engines in this process would compete for its processors; servers serve languages and shards at once.
            turn = self._turn if speaker.alone else contextlib.nullcontext()
            async with self._asking([keys[segment] for segment in ours]), turn:
                await speaker.translate(ours, source, target, made)
            for segment, asked in others.items():
                if result := await asked:
                    found[segment] = result
        return {text: joined([(found[segment], gap) for segment, gap in parts[text]], target) for text in parts}

    @contextlib.asynccontextmanager
    async def _asking(self, keys: Sequence[str]) -> AsyncIterator[None]:
        """While segments are asked for, others that want them wait for the answer. None: it was given up."""
        loop = asyncio.get_running_loop()
        asked: dict[str, asyncio.Future[Result | None]] = {key: loop.create_future() for key in keys}
        self._asked |= asked
        try:
            yield
        finally:
            for key, future in asked.items():
                del self._asked[key]
                if not future.done():
                    future.set_result(None)

    def _speaker(self, translator: Translator) -> Speaker:
        made_by = canonical_json([translator.name, translator.revision, translator.decoding])
        if made_by not in self._speakers:
            self._speakers[made_by] = open_speaker(translator, self._run)
        return self._speakers[made_by]

    def _key(self, translator: Translator, source: str, target: str, segment: str) -> str:
        made_by = [translator.name, translator.revision, translator.decoding]
        return short_hash(canonical_json(["translate", *made_by, source, target, segment]))

    def _remembered(self, keys: dict[str, str]) -> dict[str, Result]:
        found: dict[str, Result] = {}
        for segment, key in keys.items():
            if (stored := self._cache.get(key)) is not None:
                found[segment] = Translated(stored["text"], stored["finished"], tuple(stored["notes"]))
        self._progress.counts["from_cache"] += len(found)
        return found

    def _remember(self, keys: dict[str, str], made: dict[str, Result]) -> None:
        """Failures are not kept: they are tried again by the next run."""
        done = {keys[segment]: result for segment, result in made.items() if isinstance(result, Translated)}
        self._cache.put_all((key, dataclasses.asdict(result)) for key, result in done.items())
        for segment, result in made.items():
            self._asked[keys[segment]].set_result(result)
        self._progress.counts["requests"] += len(made)

    async def close(self) -> None:
        for speaker in self._speakers.values():
            await speaker.close()
        self._cache.close()


def joined(parts: Sequence[tuple[Result, str]], target: str) -> Result:
    """The translation of a text of several segments: failed where one of them is, unfinished where one is."""
    done = []
    for result, gap in parts:
        if isinstance(result, Untranslated):
            return result
        done.append((result, gap))
    text = join([(result.text, gap) for result, gap in done], target)
    notes = sorted({note for result, _ in done for note in result.notes})
    return Translated(text, all(result.finished for result, _ in done), tuple(notes))
