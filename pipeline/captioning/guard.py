"""Runs a command in a process group of its own and ends the whole group when the guard's standard input closes.

    python guard.py COMMAND …

Whoever starts the guard holds the other end of that pipe. However that process ends, SIGKILL included, the system
closes the pipe, so no server is left holding a GPU. It imports only the standard library, so that it runs by path.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

GRACE_S = 20.0


def main(command: list[str]) -> int:
    """Run the command and return its exit status, as a shell reports it."""
    with contextlib.suppress(PermissionError):  # a session leader has its group already
        os.setpgid(0, 0)
    # Ctrl-C is for the holder of the pipe, and the group's SIGTERM is sent from here. A handler that does nothing is
    # not inherited by the server, as SIG_IGN would be.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_wait_for_pipe, args=(server,), daemon=True).start()
    status = server.wait()
    _end_group(server)
    return status if status >= 0 else 128 - status


def _wait_for_pipe(server: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1):  # a thread waiting in sys.stdin would hold its lock at exit
        pass
    _end_group(server)
    os._exit(0)


def _end_group(server: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to the group, wait, then send SIGKILL to the group, the guard included."""
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and (server.poll() is None or _others()):
        time.sleep(0.1)
    if server.poll() is None or _others():
        os.killpg(0, signal.SIGKILL)


def _others() -> bool:
    """Whether live processes other than the guard are left in its group."""
    mine, group = os.getpid(), os.getpgid(0)
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit() and int(name) != mine:
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="latin-1") as stat:  # noqa: PTH123
                state, _, its_group = stat.read().rpartition(")")[2].split()[:3]
                if int(its_group) == group and state != "Z":
                    return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
