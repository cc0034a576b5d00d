"""The data pipeline's program: python beam_runner.py --stage captions [--input FOLDER] [--output CORPUS].

Runs `main` of stages/STAGE.py. Exit status: 0 done; 1 failures with --strict, or a corpus that does not verify;
2 usage or settings; 3 failure budget spent; 4 environment (no server, disk full); 130 interrupted.
"""

import importlib
import sys
from collections.abc import Sequence

from stages.processes import exit_status

INTERRUPTED = "error: interrupted. Finished shards are kept; run the same command again to resume"


def run(argv: Sequence[str] | None = None) -> int:
    """Run a stage; returns the exit status. A user's mistake ends in a message, never a traceback."""

    def run_stage() -> int:
        from stages.options import parse  # here, because Ctrl-C during the import should end in a message too
        from stages.update import record_command

        arguments = sys.argv[1:] if argv is None else argv
        options, beam_arguments = parse(arguments)
        status: int = importlib.import_module(f"stages.{options.stage}").main(options, beam_arguments)
        record_command(options, arguments)
        return status

    return exit_status(run_stage, INTERRUPTED, sigterm=True)


if __name__ == "__main__":
    sys.exit(run())
