"""Write synthetic scenes: a whole corpus to train and score on, or a folder of pictures for the other stages.

python -m pipeline.sources.scenes --output CORPUS --items 3000 --videos 0.1
python -m pipeline.sources.scenes --folder FOLDER
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PipelineError, UsageError
from pipeline.options import add_options, read_options
from pipeline.sources.scenes.corpus import write_corpus, write_folder
from pipeline.sources.scenes.rows import Settings


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.sources.scenes", description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, help="write a corpus into this folder")
    parser.add_argument("--folder", type=Path, help="write pictures, clips and captions.jsonl into this folder")
    add_options(parser, Settings)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write what was asked for. Returns the exit status."""
    options = parser().parse_args(argv)
    settings = read_options(Settings, options)
    try:
        if options.folder is None and options.output is None:
            raise UsageError("give --output or --folder: where to write")
        if options.output is not None:
            write_corpus(options.output, settings, print)
        if options.folder is not None:
            write_folder(options.folder, settings, print)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
