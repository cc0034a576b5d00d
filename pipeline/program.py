"""The stages as the user runs them: settings resolved and compared, work done, the result told."""

import argparse
import collections
import contextlib
import dataclasses
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from pipeline import corpus as corpora
from pipeline import shards, tables
from pipeline.captioning import choose
from pipeline.captioning.captioners import Look
from pipeline.captioning.views import parse_views
from pipeline.captions import Captions
from pipeline.card import write_card
from pipeline.counting import values
from pipeline.dry_run import dry_run
from pipeline.errors import UsageError
from pipeline.ingest import Ingest, plan
from pipeline.media import Limits
from pipeline.options import INGEST_DEFAULTS, without_remarks
from pipeline.progress import Monitor
from pipeline.records import SCHEMAS
from pipeline.runstate import locked, state_folder
from pipeline.signals import ended_by_signals
from pipeline.stage import Stage
from pipeline.verify import verify


def say(line: str) -> None:
    print(line, flush=True)


def ingest(options: argparse.Namespace, beam_arguments: list[str]) -> int:
    return _make(options, beam_arguments, [])


def captions(options: argparse.Namespace, beam_arguments: list[str]) -> int:
    corpus = _corpus_folder(options.output)
    views = parse_views(options.views)
    captioner = choose.choose(options, views, say)
    first = _ingest_stage(options, corpus)
    limits = Limits(max_source_pixels=first.max_source_pixels)
    stage = Captions(captioner, views, Look(options.max_pixels, options.frames, limits))
    if options.dry_run:
        return dry_run(first, stage, options, say)
    return _make(options, beam_arguments, [stage])


def verify_corpus(options: argparse.Namespace, beam_arguments: list[str]) -> int:
    good, wrong = verify(options.output)
    for line in good:
        say(f"ok: {line}")
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    say(
        f"{options.output}: {len(wrong)} problem(s)"
        if wrong
        else f"{options.output}: every checksum and count is right"
    )
    return 1 if wrong else 0


PROGRAMS = {"ingest": ingest, "captions": captions, "verify": verify_corpus}


def _ingest_stage(options: argparse.Namespace, corpus: Path) -> Ingest:
    """Stage ingest by the options given; those not given are as the corpus was begun, else the defaults."""
    stored = corpora.read_json(state_folder(corpus) / "ingest" / "settings.json")
    if stored is None and corpora.complete(corpus, "items"):
        stored = corpora.Table(corpus, "items").manifest["settings"]
    strict = options.stage == "ingest" or options.overwrite
    given = {name: getattr(options, name) for name in INGEST_DEFAULTS if getattr(options, name) is not None}
    values = {**INGEST_DEFAULTS, **given}
    settings = {
        "inputs": tuple(_normal(text) for text in values["input"]),
        "source": values["source"],
        "split": values["split"],
        "caption_language": values["caption_language"],
        "license": values["license"],
        "limit": values["limit"],
        "shard_size": values["shard_size"],
        "max_source_pixels": int(values["max_source_megapixels"] * 1_000_000),
    }
    option_of = {"inputs": "input", "max_source_pixels": "max_source_megapixels"}
    if stored is not None and not (strict and given):
        for name in settings:
            if option_of.get(name, name) not in given:
                settings[name] = tuple(stored[name]) if name == "inputs" else stored[name]
    return Ingest(**settings)


def _normal(text: str) -> str:
    """An input by one name wherever the command is typed: local paths are made absolute."""
    return text if "://" in text else os.path.abspath(Path(text).expanduser())  # noqa: PTH100 - follows no link


def _make(options: argparse.Namespace, beam_arguments: list[str], later: list[Captions]) -> int:
    """Make the tables of stage ingest and of the later stages, tell what came out; returns the exit status."""
    corpus = _corpus_folder(options.output)
    if beam_arguments:  # before anything is begun; without them, Beam may not be needed at all
        _beam().beam_options(beam_arguments, say)
    with locked(corpus):
        first = _ingest_stage(options, corpus)
        stages: list[Stage] = [first, *later]
        if options.overwrite:
            _discard_what_differs(corpus, stages)
        for stage in stages:
            tables.check_settings(corpus, stage)
        num_shards = plan(corpus, first, say)
        monitor = Monitor(corpus, stages, _num_items(corpus, num_shards), options.max_failures)
        fresh = _make_shards(corpus, first, later, num_shards, options, beam_arguments, monitor)
        monitor.judge(num_shards)
        for stage in stages:
            tables.close(corpus, stage, num_shards)
        if fresh or not (corpus / "README.md").exists():
            write_card(corpus)
        failed = _tell(corpus, stages, num_shards, fresh, options)
    return 1 if failed and options.strict else 0


def _make_shards(
    corpus: Path,
    first: Ingest,
    later: list[Captions],
    num_shards: int,
    options: argparse.Namespace,
    beam_arguments: list[str],
    monitor: Monitor,
) -> bool:
    """Make what is not there yet; returns whether there was anything to make."""
    stages: list[Stage] = [first, *later]
    states = tables.begin(corpus, stages, num_shards)
    if not any(state.open for state in states.values()):
        return False
    work = _beam()
    beam_options = work.beam_options(beam_arguments, say)
    cache = str(options.cache.absolute()) if options.cache else str(state_folder(corpus) / "cache")
    with ended_by_signals(corpus), contextlib.ExitStack() as stack:
        if later and not states[later[0].name].open:
            # Whether there is anything to describe, and a server to be started, the broken items of before must tell.
            work.make(corpus, [first], states, num_shards, beam_options, cache, monitor)
            states = tables.begin(corpus, stages, num_shards) | {first.name: tables.NOTHING_TO_DO}
            if not states[later[0].name].open:
                return True
        if later:
            captioner = stack.enter_context(choose.serving(later[0].captioner, options, corpus, say))
            later = [dataclasses.replace(later[0], captioner=captioner)]
        work.make(corpus, [first, *later], states, num_shards, beam_options, cache, monitor)
    return True


def _corpus_folder(output: Path) -> Path:
    """The folder that --output names: a corpus, or one that is still to be made."""
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output: got {output}, which is a file, wanted a folder")
    corpus = output.absolute()
    known = state_folder(corpus).is_dir() or any(corpora.complete(corpus, table) for table in SCHEMAS)
    others = [] if known or not corpus.is_dir() else sorted(p.name for p in corpus.iterdir() if p.name[0] != ".")
    if set(others) - {"lost+found"}:
        raise UsageError(
            f"--output: got {output}, which is no corpus and holds other things ({', '.join(others[:3])}): "
            "give a new or empty folder as --output"
        )
    return corpus


def _beam() -> Any:
    """pipeline.work, and with it Beam, imported late and without the remarks it makes on packages it lacks."""
    with without_remarks():
        from pipeline import work
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    return work


def _discard_what_differs(corpus: Path, stages: list[Any]) -> None:
    """--overwrite: the stage asked for is made again, an earlier one only if its settings differ, and then all after.

    What is made from other items than before is of no use, and would only be found by readers: it goes too.
    """
    for number, stage in enumerate(stages):
        stored = tables.stored_settings(corpus, stage)
        if stage is not stages[-1] and (stored is None or stored == stage.settings()):
            continue
        stale = tables.ORDER[tables.ORDER.index(stage.name) :] if number == 0 else [stage.name]
        for name in stale:
            if tables.discard(corpus, name) and name not in [stage.name for stage in stages]:
                say(f"note: what stage {name} had made from the old tables is removed; its answers stay in the cache")
        return


def _num_items(corpus: Path, num_shards: int) -> int:
    planned = corpora.read_json(state_folder(corpus) / shards.PLAN / "plan.json")
    if planned:
        return planned["items"]
    sidecars = (shards.read_sidecar(corpus, "ingest", index) for index in range(num_shards))
    return sum(sidecar["items"] for sidecar in sidecars if sidecar)


def _tell(corpus: Path, stages: list[Any], num_shards: int, fresh: bool, options: argparse.Namespace) -> int:
    """Print the counts by table, view and failure reason, and what to type next; returns the number of failures."""
    if not fresh:
        say("nothing to do: every shard is there, made with these settings")
    failed = 0
    for stage in stages:
        for table in map(lambda name: corpora.Table(corpus, name), stage.tables):
            say(f"{table.name:<14}{table.num_rows:>10,} rows  {table.num_shards:>6,} shards")
            column = {"items": "media_type", "captions": "language", "descriptions": "view"}[table.name]
            for (value,), count in sorted(values(table, column).items()):
                say(f"  {value:<12}{count:>10,}")
        failures = corpora.Table(corpus, stage.tables[0]).failures()
        failed += len(failures)
        reasons = collections.Counter(failure["error"] for failure in failures)
        for reason, count in reasons.most_common():
            say(f"  failed: {reason:<12}{count:>6,}  (listed in {corpus / stage.tables[0] / corpora.FAILURES})")
    where = options.output
    _show_rows(corpora.Table(corpus, stages[-1].tables[0]))
    say(f"card: {where / 'README.md'}")
    if options.stage == "ingest":
        say(f"next: python beam_runner.py --stage captions --output {where}")
    else:
        say(f"next: python beam_runner.py --stage verify --output {where}")
    return failed


def _show_rows(table: corpora.Table, count: int = 5) -> None:
    """A few rows for the eye, spread over the table's first shard."""
    width = shutil.get_terminal_size((120, 24)).columns
    shard = table.shard(0, check=True)
    for number in range(min(count, shard.num_rows)):
        row = shard.slice(number * shard.num_rows // count, 1).to_pylist()[0]
        told = (
            f"{row['view']}: {row['text']}" if "view" in row else f"{row['media_type']} {row['width']}×{row['height']}"
        )
        line = f"  {row['item_id']}  {told}"
        say(line if len(line) <= width else f"{line[: width - 1]}…")
