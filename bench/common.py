"""What the benchmarks share: programs measured from outside, JPEGs distinguished by a comment, formatted figures."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"  # photos, clips and texts that are not part of the project


# The system counts the memory that a process had before it became another program: a small one in between keeps the
# benchmark's own out of the measure. Processes that the program leaves behind become this one's children: they have
# GRACE_S to end by themselves and count as well. SIGTERM kills the program and all of its processes.
LAUNCHER = """
import ctypes, json, os, resource, signal, sys, time
PR_SET_CHILD_SUBREAPER, GRACE_S = 36, 10
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
began = time.monotonic()
program = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
statuses, killed = {}, []
signal.signal(signal.SIGTERM, lambda *_: (killed.append(1), program in statuses or os.kill(program, signal.SIGKILL)))
while program not in statuses:
    pid, status = os.wait()
    statuses[pid] = status
seconds = time.monotonic() - began
children = f"/proc/self/task/{os.getpid()}/children"
while left := open(children).read().split():
    if killed or time.monotonic() - began > seconds + GRACE_S:
        for pid in left:
            os.kill(int(pid), signal.SIGKILL)
    time.sleep(0.02)
    for pid in left:
        os.waitpid(int(pid), os.WNOHANG)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
measures = [seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]
print("", json.dumps([os.waitstatus_to_exitcode(statuses[program]), *measures]), sep="\\n")
"""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A program run to its end: seconds by the clock, CPU seconds (user and system), peak memory in MiB, its output."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    output: str


def measured(command: Sequence[object]) -> Measured:
    """Run a program in the project's folder; its own CPU and memory are as the system accounts for them at its end.

    Raises SystemExit with the end of its output where it fails.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LECCR_")}
    launched = [sys.executable, "-I", "-S", "-c", LAUNCHER, *map(str, command)]
    done = subprocess.run(
        launched, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    output, _, last = done.stdout.strip("\n").rpartition("\n")
    status, wall_s, cpu_s, peak_mib = json.loads(last)
    if status:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {status}:\n{output[-4000:]}")
    return Measured(wall_s, cpu_s, peak_mib, output.rstrip("\n"))


def stage(name: str, corpus: Path, *arguments: object) -> Measured:
    """A stage as the user runs it."""
    return measured([sys.executable, "beam_runner.py", "--stage", name, "--output", corpus, *arguments])


def commented(jpeg: bytes, comment: str) -> bytes:
    """The same picture under other bytes: a JPEG comment after its first marker."""
    text = comment.encode()
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`median (least to greatest)`; a single value as it is."""
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def machine() -> str:
    """The machine at this moment, its GPU if torch was loaded: a noisy neighbour should show beside the numbers."""
    torch = sys.modules.get("torch")
    gpu = f"{torch.cuda.get_device_name()}, " if torch and torch.cuda.is_available() else ""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{gpu}{os.cpu_count()} processors, load {load} (1, 5, 15 min), Python {sys.version.split()[0]}"
