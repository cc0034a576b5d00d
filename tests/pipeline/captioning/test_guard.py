"""Nothing of a guarded server is left once its owner or the server itself has ended."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT

GUARD = "import sys; from pipeline.captioning import guard; guard.GRACE_S = {grace}; sys.exit(guard.main(sys.argv[1:]))"
# Writes the pids of itself and of two children; with "deaf" all ignore SIGTERM, with "die" it ends at once.
SERVER = """
import os, signal, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
pids = [os.getpid()]
for _ in range(2):
    pid = os.fork()
    if not pid:
        time.sleep(600)
    pids.append(pid)
def end(*_):
    open(sys.argv[1] + ".ended", "w").close()
    os._exit(0)
if "deaf" not in sys.argv:
    signal.signal(signal.SIGTERM, end)
open(sys.argv[1] + ".tmp", "w").write(" ".join(map(str, pids)))
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
if "die" in sys.argv:
    os.kill(os.getpid(), signal.SIGKILL)
if "leave" in sys.argv:
    os._exit(7)
time.sleep(600)
"""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return met


@pytest.fixture
def start(tmp_path):
    """Start a guarded server: start("deaf") → (the guard's process, pids of server and children)."""
    guards, notes = [], tmp_path / "pids"

    def start(*mode, grace=5.0):
        command = [GUARD.format(grace=grace), sys.executable, "-S", "-c", SERVER, str(notes), *mode]
        guard = subprocess.Popen(
            [sys.executable, "-c", *command], stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True
        )
        guards.append(guard)
        assert wait_for(notes.exists)
        return guard, list(map(int, notes.read_text().split()))

    yield start
    for guard in guards:
        guard.stdin.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(guard.pid, signal.SIGKILL)
        guard.wait()


@pytest.mark.parametrize(("mode", "status"), [([], 0), (["deaf"], -signal.SIGKILL)])
def test_the_group_ends_when_the_pipe_closes_with_a_grace(start, tmp_path, mode, status):
    guard, pids = start(*mode, grace=1.0)
    assert all(map(alive, pids))
    guard.stdin.close()
    assert guard.wait(5) == status
    assert wait_for(lambda: not any(map(alive, pids)), 2)
    assert (tmp_path / "pids.ended").exists() == (not mode)


@pytest.mark.parametrize(("mode", "status"), [("die", 128 + signal.SIGKILL), ("leave", 7)])
def test_children_end_with_the_server_and_its_status_is_returned(start, mode, status):
    guard, pids = start(mode)
    assert guard.wait(5) == status
    assert not any(map(alive, pids))
