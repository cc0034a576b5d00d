"""The data pipeline's one program: python beam_runner.py --stage captions [--input FOLDER] [--output CORPUS].

Chooses a stage, runs it on Beam after the earlier stages that are missing, prints what came out, and ends with
0 done, 1 failures under --strict or a corpus that does not verify, 2 usage or settings, 3 failure budget spent,
4 environment (no server, disk full), 130 interrupted.
"""

import os
import signal
import sys
from collections.abc import Sequence

from pipeline.errors import PipelineError
from stages.driver import PROGRAMS
from stages.options import parse


def run(argv: Sequence[str] | None = None) -> int:
    """Run one stage; returns the exit status. A user's mistake ends in one message, never a traceback."""
    try:
        options, beam_arguments = parse(sys.argv[1:] if argv is None else argv)
        return PROGRAMS[options.stage](options, beam_arguments)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:  # `… | head` has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("error: interrupted: what was finished is kept; run the same command again to go on", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(run())
