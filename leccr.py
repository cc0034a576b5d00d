"""The console script `leccr`: every program by its name, `leccr captions …`, `leccr train …`, `leccr search …`.

leccr find PHOTOS "eine Katze"                    describes and indexes a folder of pictures, then searches it
leccr captions --input PHOTOS --output CORPUS     the same as python beam_runner.py --stage captions …
leccr search --index INDEX "eine Katze"           the same as python stages/search.py …
accelerate launch "$(which leccr)" train …        on several GPUs
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stages.retrieval.engine import Filters, Hit, Index, Query

__version__ = "0.2.0"
__all__ = ["Filters", "Hit", "Index", "Query", "main"]

STAGES = {
    "ingest": "list and check images and videos, with the captions next to them",
    "captions": "describe every image or video from several views",
    "translate": "translate English texts into scored pseudo-parallel pairs",
    "pack": "join media, captions, translations and descriptions into training shards",
    "update": "take in what has changed in the input, and bring tables and indexes up to date",
    "verify": "recompute every checksum and count of a corpus",
    "export": "write a corpus as Parquet with a card, and upload it to the Hugging Face Hub",
}
PROGRAMS = {
    "find": "make a folder of pictures searchable, and search it",
    "train": "train a model on packed corpora",
    "score": "score a model on a split",
    "index": "make a corpus searchable",
    "search": "search an index with words in any language, or with a picture",
    "serve": "search page and HTTP API of an index",
    "mcp_server": "search for assistants, over the Model Context Protocol",
}
COMMANDS = {"find": PROGRAMS["find"]} | STAGES | PROGRAMS
USAGE = "\n".join(
    [
        "usage: leccr COMMAND [options]",
        "",
        *(f"  {name.replace('_', '-'):<10} {summary}" for name, summary in COMMANDS.items()),
        "",
        "leccr COMMAND --help lists the options of a command.",
    ]
)


def __getattr__(name: str) -> Any:
    """The search engine, which takes longer to import than the commands should: `from leccr import Index`."""
    if name not in __all__:
        raise AttributeError(name)
    return getattr(importlib.import_module("stages.retrieval.engine"), name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The command and its options. By default those of this process.

    Returns:
        The exit status of the command; 2 for a command that does not exist.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0).replace("mcp-server", "mcp_server") if arguments else "--help"
    if command in STAGES and arguments and arguments[0][0] != "-":  # leccr update CORPUS, or what find made of a folder
        from stages.retrieval.collection import corpus_of

        corpus = corpus_of(arguments[0])
        is_corpus = any((Path(corpus) / name).is_dir() for name in (".state", "items"))
        if command == "update" and Path(corpus).is_dir() and not is_corpus:
            command = "find"
        else:
            arguments = ["--output", corpus, *arguments[1:]]
    if command in STAGES:
        from beam_runner import run

        return run(["--stage", command, *arguments])
    if command in PROGRAMS:
        from stages.processes import run_program

        program = importlib.import_module(f"stages.{command}")
        sys.argv = [str(program.__file__), *arguments]  # what a launcher starts again, once per process
        return run_program(program.main)
    if command in ("--version", "--help", "-h"):
        print(f"leccr {__version__}" if command == "--version" else USAGE)
        return 0
    print(f"error: there is no command {command!r}.\n\n{USAGE}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
