"""`--stage update`: take in what has changed in the input of a corpus, and bring all its tables and indexes up to date.

    listing, compared with the plan → the next corpus, next to the present one → every stage that was run, with the
    options it was run with → published → the indexes of the corpus

Only what is new is paid for: an item that is only renamed or moved keeps its rows. Until the next corpus is complete,
the old tables stay as they are, and searches use the old index until the new one is published.
"""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.card.card import update_card
from pipeline.corpus.changes import Changes
from pipeline.corpus.commit import ORDER, stored_settings
from pipeline.corpus.next_corpus import begin, begun_stages, finish_publishing, is_whole, next_folder, publish
from pipeline.corpus.table import INDEXES, cache_folder, complete, read_json, state_folder, write_json
from pipeline.engine.run_state import locked
from pipeline.errors import PipelineError, UsageError
from pipeline.options import option_fields, read_options
from stages.driver import RunOptions, say
from stages.ingest import PLAN_SCHEMA, Ingest, IngestOptions, open_ingest
from stages.options import parse

COMMAND = "command.json"


def main(parsed: argparse.Namespace, beam_arguments: list[str]) -> int:
    """Run the stage; returns the exit status."""
    run, ingest_options = read_options(RunOptions, parsed), read_options(IngestOptions, parsed)
    corpus = run.corpus
    if stored_settings(corpus, Ingest()) is None:
        raise UsageError(
            f"{corpus} has no items of its own to update. Give a corpus that --stage ingest has made. One that was "
            "packed from others follows them when --stage pack is run again"
        )
    if {"overwrite", "dry_run"} & vars(parsed).keys():
        raise UsageError("an update neither overwrites nor tries: leave out --overwrite and --dry-run")
    with locked(corpus):
        finish_publishing(corpus)
        status = _update(corpus, open_ingest(ingest_options, corpus, strict=False), parsed, beam_arguments)
        update_card(corpus)
    return max(status, update_indexes(corpus))


def _update(corpus: Path, ingest: Ingest, parsed: argparse.Namespace, beam_arguments: list[str]) -> int:
    commands = {stage: read_command(corpus, stage) for stage in begun_stages(corpus)}
    sources = ingest.sources()
    changes = Changes(corpus, ingest.plan_rows(sources), by_content=True)
    say(f"{corpus}: {str(changes) or 'no changes'}")
    if not str(changes) and ingest.settings() == stored_settings(corpus, ingest) and is_whole(corpus):
        return 0
    entries = begin(corpus, changes, ingest.settings(), PLAN_SCHEMA, ingest.shard_size)
    folder = next_folder(corpus)
    ingest.record_plan(folder, sources, entries, say)
    status = 0
    for stage, (options, beam_options, directory) in commands.items():
        for_next = _for_next(corpus, options, parsed)
        with contextlib.chdir(directory) if Path(directory).is_dir() else contextlib.nullcontext():
            program = importlib.import_module(f"stages.{stage}")
            status = max(status, program.main(for_next, beam_arguments or beam_options))
    publish(corpus)
    return status


def _for_next(corpus: Path, options: Mapping[str, Any], parsed: argparse.Namespace) -> argparse.Namespace:
    """The options of a stage's last run, and those that were given now, for the next corpus."""
    ours = {*option_fields(IngestOptions), "overwrite"}  # the input's are settings of the next corpus already
    given = {name: value.absolute() if isinstance(value, Path) else value for name, value in vars(parsed).items()}
    options = {name: value for name, value in {**options, **given}.items() if name not in ours}
    if "corpus" in options:  # which pack joins
        homes = [path for (path,) in options["corpus"]]
        options["corpus"] = [(next_folder(corpus) if home.absolute() == corpus else home,) for home in homes]
    cache = options.get("cache") or cache_folder(corpus)
    return argparse.Namespace(**{**options, "output": next_folder(corpus), "cache": cache, "brief": True})


def record_command(parsed: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Keep the options of a stage's run with the corpus, so that an update can run it again."""
    folder = state_folder(read_options(RunOptions, parsed).corpus) / parsed.stage
    if folder.is_dir() and not hasattr(parsed, "dry_run"):
        write_json(folder / COMMAND, {"arguments": list(arguments), "folder": os.getcwd()})  # noqa: PTH109


def read_command(corpus: Path, stage: str) -> tuple[Mapping[str, Any], list[str], str]:
    """The options of a stage's last run, those for Beam, and the working directory in which they were given.

    Raises:
        UsageError: They were not recorded.
    """
    command = read_json(state_folder(corpus) / stage / COMMAND)
    if command is None and stage == ORDER[0]:
        command = {"arguments": ["--stage", stage], "folder": "."}  # its options are settings of the corpus
    if command is None:
        raise UsageError(
            f"{corpus} does not say with which options --stage {stage} made its tables: they are recorded when it has "
            "run to its end. Run it once more, with the options as before, and then the update again"
        )
    options, beam_arguments = parse(command["arguments"])
    return vars(options), beam_arguments, command["folder"]


def update_indexes(corpus: Path) -> int:
    """Bring the indexes that were made from the corpus up to date; returns the exit status."""
    status = 0
    for index in map(Path, read_json(state_folder(corpus) / INDEXES) or ()):
        if not complete(index.parent, index.name):
            continue  # it was deleted
        from stages.index import bring_up_to_date

        try:
            bring_up_to_date(index)
        except PipelineError as error:
            print(f"error: {index} was not updated: {error}", file=sys.stderr, flush=True)
            status = error.status
    return status
