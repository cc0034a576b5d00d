"""`--stage update`: take in what has changed in the input of a corpus, and bring all its tables and indexes up to date.

    listing, compared with the plan → the next corpus, next to the present one → every stage that was run, with the
    options it was run with → published → the indexes of the corpus

Only what is new is paid for: an item that is only renamed or moved keeps its rows. Until the next corpus is complete,
the old tables stay as they are, and searches use the old index until the new one is published.
"""

import argparse
import contextlib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.card.card import update_card
from pipeline.corpus.changes import Changes
from pipeline.corpus.commit import ORDER, stored_settings
from pipeline.corpus.next_corpus import begin, begun_stages, finish_publishing, is_whole, next_folder, publish
from pipeline.corpus.shards import write_stamps
from pipeline.corpus.table import INDEXES, MANIFEST, cache_folder, manifest_hash, read_json, state_folder, write_json
from pipeline.engine.run_state import as_disk_error, locked
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
    if stored_settings(corpus, Ingest.name) is None:
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
    stages = begun_stages(corpus)
    by_command = (state_folder(corpus) / "embed" / COMMAND).exists()
    if not by_command or "parts" not in (stored_settings(corpus, "embed") or {}):  # as earlier versions recorded it
        stages = [stage for stage in stages if stage != "embed"]  # which index.py has run, and will run again
    commands = {stage: read_command(corpus, stage) for stage in stages}
    if {"captions", "translate"} & commands.keys():
        del commands[ORDER[0]]  # they run it themselves
    sources = ingest.sources()
    changes = Changes(corpus, ingest.plan_rows(sources), by_content=True)
    say(f"{corpus}: {str(changes) or 'no changes'}")
    if not str(changes) and ingest.settings() == stored_settings(corpus, Ingest.name) and is_whole(corpus):
        for index, (rows, _) in enumerate(changes.parts(ingest.shard_size)):
            write_stamps(corpus, index, rows)  # files may have other times now, and the same content
        return 0
    entries = begin(corpus, stages, changes, ingest.settings(), PLAN_SCHEMA, ingest.shard_size)
    ingest.record_plan(next_folder(corpus), sources, entries, say)
    status = 0
    for stage, (options, beam_options, folder) in commands.items():
        with _directory(folder):
            program = importlib.import_module(f"stages.{stage}")
            status = max(status, program.main(_for_next(corpus, options, parsed), beam_arguments or beam_options))
    publish(corpus)
    return status


def _for_next(corpus: Path, options: argparse.Namespace, given: argparse.Namespace) -> argparse.Namespace:
    """The options of a stage's last run, and over them those that were given now, for the next corpus."""
    here = {name: value.absolute() if isinstance(value, Path) else value for name, value in vars(given).items()}
    merged = {"cache": cache_folder(corpus), **vars(options), **here}
    for name in (*option_fields(IngestOptions), "overwrite"):  # settings of the next corpus already
        merged.pop(name, None)
    if "corpus" in merged:  # which pack joins
        homes = [home.absolute() for (home,) in merged["corpus"]]
        merged["corpus"] = [(next_folder(corpus) if home == corpus else home,) for home in homes]
    return argparse.Namespace(**{**merged, "output": next_folder(corpus), "brief": True})


def record_command(parsed: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Keep the options of a stage's run with the corpus, so that an update can run it again."""
    corpus = read_options(RunOptions, parsed).corpus
    folder = state_folder(corpus) / parsed.stage
    if folder.is_dir() and not hasattr(parsed, "dry_run"):
        try:
            write_json(folder / COMMAND, {"arguments": list(arguments), "folder": str(Path.cwd())})
        except OSError as error:
            raise as_disk_error(error, corpus) from error


def read_command(corpus: Path, stage: str) -> tuple[argparse.Namespace, list[str], str]:
    """The options of a stage's last run, those for Beam, and the working directory in which they were given.

    Raises:
        UsageError: They were not recorded.
    """
    command = read_json(state_folder(corpus) / stage / COMMAND)
    if command is None and stage == ORDER[0]:  # whose options are settings of the corpus
        command = {"arguments": ["--stage", stage], "folder": "."}
    if command is None:
        raise UsageError(
            f"{corpus} does not say with which options --stage {stage} made its tables: they are recorded when it has "
            "run to its end. Run it once more, with the options as before, and then the update again"
        )
    return *parse(command["arguments"]), command["folder"]


def update_indexes(corpus: Path) -> int:
    """Make the indexes again that were made from another version of the corpus; returns the exit status."""
    status = 0
    for index, command in (read_json(state_folder(corpus) / INDEXES) or {}).items():
        manifest, present = read_json(Path(index) / MANIFEST), manifest_hash(corpus, "training")
        if manifest is None or present in (of["training"] for of in manifest["origin"]["corpora"]):
            continue  # it was deleted, or is up to date
        try:
            with _directory(command["folder"]):
                importlib.import_module("stages.index").main(command["arguments"])
        except PipelineError as error:
            print(f"error: {index} was not updated: {error}", file=sys.stderr, flush=True)
            status = error.status
    return status


def _directory(folder: str) -> contextlib.AbstractContextManager[None]:
    """The working directory for the time of a block, if it is still there."""
    return contextlib.chdir(folder) if Path(folder).is_dir() else contextlib.nullcontext()
