"""The data pipeline's program: python beam_runner.py --stage captions [--input FOLDER] [--output CORPUS].

Runs `main` of stages/STAGE.py. Exit status: 0 done; 1 failures with --strict, or a corpus that does not verify;
2 usage or settings; 3 failure budget spent; 4 environment (no server, disk full); 130 interrupted.
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence

from pipeline.errors import PipelineError
from stages.options import parse


def run(argv: Sequence[str] | None = None) -> int:
    """Run a stage; returns the exit status. A user's mistake ends in a message, never a traceback."""
    try:
        options, beam_arguments = parse(sys.argv[1:] if argv is None else argv)
        status: int = importlib.import_module(f"stages.{options.stage}").main(options, beam_arguments)
        return status
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:  # `… | head` has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("error: interrupted. Finished shards are kept; run the same command again to resume", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(run())
