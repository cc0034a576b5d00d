"""The same through `accelerate launch`, as a user starts it."""

import os
import signal
import subprocess
import sys

from tests.conftest import ROOT, clean_environment


def test_accelerate_launch_on_two_processes_gives_the_gradients_of_one():
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    process = subprocess.Popen(
        [*command, str(ROOT / "tests" / "distributed" / "launched.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=clean_environment(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT)),
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    distances = [float(word) for word in out.split()]
    assert len(distances) == 2 and max(distances) < 1e-9
