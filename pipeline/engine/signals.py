"""Ctrl-C and SIGTERM end a run in order: whole shards stay, the server is ended. A second one ends it at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.engine.run_state import ask_to_stop
from pipeline.errors import Interrupted


@contextlib.contextmanager
def ended_by_signals(corpus: Path) -> Iterator[None]:
    """For as long as Beam and the servers run. Outside of it both signals end the process as they always do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def stop(number: int, _frame: Any) -> None:
        if asked:
            print("error: interrupted twice: ended at once", file=sys.stderr, flush=True)
            os._exit(128 + number)
        asked.append(number)
        name = signal.Signals(number).name
        message = f"ended by {name}: what was finished is kept; run the same command again to go on"
        ask_to_stop(corpus, Interrupted(message))

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
