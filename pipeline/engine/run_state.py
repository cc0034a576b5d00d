"""What the processes of one run share through `CORPUS/.state`: the lock, the word to stop, the workers' progress.

Files, because Beam's workers may be threads, processes or other machines on the same file system, and a killed run
must leave nothing that confuses the next.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import errors
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import read_json, write_json
from pipeline.errors import EnvironmentTrouble, PipelineError, UsageError

STATE = ".state"
STOP = "stop.json"
LAST_WORD = "last-word.json"  # becomes the word to stop by a rename, which needs no room on a full disk
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def state_folder(corpus: Path) -> Path:
    return corpus / STATE


def run_folder(corpus: Path) -> Path:
    """Files of the run in progress; emptied when a run starts and when it ends."""
    return corpus / STATE / "run"


def disk_trouble(error: OSError, corpus: Path) -> EnvironmentTrouble:
    """The message for a disk that is full, read-only or broken."""
    where = error.filename or corpus
    return EnvironmentTrouble(
        f"cannot write {where}: {os.strerror(error.errno or 0)}: what was finished is kept; "
        "make room or give another --output, then run the same command again"
    )


@contextlib.contextmanager
def locked(corpus: Path) -> Iterator[None]:
    """Hold the corpus for this run. A second run is refused with the first one's host and pid.

    The lock is an flock: the system releases it however the process ends.
    """
    if corpus.exists() and not corpus.is_dir():
        raise UsageError(f"--output: got {corpus}, which is a file, wanted a folder")
    try:
        state_folder(corpus).mkdir(parents=True, exist_ok=True)
        handle = os.open(state_folder(corpus) / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(handle, corpus)
            shutil.rmtree(run_folder(corpus), ignore_errors=True)
            run_folder(corpus).mkdir()
            full = disk_trouble(OSError(errno.ENOSPC, "", str(corpus)), corpus)
            write_json(run_folder(corpus) / LAST_WORD, {"error": type(full).__name__, "message": str(full)})
            _remove_temporaries(corpus)
            try:
                yield
            finally:
                shutil.rmtree(run_folder(corpus), ignore_errors=True)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise disk_trouble(error, corpus) from error


def _take(handle: int, corpus: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = json.loads(os.read(handle, 4096) or b"{}")
        raise UsageError(
            f"{corpus} is in use by another run (host {holder.get('host', 'unknown')}, "
            f"pid {holder.get('pid', 'unknown')}): wait for it, end it, or give another --output"
        ) from error
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode(), 0)


def _remove_temporaries(corpus: Path) -> None:
    """Half-written files that a killed run left; only the holder of the lock may do this."""
    for folder in (corpus, *(corpus / table for table in SCHEMAS), *state_folder(corpus).rglob("")):
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()


def ask_to_stop(corpus: Path, error: PipelineError) -> None:
    """Tell every process of the run to stop, and why. The first word counts."""
    path = run_folder(corpus) / STOP
    if path.exists():
        return
    try:
        write_json(path, {"error": type(error).__name__, "message": str(error)})
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(LAST_WORD).replace(path)


def asked_to_stop(corpus: Path) -> PipelineError | None:
    word = read_json(run_folder(corpus) / STOP)
    return getattr(errors, word["error"])(word["message"]) if word else None


class Progress:
    """Counters of one worker process and stage, shown to the driver through a file that is replaced whole."""

    def __init__(self, corpus: Path, stage: str):
        name = f"progress-{stage}-{socket.gethostname()}-{os.getpid()}.json"
        self._path = run_folder(corpus) / name
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()  # failures by kind
        self.examples: dict[str, str] = {}  # one message a kind
        self._stage = stage
        self._shown: Any = None

    def failed(self, kind: str, message: str) -> None:
        self.kinds[kind] += 1
        self.examples.setdefault(kind, message)

    def show(self) -> None:
        state = {
            "stage": self._stage,
            "counts": dict(self.counts),
            "kinds": dict(self.kinds),
            "examples": dict(self.examples),
        }
        if state == self._shown or not self._path.parent.is_dir():
            return
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.replace(self._path)
        self._shown = state


def progress(corpus: Path) -> dict[str, dict[str, Any]]:
    """Sums over all worker processes, by stage: `counts`, `kinds`, `examples`."""
    total: dict[str, dict[str, Any]] = {}
    for path in sorted(run_folder(corpus).glob("progress-*.json")):
        state = read_json(path)
        if state is None:
            continue
        stage = total.setdefault(state["stage"], {"counts": Counter(), "kinds": Counter(), "examples": {}})
        stage["counts"].update(state["counts"])
        stage["kinds"].update(state["kinds"])
        stage["examples"] = {**state["examples"], **stage["examples"]}
    return total
