"""Write synthetic scenes: a whole corpus to train and score on.

python -m pipeline.sources.scenes --output CORPUS --items 3000 --videos 0.1
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.options import add_options, read_options
from pipeline.sources.scenes.corpus import Settings, write_corpus


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.sources.scenes", description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the corpus")
    add_options(parser, Settings)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the corpus. Returns the exit status."""
    options = parser().parse_args(argv)
    try:
        write_corpus(options.output, read_options(Settings, options), print)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
