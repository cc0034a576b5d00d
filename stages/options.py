"""The command line of beam_runner.py: the options of every stage, checked once, here.

Each stage declares its options on a dataclass in its own file. Options that are not declared go to Beam.
"""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.captioning.captioners import ServerOptions
from pipeline.errors import UsageError
from pipeline.options import add_options, option_flags
from pipeline.translation.choose import TranslatorOptions
from stages.captions import CaptionsOptions, FrameOptions
from stages.driver import RunOptions, import_beam
from stages.embed import EmbedOptions
from stages.export import ExportOptions
from stages.ingest import IngestOptions
from stages.pack import PackOptions
from stages.processes import Parser
from stages.translate import TranslateOptions
from stages.verify import VerifyOptions

STAGES = ("ingest", "captions", "translate", "pack", "embed", "update", "verify", "export")
# By heading of the help: classes of options, and the stages that they go with.
GROUPS: Mapping[str, Sequence[tuple[type, tuple[str, ...]]]] = {
    "": [(RunOptions, STAGES)],
    "stage ingest: list, hash and check the media (tables items, captions)": [
        (IngestOptions, ("ingest", "captions", "translate", "update"))
    ],
    "stage captions: describe every item from several views (table descriptions)": [
        (CaptionsOptions, ("captions", "update")),
        (FrameOptions, ("captions", "pack", "update")),
    ],
    "chat servers: for --stage captions, and for --stage translate --translator llm": [
        (ServerOptions, ("captions", "translate", "update"))
    ],
    "stage translate: pseudo-parallel pairs, each with scores (table translations)": [
        (TranslateOptions, ("translate", "update")),
        (TranslatorOptions, ("translate", "update")),
    ],
    "stage pack: join the tables into shards to train on (table training)": [(PackOptions, ("pack", "update"))],
    "stage embed: encode what is packed, to search it (table vectors)": [(EmbedOptions, ("embed",))],
    "stage verify": [(VerifyOptions, ("verify",))],
    "stage export: tables as Parquet, with a card, to publish them": [(ExportOptions, ("export",))],
}


def parser() -> argparse.ArgumentParser:
    """The parser of our options."""
    result = Parser(
        prog="beam_runner.py",
        description="From a folder of pictures and videos to an Arrow caption corpus, its translations, and shards to "
        "train on. captions and translate first run ingest if needed. Options that "
        "are not listed here go to Apache Beam (--runner, --direct_num_workers, --direct_running_mode, "
        "--job_endpoint, --dask_client_address …).",
        allow_abbrev=False,
    )
    stage_help = (
        "ingest lists and checks the media; captions describes them; translate translates their texts; pack joins all "
        "into shards to train on; embed encodes those with a model, to search them; update takes in what has changed "
        "in the input; verify recomputes every checksum and count; export writes a corpus as others read it"
    )
    result.add_argument("--stage", choices=STAGES, required=True, help=stage_help)
    for title, owners in GROUPS.items():
        group = result.add_argument_group(title) if title else result
        for owner, _ in owners:
            add_options(group, owner)
    return result


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse a command line.

    Returns:
        Our options and the arguments for Beam.

    Raises:
        UsageError: An option is misspelt, belongs to another stage, or has a value that it cannot have.
    """
    options, rest = parser().parse_known_args(argv)
    stages_of = {flag: stages for owners in GROUPS.values() for owner, stages in owners for flag in option_flags(owner)}
    if rest:
        _check_beam_arguments(rest, [*stages_of, "--stage"])
    _check_stage(argv, stages_of, options.stage)
    return options, rest


def _check_stage(argv: Sequence[str], stages_of: Mapping[str, tuple[str, ...]], stage: str) -> None:
    """Refuse options without effect: whoever gives one expects that it has one."""
    given = {argument.split("=")[0] for argument in argv}
    misplaced = [
        f"{flag} goes with --stage {' or '.join(stages)}"
        for flag, stages in stages_of.items()
        if flag in given and stage not in stages
    ]
    if misplaced:
        raise UsageError(f"{'; '.join(misplaced)}, not with --stage {stage}. Leave it out")


def _check_beam_arguments(rest: Sequence[str], ours: Sequence[str]) -> None:
    """Refuse what is neither our option nor Beam's. Beam itself would only warn about an option it does not know."""
    beam: Any = Parser(allow_abbrev=False, add_help=False)
    for owner in import_beam().PipelineOptions.__subclasses__():
        owner._add_argparse_args(beam)
    other_runner = any(argument.split("=")[0] == "--runner" for argument in rest)
    for argument in beam.parse_known_args(rest)[1]:
        near = difflib.get_close_matches(argument.split("=")[0], [*ours, *beam._option_string_actions], 1, 0.75)
        if near or not other_runner:  # another runner may know options that Beam itself does not
            hint = f"did you mean {near[0]}?" if near else "see --help, and give inputs as --input PATH"
            raise UsageError(f"{argument!r} is not an option of this program or of Beam: {hint}")
