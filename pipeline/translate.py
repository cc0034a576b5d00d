"""`--stage translate`: translate English texts into every target language, measure each pair, write `translations`.

    captions or descriptions of a shard → distinct texts → segments → not yet in the cache → translator → joined again
    → scores and flags of each pair → translations

A shard is translated as a whole, its segments sorted by length: large even batches, and the same ones in every run.
A segment goes into the cache when its batch is done, so a killed run pays for one batch again.
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pipeline.cache import ResponseCache
from pipeline.captioning.captioners import MllmCaptioner
from pipeline.identity import canonical_json, short_hash
from pipeline.quality.rules import thresholds
from pipeline.quality.scores import Judge, Pair, Verdict
from pipeline.runstate import Progress
from pipeline.stage import Failure, Outcome, Rows, Run, ShardTask, Stage
from pipeline.translation.engines import Result, Translated, Translator, Untranslated
from pipeline.translation.llm import LlmTranslator
from pipeline.translation.sentences import join
from pipeline.translation.speakers import Speaker, open_speaker

SHARDS_AHEAD = 2  # one is measured while the next is translated


@dataclasses.dataclass(frozen=True)
class Translate(Stage):
    """Settings of the stage: which texts, who translates them into each language, and how pairs are measured."""

    text: tuple[str, ...]  # tables: captions, descriptions
    source_language: str
    translators: Mapping[str, Translator]  # by target language
    encoders: Mapping[str, str]  # of sentences, by target language; "" for none
    back: Mapping[str, Translator]  # for the round trip, by target language; empty for none
    texts_per_item: float = 1.0  # an estimate, for the failure budget

    name = "translate"
    tables = ("translations",)

    @property
    def parents(self) -> tuple[str, ...]:
        return ("items", *self.text)

    @property
    def records_per_item(self) -> float:
        return self.texts_per_item * len(self.translators)

    @property
    def targets(self) -> list[str]:
        return sorted(self.translators)

    def translates(self, language: str) -> bool:
        """Whether texts of this language are translated: `en-GB` is English, too."""
        return language.split("-")[0].lower() == self.source_language.split("-")[0].lower()

    def settings(self) -> dict[str, Any]:
        return {
            "text": list(self.text),
            "source_language": self.source_language,
            "translators": {target: _told(self.translators[target]) for target in self.targets},
            "back": {target: _told(self.back[target]) for target in sorted(self.back)},
            "encoders": {target: self.encoders[target] for target in self.targets},
            "thresholds": {target: thresholds(target, self.encoders[target] or None) for target in self.targets},
        }

    @property
    def server(self) -> MllmCaptioner | None:
        return next((t.server for t in self.translators.values() if isinstance(t, LlmTranslator)), None)

    def asking(self, server: MllmCaptioner) -> Self:
        translators, back = (
            {
                target: dataclasses.replace(t, server=server) if isinstance(t, LlmTranslator) else t
                for target, t in by.items()
            }
            for by in (self.translators, self.back)
        )
        return dataclasses.replace(self, translators=translators, back=back)

    async def open(self, run: Run, progress: Progress) -> "TranslateWorker":
        return TranslateWorker(self, run, progress)


def _told(translator: Translator) -> dict[str, Any]:
    return {
        "name": translator.name,
        "revision": translator.revision,
        "license": translator.license,
        "decoding": translator.decoding,
    }


@dataclasses.dataclass
class _Job:
    """One text to be translated into one language, and what becomes of it."""

    text: dict[str, Any]
    target: str
    result: Result | None = None
    back: str | None = None
    verdict: Verdict | None = None


class TranslateWorker:
    """Translates shard by shard; one thread translates, one measures, the event loop keeps the books."""

    def __init__(self, stage: Translate, run: Run, progress: Progress):
        self.ahead = SHARDS_AHEAD
        self._stage, self._run, self._progress = stage, run, progress
        self._cache = ResponseCache(Path(run.cache))
        self._judge = Judge(stage.encoders, [stage.source_language, *stage.targets])
        self._measuring = concurrent.futures.ThreadPoolExecutor(1, "quality")
        self._speakers: dict[str, Speaker] = {}  # one may serve several languages, and the way back
        self._turn = asyncio.Lock()

    async def shard(self, task: ShardTask) -> list[Outcome]:
        texts = {row["item_id"]: self._texts(task.joined.get(row["item_id"], {})) for row in task.rows}
        kept = {item_id: _kept(texts[item_id], task.kept.get(item_id, {})) for item_id in texts}
        jobs = [
            _Job(text, target)
            for item_id in texts
            for text in texts[item_id]
            for target in self._stage.targets
            if (text["caption_id"], target) not in kept[item_id]
        ]
        async with self._turn:  # the segments of one shard fill the batches; two would only compete
            await self._translate(jobs, len(task.rows))
        await self._measure(jobs)
        made = {(job.text["item_id"], job.text["caption_id"], job.target): job for job in jobs}
        return [self._outcome(row["item_id"], texts[row["item_id"]], kept[row["item_id"]], made) for row in task.rows]

    def _texts(self, joined: dict[str, Rows]) -> Rows:
        """The item's texts in the source language, as `caption_id, item_id, source_table, language, text`."""
        return [
            {
                "caption_id": row["caption_id"] if table == "captions" else f"{row['item_id']}#{row['view']}",
                "item_id": row["item_id"],
                "source_table": table,
                "source_language": row["language"],
                "source_text": row["text"],
            }
            for table in self._stage.text
            for row in joined.get(table, ())
            if self._stage.translates(row["language"])
        ]

    async def _translate(self, jobs: Sequence[_Job], num_items: int) -> None:
        """Fill in the jobs' results, and their texts translated back where the stage asks for it."""
        stage = self._stage
        steps = [(stage.translators[target], target, False) for target in stage.targets]
        steps += [(stage.back[target], target, True) for target in sorted(stage.back)]
        with self._counting(num_items, len(steps)) as advance:
            for number, (translator, target, back) in enumerate(steps):
                here = [job for job in jobs if job.target == target]
                source = stage.source_language
                if not back:
                    results = await self._results(
                        translator, {job.text["source_text"] for job in here}, source, target, number, advance
                    )
                    for job in here:
                        job.result = results[job.text["source_text"]]
                    continue
                made = {job.result.text for job in here if isinstance(job.result, Translated)}
                results = await self._results(translator, made, target, source, number, advance)
                for job in here:
                    returned = results[job.result.text] if isinstance(job.result, Translated) else None
                    job.back = returned.text if isinstance(returned, Translated) else None

    @contextlib.contextmanager
    def _counting(self, num_items: int, num_steps: int) -> Iterator[Any]:
        """Tells the progress in items: the shard's, in proportion to the segments done."""
        told = 0

        def advance(step: int, share: float) -> None:
            nonlocal told
            done = int(num_items * (step + share) / num_steps)
            self._progress.counts["items"] += done - told
            told = done

        yield advance
        advance(num_steps, 0.0)

    async def _results(
        self, translator: Translator, texts: set[str], source: str, target: str, step: int, advance: Any
    ) -> dict[str, Result]:
        """The translation of each of the distinct texts."""
        speaker = self._speaker(translator)
        parts = {text: speaker.segments(text, source) for text in sorted(texts)}
        keys = {segment: self._key(translator, source, target, segment) for text in parts for segment, _ in parts[text]}
        found: dict[str, Result] = {}
        for segment, key in keys.items():
            if (stored := self._cache.get(key)) is not None:
                found[segment] = Translated(stored["text"], stored["finished"], tuple(stored["notes"]))
        self._progress.counts["from_cache"] += len(found)
        missing = sorted(keys.keys() - found.keys(), key=lambda segment: (len(segment), segment))
        async for made in speaker.translate(missing, source, target):
            self._cache.put_all(
                (keys[segment], dataclasses.asdict(result))
                for segment, result in made.items()
                if isinstance(result, Translated)
            )
            found.update(made)
            self._progress.counts["requests"] += len(made)
            advance(step, len(found) / len(keys))
        return {text: _joined([(found[segment], gap) for segment, gap in parts[text]], target) for text in parts}

    def _speaker(self, translator: Translator) -> Speaker:
        made_by = canonical_json([translator.name, translator.revision, translator.decoding])
        if made_by not in self._speakers:
            self._speakers[made_by] = open_speaker(translator, self._run)
        return self._speakers[made_by]

    def _key(self, translator: Translator, source: str, target: str, segment: str) -> str:
        made_by = [translator.name, translator.revision, translator.decoding]
        return short_hash(canonical_json(["translate", *made_by, source, target, segment]))

    async def _measure(self, jobs: Sequence[_Job]) -> None:
        translated = [job for job in jobs if isinstance(job.result, Translated)]
        pairs = [
            Pair(
                job.text["source_text"],
                job.result.text,
                self._stage.source_language,
                job.target,
                job.result.finished,
                job.back,
            )
            for job in translated
            if isinstance(job.result, Translated)
        ]
        verdicts = await asyncio.get_running_loop().run_in_executor(self._measuring, self._judge.judge, pairs)
        for job, verdict in zip(translated, verdicts, strict=True):
            job.verdict = verdict

    def _outcome(
        self,
        item_id: str,
        texts: Rows,
        kept: dict[tuple[str, str], dict[str, Any]],
        made: dict[tuple[str, str, str], _Job],
    ) -> Outcome:
        rows, failures = [], []
        for text in texts:
            for target in self._stage.targets:
                if old := kept.get((text["caption_id"], target)):
                    rows.append(old)
                    continue
                job = made[item_id, text["caption_id"], target]
                if isinstance(job.result, Untranslated):
                    told = job.result
                    failures.append(
                        Failure(text["caption_id"], told.kind, told.message, told.attempts, language=target)
                    )
                else:
                    rows.append(self._row(job))
        return Outcome({"translations": rows}, failures)

    def _row(self, job: _Job) -> dict[str, Any]:
        translator = self._stage.translators[job.target]
        assert isinstance(job.result, Translated) and job.verdict is not None
        return {
            **job.text,
            "target_language": job.target,
            "text": job.result.text,
            "translator": translator.name,
            "revision": translator.revision,
            "decoding": canonical_json(translator.decoding),
            "scores": job.verdict.scores,
            "flags": sorted({*job.verdict.flags, *job.result.notes}),
        }

    async def close(self) -> None:
        self._measuring.shutdown(wait=False, cancel_futures=True)
        for speaker in self._speakers.values():
            await speaker.close()
        self._cache.close()


def _kept(texts: Rows, kept: dict[str, Rows]) -> dict[tuple[str, str], dict[str, Any]]:
    """Translations of an earlier run whose source is still the same, by caption and target language."""
    sources = {text["caption_id"]: (text["source_text"], text["source_language"]) for text in texts}
    return {
        (row["caption_id"], row["target_language"]): row
        for row in kept.get("translations", ())
        if sources.get(row["caption_id"]) == (row["source_text"], row["source_language"])
    }


def _joined(parts: Sequence[tuple[Result, str]], target: str) -> Result:
    """The translation of a text of several segments: failed where one of them is, unfinished where one is."""
    for result, _ in parts:
        if isinstance(result, Untranslated):
            return result
    done = [(result, gap) for result, gap in parts if isinstance(result, Translated)]
    notes = collections.Counter(note for result, _ in done for note in result.notes)
    text = join([(result.text, gap) for result, gap in done], target)
    return Translated(text, all(result.finished for result, _ in done), tuple(sorted(notes)))
