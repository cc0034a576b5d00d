"""`--stage captions`: describe every item from several views, write `descriptions`.

    items → read and check the bytes → frames, shrunk → one question per view → judged → descriptions

An answer goes into the response cache before its request counts as done, so a killed run pays for no answer twice.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import importlib.util
import itertools
import tempfile
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pipeline.captioning.batch import BatchWriter, read_results
from pipeline.captioning.captioners import (
    URL_VARIABLE,
    Captioner,
    EmbeddedCaptioner,
    MllmCaptioner,
    MllmSpeaker,
    Sampling,
    ServerOptions,
    Speaker,
    batch_captioner,
    choose_captioner,
    question,
    served,
)
from pipeline.captioning.chat_client import Media, RequestFailed
from pipeline.captioning.cleaning import Description, bounded, clean
from pipeline.captioning.prompts import DEFAULT_VIEWS, Answer, View, parse_views
from pipeline.captioning.response_cache import FLUSH_S, ResponseCache
from pipeline.corpus.schema import DescriptionRow, ItemRow
from pipeline.corpus.table import Table, cache_folder
from pipeline.engine.run_state import locked
from pipeline.engine.stage import Failure, Outcome, Progress, Rows, Run, Say, Stage
from pipeline.errors import MediaError
from pipeline.hashing import canonical_json, short_hash, stream_hash
from pipeline.media.images import Limits, open_media
from pipeline.media.uri import MediaThreads
from pipeline.options import option, read_options
from pipeline.sources import all_items
from stages.driver import RunOptions, run_stages, say
from stages.ingest import Ingest, IngestOptions, check_input, open_ingest, plan_row

Reply = tuple[list[float], Answer | Failure]
"""Times of the frames shown, in seconds (none for an image), and what came of the question."""

OBJECTS_PER_SHARD = 7  # in an object store: plan and stamps, items, captions, descriptions, and two sidecars
LISTS = 13  # for each 1,000 shards: sidecars and tables, when a run starts and when it ends


@dataclasses.dataclass(frozen=True)
class FrameOptions:
    """How much of a video is used, by --stage captions and --stage pack."""

    frames: int = option(8, "frames of a video, uniform in time, that captions and pack use", at_least=1)


@dataclasses.dataclass(frozen=True)
class CaptionsOptions:
    """Who describes the items, from which views, at which size."""

    captioner: str = option(
        "auto",
        f"auto: the server of --mllm-url or ${URL_VARIABLE}, else vLLM if a CUDA device and vLLM are available, "
        "else the embedded describer",
        choices=("auto", "vllm", "embedded"),
    )
    views: str = option(DEFAULT_VIEWS, "names of views, or .yaml files that define views")
    max_pixels: int = option(768 * 768, "pictures are shrunk to this area in pixels", at_least=32 * 32)
    batch_export: Path | None = option(
        None, "describe nothing: write the requests of what is missing to files for a batch service", metavar="DIR"
    )
    batch_import: Path | None = option(
        None, "take answers from a batch service's results: a file, or a folder of .jsonl files", metavar="PATH"
    )
    dry_run: int | None = option(
        None, "describe N items, print prompts, answers and what all items would take, and write nothing", at_least=1
    )


@dataclasses.dataclass(frozen=True)
class Captions(Stage):
    """Settings of the stage: who describes, from which views, and how much of an item is shown."""

    captioner: Captioner
    views: tuple[View, ...]
    sampling: Sampling = dataclasses.field(default_factory=Sampling)

    name = "captions"
    tables = ("descriptions",)
    parents = ("items",)

    @property
    def records_per_item(self) -> int:
        """One per view."""
        return len(self.views)

    def settings(self) -> dict[str, Any]:
        """Everything that decides a description, apart from the item."""
        return {
            "captioner": self.captioner.name,
            "revision": self.captioner.revision,
            "views": {view.name: view.settings() for view in self.views},
            "max_pixels": self.sampling.max_pixels,
            "num_frames": self.sampling.count,
            **self.captioner.extras.settings(),
        }

    def decoding(self, view: View, media_type: str) -> str:
        """Everything that decides an answer, apart from model, prompt and content, as canonical JSON."""
        frames = {"num_frames": self.sampling.count} if media_type == "video" else {}
        limits = {"max_tokens": view.max_tokens, "temperature": view.temperature}
        extras = self.captioner.extras.settings()
        return canonical_json({"max_pixels": self.sampling.max_pixels, **limits, **frames, **extras})

    @contextlib.contextmanager
    def ready(self, corpus: Path, say: Say) -> Iterator[Self]:
        """The stage with a server for its model, which is started if none is given."""
        with served(self.captioner, corpus, say) as captioner:
            yield dataclasses.replace(self, captioner=captioner)

    async def open(self, run: Run, progress: Progress) -> "CaptionsWorker":
        """Connect to the model and to the response cache."""
        cache = ResponseCache(run.cache, run.answers)
        if isinstance(self.captioner, MllmCaptioner):
            # Loading the language models stops every thread for seconds: before any request waits, or it times out.
            for language in {view.answer_language for view in self.views}:
                clean("Two dogs run along a sandy beach.", "stop", "", language)
        speaker = await self.captioner.open(run, self.sampling, len(self.views))
        return CaptionsWorker(self, speaker, cache, progress)


def main(parsed: argparse.Namespace, beam_arguments: list[str]) -> int:
    """Run the stage, after stage ingest if needed; returns the exit status."""
    run, options = read_options(RunOptions, parsed), read_options(CaptionsOptions, parsed)
    corpus, views, ingest_options = run.corpus, parse_views(options.views), read_options(IngestOptions, parsed)
    check_input(ingest_options, corpus)
    servers, cache = read_options(ServerOptions, parsed), run.cache or cache_folder(corpus)
    if options.batch_export or (options.batch_import and not servers.mllm_url):
        captioner: Captioner = batch_captioner(servers)
    else:
        captioner = choose_captioner(options.captioner, servers, views, say)
    if isinstance(captioner, MllmCaptioner) and importlib.util.find_spec("lingua") is None:
        say("note: only the script of answers is checked, not their language: pip install 'leccr[quality]'")

    def open_stages() -> tuple[Ingest, Captions]:
        ingest = open_ingest(ingest_options, corpus, strict=run.overwrite)
        limits = Limits(max_source_pixels=ingest.max_source_pixels)
        sampling = Sampling(options.max_pixels, read_options(FrameOptions, parsed).frames, limits)
        return ingest, Captions(captioner, views, sampling)

    if options.batch_export:
        status = run_stages(dataclasses.replace(run, overwrite=False), beam_arguments, lambda: [open_stages()[0]])
        asyncio.run(export_requests(open_stages()[1], corpus, cache, options.batch_export))
        return status
    if options.batch_import:
        import_answers(options.batch_import, cache)
    if not options.dry_run:
        return run_stages(run, beam_arguments, lambda: list(open_stages()))
    ingest, stage = open_stages()
    with tempfile.TemporaryDirectory() as name, locked(Path(name)), stage.ready(Path(name), say) as ready:
        return asyncio.run(describe_samples(ingest, ready, options.dry_run, Path(name)))


class CaptionsWorker:
    """Describes items: frames in a pool of threads, questions on the event loop."""

    def __init__(self, stage: Captions, speaker: Speaker, cache: ResponseCache, progress: Progress):
        self.ahead = speaker.ahead
        self._stage, self._speaker, self._cache, self._progress = stage, speaker, cache, progress
        self._pool = MediaThreads("frames")
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def item(self, row: ItemRow, joined: dict[str, Rows], previous: dict[str, Rows], retrying: bool) -> Outcome:
        """Describe one item from every view that no earlier run has described it from."""
        done = {old["view"]: old for old in previous.get("descriptions", ()) if old["sha256"] == row["sha256"]}
        replies = await self._replies(row, [view for view in self._stage.views if view.name not in done], retrying)
        outcome = Outcome({"descriptions": []})
        for view in self._stage.views:
            times_s, reply = replies.get(view.name, ([], None))
            if isinstance(reply, Failure):
                outcome.failures.append(reply)
            else:
                description = await self._row(row, view, reply, times_s) if reply else done[view.name]
                outcome.rows["descriptions"].append(description)
        return outcome

    async def _replies(self, row: ItemRow, views: list[View], retrying: bool) -> dict[str, Reply]:
        """Replies by view. Items of the same content take turns: only the first one is paid for."""
        async with self._turns.setdefault(row["sha256"], asyncio.Lock()):
            cached = {view.name: self._cached(row, view, retrying) for view in views}
            replies = {name: reply for name, reply in cached.items() if reply}
            unknown = [view for view in views if view.name not in replies]
            return replies | (await self._describe(row, unknown) if unknown else {})

    async def _describe(self, row: ItemRow, views: list[View]) -> dict[str, Reply]:
        try:
            times_s, prepared = await asyncio.get_running_loop().run_in_executor(self._pool, self._prepare, row, views)
        except MediaError as error:
            return {view.name: ([], Failure(row["item_id"], error.kind, str(error), view=view.name)) for view in views}
        questions = (self._ask(row, prepared, view, times_s) for view in views)
        return dict(zip((view.name for view in views), await asyncio.gather(*questions), strict=True))

    def _prepare(self, row: ItemRow, views: list[View]) -> tuple[list[float], Any]:
        with open_media(row["uri"]) as stream:
            if stream_hash(stream) != row["sha256"]:
                message = "has changed since it was ingested. --stage update takes the new input"
                raise MediaError("changed", f"{row['uri']} {message}")
            return self._speaker.prepare(stream, row["media_type"], views)

    async def _ask(self, row: ItemRow, prepared: Any, view: View, times_s: list[float]) -> Reply:
        counts = self._progress.counts
        try:
            answer = bounded(await self._speaker.ask(prepared, view, times_s))
            counts["prompt_tokens"] += answer.prompt_tokens or 0
            counts["completion_tokens"] += answer.completion_tokens or 0
            counts["bytes_sent"] += len(prepared.parts) if isinstance(prepared, Media) else 0
            reply: Answer | Failure = answer
        except RequestFailed as error:
            reply = Failure(row["item_id"], error.kind, str(error), error.attempts, view.name)
            if not error.permanent:
                return times_s, reply
        except ValueError as error:
            reply = Failure(row["item_id"], "malformed", str(error), view=view.name)
        kind = "answer" if isinstance(reply, Answer) else "failure"
        self._cache.put([(self._key(row, view), {kind: dataclasses.asdict(reply), "times_s": times_s})])
        counts["requests"] += 1
        return times_s, reply

    def _cached(self, row: ItemRow, view: View, retrying: bool) -> Reply | None:
        """An answer paid for before. A permanent failure too, unless this run is to try failures again."""
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):  # else it is asked for again
            stored = self._cache.get(self._key(row, view))
            if stored is None or (retrying and "failure" in stored):
                return None
            if "failure" in stored:
                # The failure may have been met under another item with the same content.
                reply: Answer | Failure = Failure(**{**stored["failure"], "id": row["item_id"], "view": view.name})
            else:
                reply = bounded(Answer(**{**stored["answer"], "flags": tuple(stored["answer"]["flags"])}))
            self._progress.counts["from_cache"] += 1
            return [float(time) for time in stored["times_s"]], reply
        return None

    def _key(self, row: ItemRow, view: View) -> str:
        captioner = self._stage.captioner
        decoding = self._stage.decoding(view, row["media_type"])
        return short_hash(canonical_json([row["sha256"], captioner.name, captioner.revision, view.prompt_id, decoding]))

    def _judged(self, view: View, answer: Answer, times_s: list[float]) -> Description:
        if isinstance(self._stage.captioner, EmbeddedCaptioner):  # its sentences are the project's own
            return Description(answer.text, (), "en")
        return clean(answer.text, answer.finish_reason, question(view, times_s), view.answer_language)

    async def _row(self, row: ItemRow, view: View, answer: Answer, times_s: list[float]) -> DescriptionRow:
        loop = asyncio.get_running_loop()
        text, flags, language = await loop.run_in_executor(self._pool, self._judged, view, answer, times_s)
        return {
            "item_id": row["item_id"],
            "view": view.name,
            "text": text,
            "language": language,
            "captioner": self._stage.captioner.name,
            "revision": self._stage.captioner.revision,
            "prompt_id": view.prompt_id,
            "decoding": self._stage.decoding(view, row["media_type"]),
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "flags": sorted({*flags, *answer.flags}),
            "frame_times_s": times_s,
            "sha256": row["sha256"],
        }

    async def close(self) -> None:
        """End the threads and connections."""
        self._pool.close()
        await self._speaker.close()
        self._cache.close()


class BatchExporter(CaptionsWorker):
    """Writes the requests that the cache has no answer to, instead of asking."""

    writer: BatchWriter
    _speaker: MllmSpeaker

    async def _ask(self, row: ItemRow, prepared: Any, view: View, times_s: list[float]) -> Reply:
        self.writer.add(self._key(row, view), times_s, self._speaker.request(prepared, view, times_s))
        return times_s, Failure(row["item_id"], "exported", "", view=view.name)


async def export_requests(stage: Captions, corpus: Path, cache: Path, folder: Path) -> None:
    """Write the requests of all descriptions that are missing to files for a batch service."""
    speaker = await stage.captioner.open(Run("", corpus, 0, cache), stage.sampling, len(stage.views))
    worker = BatchExporter(stage, speaker, ResponseCache(cache), Progress())
    worker.writer = BatchWriter(folder)
    for batch in Table(corpus, "items").batches():
        rows, views = batch.to_pylist(), list(stage.views)
        await asyncio.gather(*(worker._replies(row, views, retrying=True) for row in rows))
    await worker.close()
    worker.writer.close()
    say(f"{len(worker.writer.ids):,} requests in {len(worker.writer.files):,} files in {folder}")
    say("next: have them answered, then run the same command with --batch-import RESULTS in place of --batch-export")


def import_answers(path: Path, folder: Path) -> None:
    """Put the results of a batch service into the response cache in `folder`. What they do not answer stays missing."""
    counts: Counter[str] = Counter()
    with contextlib.closing(ResponseCache(folder)) as cache:
        for key, times_s, reply in read_results(path):
            if isinstance(reply, Answer):
                cache.put([(key, {"answer": dataclasses.asdict(reply), "times_s": times_s})])
            counts["answers" if isinstance(reply, Answer) else f"{reply.kind}: {reply}"[:200]] += 1
    for what, count in counts.most_common(5):
        say(f"batch results: {count:,} {what}")


async def describe_samples(ingest: Ingest, stage: Captions, num_items: int, folder: Path) -> int:
    """Describe a few items and print picture, prompt and answer; the corpus is not touched.

    Args:
        ingest: The stage that lists and checks the items.
        stage: The stage with its server.
        num_items: How many items are described.
        folder: Folder for the answers, removed afterwards.

    Returns:
        The exit status: 1 if nothing could be described.
    """
    run, views = Run("", folder, 0, folder), {view.name: view for view in stage.views}
    progress, num_descriptions = Progress(), 0
    checker, describer = await ingest.open(run, Progress()), await stage.open(run, progress)
    source_items = itertools.islice(all_items(ingest.sources()), ingest.limit or None)
    samples = list(itertools.islice(source_items, num_items))
    checked = [await checker.item(plan_row(sample), {}, {}, False) for sample in samples]
    begun = time.monotonic()
    room = asyncio.Semaphore(describer.ahead)

    async def describe(outcome: Outcome) -> Outcome:
        for item in outcome.rows.get("items", ()):
            async with room:
                return await describer.item(item, {}, {}, False)
        return outcome

    described = await asyncio.gather(*map(describe, checked))
    seconds = time.monotonic() - begun
    for sample, check, outcome in zip(samples, checked, described, strict=True):
        say(f"\n{sample.item_id}  {sample.uri}")
        for item in check.rows.get("items", ()):
            say(f"  {item['media_type']} {item['width']}×{item['height']}")
        for row in outcome.rows.get("descriptions", ()):
            num_descriptions += 1
            say(f"  {row['view']}: {question(views[row['view']], row['frame_times_s'])}")
            say(f"    → {row['text']}" + (f"  [{', '.join(row['flags'])}]" if row["flags"] else ""))
        for failure in outcome.failures:
            say(f"  {failure.view or sample.item_id}: failed: {failure.kind}: {failure.message}")
    await checker.close()
    await describer.close()
    if progress.counts["requests"]:
        total = len(samples) + sum(1 for _ in source_items)
        for line in cost_lines(progress.counts, seconds, total, ingest.shard_size, len(views)):
            say(line)
    say(f"dry run: {num_descriptions} descriptions; nothing was written")
    return 0 if num_descriptions else 1


def cost_lines(counts: Counter[str], seconds: float, num_items: int, shard_size: int, num_views: int) -> Iterator[str]:
    """What a run costs, as docs/scale.md explains it.

    Args:
        counts: What the answers of some items took: `requests`, `prompt_tokens`, `completion_tokens`, `bytes_sent`.
        seconds: How long they took.
        num_items: Items of the run.
        shard_size: Items per shard.
        num_views: Requests per item.
    """
    requests, shards = num_items * num_views, -(-num_items // shard_size)
    each = {name: counts[name] / counts["requests"] for name in ("prompt_tokens", "completion_tokens", "bytes_sent")}
    rate = counts["requests"] / seconds
    hours = requests / rate / 3_600
    prompt, completion = each["prompt_tokens"], each["completion_tokens"]
    yield f"\nthe whole input, at what these {counts['requests']:,} answers took (docs/scale.md):"
    yield f"  {num_items:,} items in {shards:,} shards, {requests:,} requests"
    yield f"  {requests * prompt:,.0f} prompt tokens ({prompt:,.0f} a request, with pictures)"
    yield f"  {requests * completion:,.0f} completion tokens ({completion:,.0f} a request)"
    yield f"  {requests * each['bytes_sent'] / 1e9:,.1f} GB sent ({each['bytes_sent'] / 1e3:,.0f} kB a request)"
    yield f"  {hours:,.1f} hours at {rate:,.1f} requests/s; a --dry-run of more items keeps more in flight"
    puts = shards * OBJECTS_PER_SHARD + int(hours * 3_600 / FLUSH_S)
    yield f"  in an object store: {puts:,} objects, {LISTS * -(-shards // 1_000):,} lists at each start and end"
