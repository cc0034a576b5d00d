"""Whatever happens to the one who started a server, nothing of it is left."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT

GUARD = "import sys; from pipeline.captioning import guard; guard.GRACE_S = {grace}; sys.exit(guard.main(sys.argv[1:]))"
# Tells the pids of itself and of two children; with "deaf" none of them heeds SIGTERM, with "die" it ends at once.
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
OWNER = """
import subprocess, sys
guard = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], stdin=subprocess.PIPE)
guard.wait()
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
    """Start a guarded server: start("deaf") → (the guard's or owner's process, pids of server and children)."""
    begun, told = [], tmp_path / "pids"

    def start(*mode, grace=5.0, owner=(), **more):
        command = [GUARD.format(grace=grace), sys.executable, "-S", "-c", SERVER, str(told), *mode]
        process = subprocess.Popen(
            [sys.executable, "-c", *owner, *command], stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True, **more
        )
        begun.append(process)
        assert wait_for(told.exists)
        pids = [int(word) for word in told.read_text().split()]
        begun.extend(pids)
        return process, pids

    yield start
    for process in begun:
        if isinstance(process, subprocess.Popen):
            process.stdin.close()
            process.kill()
            process.wait()
        elif alive(process):
            os.kill(process, signal.SIGKILL)


def test_the_group_ends_when_the_pipe_closes_and_the_server_may_tidy_up(start, tmp_path):
    guard, pids = start()
    assert all(map(alive, pids))
    guard.stdin.close()
    assert guard.wait(5) == 0
    assert not any(map(alive, pids))
    assert (tmp_path / "pids.ended").exists()


def test_those_who_do_not_heed_sigterm_are_killed_after_the_grace(start):
    guard, pids = start("deaf", grace=0.5)
    began = time.monotonic()
    guard.stdin.close()
    assert guard.wait(5) == -signal.SIGKILL
    assert 0.5 <= time.monotonic() - began < 3
    assert wait_for(lambda: not any(map(alive, pids)), 2)


def test_children_end_after_a_server_that_dies_or_leaves_them(start):
    guard, pids = start("die")
    assert guard.wait(5) == 128 + signal.SIGKILL
    assert not any(map(alive, pids))


def test_the_status_is_the_servers(start):
    guard, pids = start("leave")
    assert guard.wait(5) == 7
    assert not any(map(alive, pids))


def test_an_owner_that_is_killed_leaves_nothing(start):
    owner, pids = start(owner=(OWNER,))
    owner.kill()
    owner.wait()
    assert wait_for(lambda: not any(map(alive, pids)), 5)


def test_ctrl_c_at_the_terminal_is_for_the_owner_alone(start):
    owner, pids = start(owner=(f"import signal; signal.signal(signal.SIGINT, lambda *_: None)\n{OWNER}",))
    os.killpg(owner.pid, signal.SIGINT)
    guard = int(subprocess.run(["ps", "-o", "ppid=", str(pids[0])], capture_output=True, check=True).stdout)
    os.kill(guard, signal.SIGINT)
    time.sleep(0.3)
    assert owner.poll() is None
    assert all(map(alive, [guard, *pids]))


def test_a_command_that_is_no_program_is_told(start):
    command = [sys.executable, str(ROOT / "pipeline" / "captioning" / "guard.py"), "/no/such/program"]
    told = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False)
    assert told.returncode == 1
    assert "/no/such/program" in told.stderr
