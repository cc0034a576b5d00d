"""The stages as the user runs them: settings resolved and compared, work done, the result told."""

import argparse
import contextlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.captioning import choose
from pipeline.card.card import write_card
from pipeline.corpus import commit as tables
from pipeline.corpus import shards
from pipeline.corpus import table as corpora
from pipeline.corpus.schema import SCHEMAS
from pipeline.engine.progress import Monitor
from pipeline.engine.run_state import locked, run_token, stopped_by_signals
from pipeline.engine.stage import Run, Stage
from pipeline.errors import UsageError
from stages.dry_run import dry_run
from stages.ingest import Ingest, plan
from stages.options import without_remarks
from stages.pack import Pack
from stages.stage_settings import captions_stage, has_text, ingest_stage, no_text, pack_stage, translate_stage
from stages.summary import tell
from stages.verify import verify


def say(line: str) -> None:
    print(line, flush=True)


def ingest(options: argparse.Namespace, beam_arguments: list[str]) -> int:
    corpus = _corpus_folder(options.output)
    return _make(corpus, lambda: [ingest_stage(options, corpus)], options, beam_arguments)


def captions(options: argparse.Namespace, beam_arguments: list[str]) -> int:
    corpus = _corpus_folder(options.output)
    stage = captions_stage(options, corpus, say)
    if options.dry_run:
        return dry_run(ingest_stage(options, corpus), stage, options, say)
    return _make(corpus, lambda: [ingest_stage(options, corpus), stage], options, beam_arguments)


def translate(options: argparse.Namespace, beam_arguments: list[str]) -> int:
    corpus = _corpus_folder(options.output)
    stage = translate_stage(options, corpus, say)
    status = _make(corpus, lambda: [ingest_stage(options, corpus), stage], options, beam_arguments)
    if has_text(corpus, stage) is False:  # found out only now that its input is read
        tables.discard(corpus, stage.name)
        write_card(corpus)
        raise no_text(options, corpus)
    return status


def pack(options: argparse.Namespace, beam_arguments: list[str]) -> int:
    corpus = _corpus_folder(options.output)
    pack_stage(options, corpus).check_tables()  # before there is an output folder

    def checked() -> list[Stage]:
        stage = pack_stage(options, corpus).look()
        stage.check(say)
        return [stage]

    return _make(corpus, checked, options, beam_arguments)


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


PROGRAMS = {"ingest": ingest, "captions": captions, "translate": translate, "pack": pack, "verify": verify_corpus}


def _make(
    corpus: Path, stages_now: Callable[[], list[Stage]], options: argparse.Namespace, beam_arguments: list[str]
) -> int:
    """Make the tables of the stages, each from the one before, tell what came out; returns the exit status."""
    if beam_arguments:  # before anything is begun; without them, Beam may not be needed at all
        _beam().beam_options(beam_arguments, say)
    with locked(corpus):
        stages = stages_now()
        if options.overwrite:
            _discard_what_differs(corpus, stages)
        for stage in stages:
            tables.check_settings(corpus, stage)
        num_shards, num_items = _planned(corpus, stages[0])
        monitor = Monitor(corpus, stages, num_items, options.max_failures)
        fresh = _make_shards(corpus, stages, num_shards, options, beam_arguments, monitor)
        monitor.check_budget(num_shards)
        for stage in stages:
            tables.close(corpus, stage, num_shards)
        if fresh or not (corpus / "README.md").exists():
            write_card(corpus)
        failed = tell(corpus, stages, fresh, options, say)
    return 1 if failed and options.strict else 0


def _planned(corpus: Path, first: Stage) -> tuple[int, int]:
    """Shards and items that the first stage makes."""
    if isinstance(first, Pack):
        return first.planned()
    assert isinstance(first, Ingest)
    num_shards = plan(corpus, first, say)
    planned = corpora.read_json(corpora.state_folder(corpus) / shards.PLAN / "plan.json")
    if planned:
        return num_shards, planned["items"]
    sidecars = (shards.read_sidecar(corpus, first.name, index) for index in range(num_shards))
    return num_shards, sum(sidecar["items"] for sidecar in sidecars if sidecar)


def _make_shards(
    corpus: Path,
    stages: list[Stage],
    num_shards: int,
    options: argparse.Namespace,
    beam_arguments: list[str],
    monitor: Monitor,
) -> bool:
    """Make what is not there yet; returns whether there was anything to make."""
    states = tables.begin(corpus, stages, num_shards)
    if not any(state.open for state in states.values()):
        return False
    work = _beam()
    beam_options = work.beam_options(beam_arguments, say)
    cache = str(options.cache.absolute()) if options.cache else str(corpora.state_folder(corpus) / "cache")
    *earlier, last = stages

    def run(ready: list[Stage]) -> None:
        for stage in ready:
            if states[stage.name].open:
                for table in stage.tables:
                    (corpus / table / corpora.MANIFEST).unlink(missing_ok=True)
        retry = {name: state.retry for name, state in states.items()}
        indices = sorted(frozenset().union(*(states[stage.name].open for stage in ready)))
        with monitor.running(num_shards, {name: state.open for name, state in states.items()}):
            work.run_stages(Run(run_token(corpus), str(corpus), num_shards, retry, cache), ready, indices, beam_options)

    with stopped_by_signals(corpus), contextlib.ExitStack() as stack:
        if earlier and not states[last.name].open:
            # Whether there is anything to be done, and a server to be started, the broken items of before must tell.
            run(earlier)
            settled = {stage.name: tables.NOTHING_TO_DO for stage in earlier}
            states = tables.begin(corpus, stages, num_shards) | settled
            if not states[last.name].open:
                return True
        ready = stack.enter_context(choose.serving(last, options, corpus, say))
        run([*earlier, ready])
    return True


def _corpus_folder(output: Path) -> Path:
    """The folder that --output names: a corpus, or one that is still to be made."""
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output: got {output}, which is a file, wanted a folder")
    corpus = output.absolute()
    known = corpora.state_folder(corpus).is_dir() or any(corpora.complete(corpus, table) for table in SCHEMAS)
    others = [] if known or not corpus.is_dir() else sorted(p.name for p in corpus.iterdir() if p.name[0] != ".")
    if set(others) - {"lost+found"}:
        raise UsageError(
            f"--output: got {output}, which is no corpus and holds other things ({', '.join(others[:3])}): "
            "give a new or empty folder as --output"
        )
    return corpus


def _beam() -> Any:
    """pipeline.engine.beam, and with it Beam, imported late and without the remarks it makes on packages it lacks."""
    with without_remarks():
        from pipeline.engine import beam as work
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    return work


def _discard_what_differs(corpus: Path, stages: list[Any]) -> None:
    """--overwrite: the stage asked for is made again, an earlier one only if its settings differ, and then all after.

    What is made from other items than before is of no use, and would only be found by readers: it goes too.
    """
    for stage in stages:
        stored = tables.stored_settings(corpus, stage)
        if stage is not stages[-1] and (stored is None or stored == stage.settings()):
            continue
        if stored is not None and stage.keeps(stored):
            tables.reopen(corpus, stage)
            return
        stale = tables.ORDER[tables.ORDER.index(stage.name) :] if isinstance(stage, Ingest) else [stage.name]
        for name in stale:
            if tables.discard(corpus, name) and name not in [stage.name for stage in stages]:
                say(f"note: what stage {name} had made from the old tables is removed; its answers stay in the cache")
        return
