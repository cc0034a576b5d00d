"""The run of a Beam stage: lock the corpus, compare settings, make the missing shards, close the tables, report."""

import argparse
import dataclasses
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from pipeline.card.card import update_card
from pipeline.corpus import commit
from pipeline.corpus.next_corpus import finish_publishing
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import Table, cache_folder, complete, refuse_others, state_folder
from pipeline.engine.progress import FailureBudget, Monitor
from pipeline.engine.run_state import locked, run_token, stopped_by_signals
from pipeline.engine.stage import Run, Stage
from pipeline.errors import UsageError
from pipeline.optional import load_pyarrow, quiet_imports
from pipeline.options import option
from pipeline.storage.files import location, shared_folder
from pipeline.storage.folders import Folders
from stages.summary import report

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of every stage."""

    output: Path = option(
        Path("corpus"), "corpus folder, or s3://BUCKET/CORPUS (gs://, az://)", parse=location, metavar="CORPUS"
    )
    overwrite: bool = option(False, "make the stage's tables again, and earlier ones whose settings differ")
    strict: bool = option(False, "exit 1 if a record failed or something in --input was not taken")
    max_failures: FailureBudget = option(
        FailureBudget(),
        "failed records of a stage that stop the run: a count, or a fraction as 0.01 or 1%% "
        "(default: 1%% of the records, but at least 10)",
        parse=FailureBudget,
        metavar="N|FRACTION",
    )
    cache: Path | None = option(None, "folder of the response cache (default: CORPUS/.state/cache)", metavar="DIR")
    brief: bool = option(False, argparse.SUPPRESS)  # part of an update, which reports and writes the card by itself

    @property
    def corpus(self) -> Path:
        """The corpus folder as an absolute path.

        Raises:
            UsageError: It is a folder that holds something else than a corpus.
        """
        corpus = self.output.absolute()
        if not (state_folder(corpus).is_dir() or any(complete(corpus, table) for table in SCHEMAS)):
            refuse_others(corpus, "--output", ("lost+found",))
        return corpus


def say(line: str) -> None:
    """Print a line for the user. What a terminal would obey, in the texts of others, is escaped."""
    print(CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), line), flush=True)


def run_stages(options: RunOptions, beam_arguments: Sequence[str], open_stages: Callable[[], list[Stage]]) -> int:
    """Make the tables of some stages and report what they hold.

    Args:
        options: Options of the run.
        beam_arguments: The command line's options for Beam.
        open_stages: Returns the stages, each made from the tables of the ones before. Called while the corpus is
            locked.

    Returns:
        The exit status.
    """
    corpus = options.corpus
    load_pyarrow()
    if beam_arguments:  # checked before anything is begun; without them, Beam may not be needed at all
        import_beam().beam_options(beam_arguments)
    with locked(corpus):
        finish_publishing(corpus)
        stages = open_stages()
        if options.overwrite:
            _discard_outdated(corpus, stages)
        for stage in stages:
            commit.check_settings(corpus, stage)
        if not options.brief and (notice := stages[0].notice(corpus)):
            say(notice)
        num_shards, num_items = stages[0].plan(corpus, say)
        cache = options.cache.absolute() if options.cache else cache_folder(corpus)
        run = Run(run_token(corpus), corpus, num_shards, cache, shared_folder(state_folder(corpus) / "answers"))
        monitor = Monitor(run, stages, num_items, options.max_failures)
        changed = _make_shards(run, beam_arguments, stages, monitor)
        if any([stage.revise(run) for stage in stages]):
            changed = _make_shards(run, beam_arguments, stages, monitor)
        files = Folders()
        monitor.check_budget(num_shards, files)
        try:
            for stage in stages:
                commit.close(corpus, stage, num_shards, files)
        except UsageError:  # the stage found, once its parents were complete, that it has nothing to do
            commit.discard(corpus, stage.name)
            update_card(corpus)
            raise
        if options.brief:
            failures = (Table(corpus, stage.tables[0]).manifest["failures"] for stage in stages)
            return 1 if any(failures) and options.strict else 0
        update_card(corpus)
        num_failed = report(corpus, options.output, stages, changed, say)
    return 1 if num_failed and options.strict else 0


def _make_shards(run: Run, beam_arguments: Sequence[str], stages: list[Stage], monitor: Monitor) -> bool:
    """Make the shards that are missing or were finished with failures; returns whether there were any."""
    missing = commit.begin(run, stages)
    if not any(missing.values()):
        return False
    beam = import_beam()
    beam_options = beam.beam_options(beam_arguments)
    *earlier, last = stages

    def make(ready: list[Stage]) -> None:
        for stage in ready:
            if missing[stage.name]:
                commit.mark_incomplete(run.corpus, stage.tables)
        indices = sorted(frozenset().union(*(missing[stage.name] for stage in ready)))
        with monitor.running(run.num_shards, missing):
            beam.run_stages(run, ready, indices, beam_options)

    with stopped_by_signals(run.corpus, run.token):
        if earlier and not missing[last.name]:
            # Only the items that failed before show whether the last stage has work, and needs its server.
            make(earlier)
            missing = commit.begin(run, stages)
            if not missing[last.name]:
                return True
        with last.ready(run.corpus, say) as ready:
            make([*earlier, ready])
    return True


def _discard_outdated(corpus: Path, stages: list[Stage]) -> None:
    """`--overwrite`: discard the tables of the last stage, and of an earlier one if its settings differ.

    If the items are made anew, the tables of all later stages describe items that are gone: they are discarded as well.
    """
    for stage in stages:
        stored = commit.stored_settings(corpus, stage.name)
        if stage is not stages[-1] and (stored is None or stored == stage.settings()):
            continue
        if stored is not None and stage.keeps(stored):
            commit.reopen(corpus, stage)
            return
        makes_items = stage.name == commit.ORDER[0]
        for name in commit.ORDER if makes_items else [stage.name]:
            if commit.discard(corpus, name) and name not in [stage.name for stage in stages]:
                say(f"note: removed the tables of stage {name}, made from the old items. Answers stay in the cache")
        return


def import_beam() -> ModuleType:
    """`pipeline.engine.beam`. Imported late, because Beam takes longer to import than all the rest."""
    with quiet_imports():
        from pipeline.engine import beam
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    return beam
