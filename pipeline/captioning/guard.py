"""Runs a command and ends its whole process group when the guard's standard input closes.

    python guard.py COMMAND …

Whoever starts the guard, in a session of its own, holds the other end of that pipe. However that process ends, SIGKILL
included, the system closes the pipe, so no server is left holding a GPU. It imports only the standard library, so that
it runs by path.
"""

import os
import signal
import subprocess
import sys
import threading
import time

GRACE_S = 20.0
CHILDREN_GRACE_S = 1.0  # time for the server's children, which may free shared memory


def main(command: list[str]) -> None:
    """Run the command; once it has ended, end its group, the guard included."""
    # Ctrl-C is for the holder of the pipe, and the group's SIGTERM is sent from here. A handler that does nothing is
    # not inherited by the server, as SIG_IGN would be.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_when_pipe_closes, daemon=True).start()
    server.wait()
    os.killpg(0, signal.SIGTERM)
    time.sleep(CHILDREN_GRACE_S)
    os.killpg(0, signal.SIGKILL)


def _end_when_pipe_closes() -> None:
    while os.read(0, 1):  # a thread waiting in sys.stdin would hold its lock at exit
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
