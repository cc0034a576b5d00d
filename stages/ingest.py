"""`--stage ingest`: list the sources once, look at every medium once, write `items` and `captions`.

plan (fixed membership) → open, hash, prove decodable → items, captions
"""

import asyncio
import collections
import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.corpus import shards
from pipeline.corpus import table as corpora
from pipeline.engine.run_state import Progress
from pipeline.engine.stage import Failure, Outcome, Rows, Run, Stage
from pipeline.errors import MediaError, UsageError
from pipeline.hashing import stream_hash
from pipeline.media.images import Limits, open_media, probe
from pipeline.sources import Source, SourceItem, all_items, open_sources
from pipeline.sources.benchmarks import BENCHMARKS

QUICKLY_LISTED = {"folder", "paths", "samples"}  # others must be read through to be listed
OF_BENCHMARKS = ("subset", "allow_missing_media")
PLAN_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("license", pa.string(), nullable=False),
        pa.field(
            "captions",
            pa.list_(
                pa.struct([*((name, pa.string()) for name in ("text", "language", "origin")), ("number", pa.int32())])
            ),
            nullable=False,
        ),
        pa.field("media_type", pa.string(), nullable=False),
    ]
)


@dataclasses.dataclass(frozen=True)
class Ingest(Stage):
    """Settings of the stage. `limit` 0 means every item; `shard_size` is in items."""

    inputs: tuple[str, ...] = ()
    source: str = "auto"
    split: str = "train"
    caption_language: str = "en"
    license: str = ""
    limit: int = 0
    shard_size: int = 1_000
    max_source_pixels: int = Limits().max_source_pixels
    subset: bool = False
    allow_missing_media: bool = False

    name = "ingest"
    tables = ("items", "captions")
    parents = (shards.PLAN,)
    records_per_item = 1

    def settings(self) -> dict[str, Any]:
        settings = {**dataclasses.asdict(self), "inputs": list(self.inputs)}
        # Of benchmarks alone: elsewhere they are not named, and corpora begun before there were any stay as they are.
        return {name: value for name, value in settings.items() if name not in OF_BENCHMARKS or value}

    def sources(self) -> list[Source]:
        return open_sources(
            self.inputs,
            self.source,
            split=self.split,
            caption_language=self.caption_language,
            license=self.license,
            subset=self.subset,
            allow_missing_media=self.allow_missing_media,
        )

    async def open(self, run: Run, progress: Progress) -> "IngestWorker":
        return IngestWorker(Limits(max_source_pixels=self.max_source_pixels))


class IngestWorker:
    """Looks at media in a pool of threads: decoding and hashing release the interpreter's lock."""

    def __init__(self, limits: Limits):
        threads = os.cpu_count() or 1
        self.ahead = 4 * threads
        self._limits = limits
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, "ingest")

    async def item(
        self, row: dict[str, Any], joined: dict[str, Rows], kept: dict[str, Rows], retrying: bool
    ) -> Outcome:
        if kept.get("items"):
            return Outcome(kept)
        if not row["uri"]:
            return Outcome({"items": [_item(row, media_type=row["media_type"])], "captions": list(_captions(row))})
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._look, row)

    def _look(self, row: dict[str, Any]) -> Outcome:
        try:
            with open_media(row["uri"]) as stream:
                sha256 = stream_hash(stream)
                seen = probe(stream, self._limits)
        except MediaError as error:
            return Outcome({}, [Failure(row["item_id"], error.kind, str(error))])
        # an array of features does not say what it was read from
        media_type = (not seen.width and row.get("media_type")) or seen.media_type
        item = _item(row, sha256, media_type, seen.width, seen.height, seen.num_frames, seen.duration_s)
        return Outcome({"items": [item], "captions": list(_captions(row))})

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _item(
    row: dict[str, Any],
    sha256: str = "",
    media_type: str = "",
    width: int = 0,
    height: int = 0,
    num_frames: int = 0,
    duration_s: float | None = None,
) -> dict[str, Any]:
    """The row of `items`; without hash and sizes where its media are not there."""
    return {
        "item_id": row["item_id"],
        "media_type": media_type,
        "uri": row["uri"],
        "sha256": sha256,
        "width": width,
        "height": height,
        "num_frames": num_frames,
        "duration_s": duration_s,
        "split": row["split"],
        "source": row["source"],
        "license": row["license"],
    }


def _series(language: str, origin: str) -> str:
    """What captions of an item are numbered within: a language, and descriptions by a model for themselves."""
    return f"{language}-x-mllm" if origin == "mllm" else language


def _captions(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    numbers: dict[str, int] = {}  # of a plan that names none, as it was once written
    for caption in row["captions"]:
        series = _series(caption["language"], caption["origin"])
        number = caption.get("number")
        number = numbers.get(series, 0) if number is None else number
        numbers[series] = number + 1
        yield {
            "caption_id": f"{row['item_id']}#{series}#{number}",
            "item_id": row["item_id"],
            "language": caption["language"],
            "text": caption["text"],
            "origin": caption["origin"],
            "split": row["split"],
        }


def plan(corpus: Path, stage: Ingest, say: Callable[[str], None]) -> int:
    """Fix which item goes into which shard, once; returns the number of shards.

    A corpus that is planned already stays as it was planned: what the input lists otherwise by now is told, not taken.
    """
    planned = corpora.read_json(corpora.state_folder(corpus) / shards.PLAN / "plan.json")
    if planned is not None and stage.source in BENCHMARKS:
        return len(planned["shards"])  # the plan holds its texts: it need not be read and checked again
    if planned is None and all(corpora.complete(corpus, table) for table in stage.tables):
        return corpora.Table(corpus, "items").num_shards  # a corpus that came without its .state
    sources = stage.sources()
    if planned is None:
        return _plan_anew(corpus, stage, sources, say)
    if all(source.kind in QUICKLY_LISTED for source in sources):
        digest = _Digest()
        collections.deque(digest.over(_limited(all_items(sources), stage.limit)), maxlen=0)
        if digest.value() != planned["listing"]:
            say(
                f"note: the input lists {digest.count:,} items now, other than the {planned['items']:,} of the plan; "
                "the corpus stays as planned: --stage ingest --overwrite takes the input as it is now"
            )
    return len(planned["shards"])


def _plan_anew(corpus: Path, stage: Ingest, sources: list[Source], say: Callable[[str], None]) -> int:
    told = [source.summary for source in sources]
    for summary in told:
        say(f"input: {summary}")
    digest = _Digest()
    listed = digest.over(_limited(all_items(sources), stage.limit))
    rows = ({**dataclasses.asdict(item), "captions": _plain(item)} for item in listed)
    entries = shards.write_plan(corpus, rows, PLAN_SCHEMA, stage.shard_size)
    if not entries:
        raise UsageError(f"--input: got no media from {', '.join(stage.inputs) or 'the samples'}: give another input")
    for source, before in zip(sources, told, strict=True):
        if source.summary != before:  # some sources can only count while they list
            say(f"input: {source.summary}")
    planned = {"items": digest.count, "listing": digest.value(), "shards": entries}
    corpora.write_json(corpora.state_folder(corpus) / shards.PLAN / "plan.json", planned)
    return len(entries)


def _plain(item: SourceItem) -> list[dict[str, Any]]:
    """The captions, each with its number. Raises UsageError for two of one language with the same number."""
    numbers: dict[str, set[int]] = {}
    plain = []
    for caption in item.captions:
        taken = numbers.setdefault(_series(caption.language, caption.origin), set())
        number = len(taken) if caption.number is None else caption.number
        if number in taken:
            raise UsageError(
                f"--input: {item.item_id}: got two captions in {caption.language} with the number {number}, wanted "
                f"numbers of their own: the second one is {caption.text!r}"
            )
        taken.add(number)
        plain.append({**vars(caption), "number": number})
    return plain


def _limited(items: Iterator[SourceItem], limit: int) -> Iterator[SourceItem]:
    for number, item in enumerate(items, 1):
        yield item
        if number == limit:
            return


class _Digest:
    """Count and hash of a listing as it streams by: enough to tell that an input has changed."""

    def __init__(self) -> None:
        self.count = 0
        self._hash = hashlib.sha256()

    def over(self, items: Iterator[SourceItem]) -> Iterator[SourceItem]:
        for item in items:
            self.count += 1
            self._hash.update(f"{item.item_id}\0{item.uri}\0{item.split}\n".encode("utf-8", "surrogateescape"))
            yield item

    def value(self) -> str:
        return self._hash.hexdigest()
