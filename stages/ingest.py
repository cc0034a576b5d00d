"""`--stage ingest`: list the sources, check every image and video, write `items` and `captions`.

plan (which item is in which shard) → open, hash, check that it decodes → items, captions
"""

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.corpus import shards
from pipeline.corpus.changes import Changes
from pipeline.corpus.commit import stored_settings
from pipeline.corpus.schema import CaptionRow, ItemRow
from pipeline.corpus.table import Table, complete, read_json, state_folder, write_json
from pipeline.engine.stage import Failure, Outcome, Progress, Row, Rows, Run, Say, Stage
from pipeline.errors import MediaError, UsageError
from pipeline.hashing import stream_hash
from pipeline.media.images import Limits, Probe, open_media, probe
from pipeline.media.uri import MediaThreads, stamp
from pipeline.options import option, option_fields, read_options
from pipeline.sources import KINDS, Source, SourceItem, all_items, open_source
from pipeline.sources.account import list_failures, sentence, summarize
from pipeline.translation.tags import check_language
from stages.driver import RunOptions, run_stages

_CAPTION = pa.struct([*((name, pa.string()) for name in ("text", "language", "origin")), ("number", pa.int32())])
NOTICED_ITEMS = 1_000_000  # a run that starts lists fewer to see whether they have changed
PLAN_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("item_id", "uri", "split", "source", "license")),
        pa.field("captions", pa.list_(_CAPTION), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),
    ]
)


def _caption_language(text: str) -> str:
    return check_language(text, "--caption-language")


@dataclasses.dataclass(frozen=True)
class IngestOptions:
    """What to take in. None means "not given": what the corpus was begun with, else the default in the help."""

    input: tuple[str, ...] = option(
        (),
        "a folder of images and videos, webdataset .tar files, a saved Hugging Face dataset, a .txt file of paths; "
        "repeat it for several",
        repeat=True,
        metavar="PATH|URL",
    )
    samples: bool = option(False, "take the sample photos of scikit-image and scikit-learn in place of an --input")
    source: str | None = option(
        None, "kind of --input (default: auto, which prints its guess and guesses no benchmark)", choices=KINDS
    )
    split: str | None = option(
        None,
        "split of items whose path or row names none (default: the one that --input is named after, else train)",
        metavar="SPLIT",
    )
    caption_language: str | None = option(
        None, "BCP 47 tag of the input's captions (default: en)", parse=_caption_language, metavar="TAG"
    )
    license: str | None = option(
        None, "licence of items whose source names none (default: none)", parse=str, metavar="LICENSE"
    )
    limit: int | None = option(None, "take the first N items (default: 0, all)", at_least=0)
    shard_size: int | None = option(None, "items per shard (default: 1000)", at_least=1)
    max_source_megapixels: float | None = option(
        None, "larger pictures fail as too_large (default: 100 megapixels)", at_least=0.001
    )
    subset: bool | None = option(
        None, "take a benchmark whose numbers of items and captions are not the published ones (default: an error)"
    )
    allow_missing_media: bool | None = option(
        None, "keep a benchmark's items whose pictures or videos are missing, for their texts (default: an error)"
    )

    def settings(self) -> dict[str, Any]:
        """The options that were given, as settings of `Ingest`."""
        names = option_fields(type(self))
        settings = {name: value for name in names if (value := getattr(self, name)) not in (None, ())}
        if settings.pop("samples"):
            settings["inputs"] = ()
        if inputs := settings.pop("input", None):
            settings["inputs"] = tuple(map(_absolute, inputs))
        if megapixels := settings.pop("max_source_megapixels", None):
            settings["max_source_pixels"] = int(megapixels * 1_000_000)
        return settings


def _absolute(location: str) -> str:
    """An input under one name wherever the command is typed. Symbolic links are not followed."""
    return location if "://" in location else os.path.abspath(Path(location).expanduser())  # noqa: PTH100


@dataclasses.dataclass(frozen=True)
class Ingest(Stage):
    """Settings of the stage, named as the options. `limit` 0 means every item; `shard_size` is in items."""

    inputs: tuple[str, ...] = ()
    source: str = "auto"
    split: str = ""
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
        """The settings. Those of benchmarks are left out if they are off, as in corpora older than these settings."""
        settings = {**dataclasses.asdict(self), "inputs": list(self.inputs)}
        return {name: on for name, on in settings.items() if name not in ("subset", "allow_missing_media") or on}

    def sources(self) -> list[Source]:
        """The inputs, opened."""
        names = ("split", "caption_language", "license", "subset", "allow_missing_media")
        options = {name: getattr(self, name) for name in names}
        with _input_errors():
            return [open_source(input, self.source, **options) for input in self.inputs or (None,)]

    def plan(self, corpus: Path, say: Say) -> tuple[int, int]:
        """Fix which item goes into which shard, once. A corpus that is planned stays as it was planned."""
        path = state_folder(corpus) / shards.PLAN / "plan.json"
        planned = read_json(path)
        if planned is None and all(complete(corpus, table) for table in self.tables):
            items = Table(corpus, "items")  # a corpus that came without its .state
            manifest = items.manifest
            lines = [failure for failure in items.failures() if failure["shard"] is None]
            _write_not_taken(corpus, manifest.get("not_taken", []), lines)
            return len(manifest["shards"]), sum(entry["items"] for entry in manifest["shards"])
        if planned is None:
            sources = self.sources()
            entries = shards.write_plan(corpus, shards.in_parts(self.plan_rows(sources), self.shard_size), PLAN_SCHEMA)
            self.record_plan(corpus, sources, entries, say)
            planned = read_json(path)
        return len(planned["shards"]), planned["items"]

    def plan_rows(self, sources: Sequence[Source]) -> Iterator[Row]:
        """The rows of a plan of all items."""
        with _input_errors():
            yield from map(plan_row, itertools.islice(all_items(sources), self.limit or None))

    def record_plan(self, corpus: Path, sources: Sequence[Source], entries: Rows, say: Say) -> None:
        """Complete a plan whose shards are written: report what the sources hold, and what of it is not taken."""
        for source in sources:
            say(f"input: {source.summary}")
        reasons = [reason for source in sources for reason in source.account]
        for entry in summarize(reasons):
            if entry["kind"]:  # said at once too, because the run may be long
                say(f"not taken: {sentence(entry)}")
        _write_not_taken(corpus, summarize(reasons), list_failures(reasons))
        plan = {"items": sum(entry["rows"] for entry in entries), "shards": entries}
        if not plan["items"]:
            raise UsageError(f"--input: no media in {', '.join(self.inputs) or 'the samples'}. Give another input")
        write_json(state_folder(corpus) / shards.PLAN / "plan.json", plan)

    def notice(self, corpus: Path) -> str:
        """Whether the folders that were planned have changed since. Other inputs, and large ones, take long to list."""
        planned = read_json(state_folder(corpus) / shards.PLAN / "plan.json")
        if not planned or planned["items"] >= NOTICED_ITEMS or not self.inputs or self.source not in ("auto", "folder"):
            return ""
        try:
            sources = self.sources()
            if any(source.kind != "folder" for source in sources):
                return ""
            changes = str(Changes(corpus, self.plan_rows(sources), by_content=False))
        except UsageError as error:
            return f"note: {error}. If it has moved: leccr update {corpus} --input FOLDER"
        return f"the input has changed since: {changes}. To take that in: leccr update {corpus}" if changes else ""

    def not_taken(self, corpus: Path) -> list[dict[str, Any]]:
        """Lines of failures.jsonl about what the inputs hold and the plan does not."""
        return _read_not_taken(corpus)["failures"]

    def notes(self, corpus: Path) -> dict[str, Any]:
        """`not_taken`: what the inputs hold and the plan does not, by reason."""
        summary = _read_not_taken(corpus)["summary"]
        return {"not_taken": summary} if summary else {}

    async def open(self, run: Run, progress: Progress) -> "IngestWorker":
        """Start the threads that check media."""
        return IngestWorker(Limits(max_source_pixels=self.max_source_pixels))


@contextlib.contextmanager
def _input_errors() -> Iterator[None]:
    try:
        yield
    except MediaError as error:  # a list, tar or table breaks while it is read
        raise UsageError(f"--input: {error}: fetch it again or leave it out") from error


def _not_taken_file(corpus: Path) -> Path:
    return state_folder(corpus) / shards.PLAN / "not_taken.json"


def _write_not_taken(corpus: Path, summary: Rows, failures: Rows) -> None:
    path = _not_taken_file(corpus)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"summary": summary, "failures": failures})


def _read_not_taken(corpus: Path) -> dict[str, Rows]:
    """What `plan` has recorded. Plans of the first version have none."""
    return read_json(_not_taken_file(corpus)) or {"summary": [], "failures": []}


def check_input(options: IngestOptions, corpus: Path) -> None:
    """Refuse a new corpus without an input, so that a mistyped `--output` creates nothing.

    Raises:
        UsageError: There is none, or two.
    """
    if options.samples and options.input:
        raise UsageError(f"--samples takes no --input, but {options.input[0]} was given: leave one of the two out")
    is_given = options.input or options.samples or options.source == "samples"
    if not is_given and not (corpus.is_dir() and stored_settings(corpus, Ingest.name)):
        raise UsageError(
            f"{corpus} is not a corpus yet, and there is no --input: give --input FOLDER, or --samples for the sample "
            "photos, or correct --output"
        )


def open_ingest(options: IngestOptions, corpus: Path, strict: bool) -> Ingest:
    """The stage as the options ask for it.

    Args:
        options: The options given.
        corpus: The corpus folder. Options not given are as the corpus was begun, else the defaults.
        strict: Whether options that are not given mean their defaults, if any is given. The input stays.
    """
    given = options.settings()
    stored = stored_settings(corpus, Ingest.name)
    if stored is None:
        return Ingest(**given)
    names = {field.name for field in dataclasses.fields(Ingest)} & stored.keys()
    if strict and given:
        names &= set() if "inputs" in given else {"inputs", "source"}
    known = {name: tuple(stored[name]) if name == "inputs" else stored[name] for name in names}
    return Ingest(**{**known, **given})


def input_notice(corpus: Path) -> str:
    """`Ingest.notice` of a corpus, "" if it has no items of its own."""
    return open_ingest(IngestOptions(), corpus, strict=False).notice(corpus)


def main(parsed: argparse.Namespace, beam_arguments: list[str]) -> int:
    """Run the stage; returns the exit status."""
    options, run = read_options(IngestOptions, parsed), read_options(RunOptions, parsed)
    check_input(options, run.corpus)
    return run_stages(run, beam_arguments, lambda: [open_ingest(options, run.corpus, strict=True)])


class IngestWorker:
    """Checks media in a pool of threads: decoding and hashing release the interpreter's lock."""

    def __init__(self, limits: Limits):
        self.ahead = 4 * (os.cpu_count() or 1)
        self._limits = limits
        self._pool = MediaThreads("ingest")

    async def item(self, row: Row, joined: dict[str, Rows], previous: dict[str, Rows], retrying: bool) -> Outcome:
        """Open, hash and probe one row of the plan, unless that was done before."""
        if previous.get("items"):
            return self._make_rows(row, previous["items"][0])
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._make_rows, row)

    def _make_rows(self, row: Row, known: ItemRow | None = None) -> Outcome:
        digest, media = "", Probe("", 0, 0, 0, None)
        if known:  # the same content, perhaps at another place
            names = (field.name for field in dataclasses.fields(Probe))
            digest, media = known["sha256"], Probe(**{name: known[name] for name in names})  # type: ignore[literal-required]
        elif row["uri"]:  # empty for an item of a benchmark whose media are missing
            try:
                with open_media(row["uri"]) as stream:
                    digest = stream_hash(stream)
                    media = probe(stream, self._limits)
            except MediaError as error:
                return Outcome({}, [Failure(row["item_id"], error.kind, str(error))])
        item: ItemRow = {
            "item_id": row["item_id"],
            # An array of features does not say what it was read from: the plan's type stays, if it has one.
            "media_type": (not media.width and row.get("media_type")) or media.media_type,
            "uri": row["uri"],
            "sha256": digest,
            "width": media.width,
            "height": media.height,
            "num_frames": media.num_frames,
            "duration_s": media.duration_s,
            "split": row["split"],
            "source": row["source"],
            "license": row["license"],
        }
        captions: list[CaptionRow] = [
            {
                "caption_id": f"{row['item_id']}#{_series(caption)}#{caption['number']}",
                "item_id": row["item_id"],
                "language": caption["language"],
                "text": caption["text"],
                "origin": caption["origin"],
                "split": row["split"],
            }
            for caption in _numbered(row["item_id"], row["captions"])
        ]
        return Outcome({"items": [item], "captions": captions})

    async def close(self) -> None:
        """End the threads."""
        self._pool.close()


def plan_row(item: SourceItem) -> Row:
    """The item as a row of the plan, its captions numbered, with the `stamp` of its file.

    Raises:
        UsageError: Two captions of one language have the same number.
    """
    captions = _numbered(item.item_id, [vars(caption) for caption in item.captions])
    return {**vars(item), "captions": captions, "stamp": stamp(item.uri)}


def _numbered(item_id: str, captions: Sequence[Row]) -> list[Row]:
    """The captions, each with its number. Plans of the first version have none."""
    numbers: dict[str, set[int]] = {}
    rows = []
    for caption in captions:
        taken = numbers.setdefault(_series(caption), set())
        number = caption.get("number")
        number = len(taken) if number is None else number
        if number in taken:
            raise UsageError(
                f"--input: {item_id} has two captions in {caption['language']} with the number {number}. The second "
                f"one is {caption['text']!r}. Give each caption a number of its own"
            )
        taken.add(number)
        rows.append({**caption, "number": number})
    return rows


def _series(caption: Row) -> str:
    """What an item's captions are numbered within: a language; a model's descriptions are numbered separately."""
    language: str = caption["language"]
    return f"{language}-x-mllm" if caption["origin"] == "mllm" else language
