"""What the processes of one run share through `CORPUS/.state/run`: lock, token, stop request, progress.

Files, because Beam's workers may be threads, processes or other machines on the same file system, and a killed run
must leave nothing behind that confuses the next.
"""

import contextlib
import errno
import json
import os
import signal
import socket
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from pipeline import errors
from pipeline.corpus.table import MADE_BY, STATE, read_json, state_folder, write_json
from pipeline.engine.stage import Progress
from pipeline.errors import TOO_MANY_FILES, EnvironmentTrouble, Interrupted, PipelineError, UsageError, too_many_files
from pipeline.storage.files import remove_leftovers, remove_tree, write_file
from pipeline.storage.lease import held

STOP = "stop.json"
# Become the stop request by a rename, which needs no room on a full disk and no open file.
DISK_FULL, FILE_LIMIT = "disk-full.json", "file-limit.json"
TOKEN = "token.json"  # noqa: S105
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, *TOO_MANY_FILES}


def run_folder(corpus: Path) -> Path:
    """Files of the run in progress; emptied when a run starts and when it ends."""
    return state_folder(corpus) / "run"


def run_token(corpus: Path) -> str:
    """Identifies the run in progress; empty if there is none."""
    return read_json(run_folder(corpus) / TOKEN) or ""


def as_disk_error(error: OSError, corpus: Path) -> EnvironmentTrouble:
    """The message for a disk that is full, read-only or broken, or for too many open files."""
    if error.errno in TOO_MANY_FILES:
        return too_many_files()
    where = error.filename or corpus
    return EnvironmentTrouble(
        f"cannot write {where}: {os.strerror(error.errno or 0)}. What is finished is kept. "
        "Make room or give another --output, then run the same command again"
    )


@contextlib.contextmanager
def locked(corpus: Path) -> Iterator[None]:
    """Hold the corpus for this run.

    Raises:
        UsageError: Another run holds the corpus. The message names its host and pid.
        EnvironmentTrouble: The corpus cannot be written.
        UnicodeEncodeError: Its name is not UTF-8.
    """
    folder = run_folder(corpus)
    is_new, has_state = not corpus.exists(), state_folder(corpus).exists()
    str(corpus).encode()  # a name in other bytes is refused here, not where a file mentions it
    try:
        if file := next((path for path in (corpus, *corpus.parents) if path.is_file()), None):
            raise UsageError(f"--output: {file} is a file, expected a folder")
        state_folder(corpus).mkdir(parents=True, exist_ok=True)
    except OSError as error:  # any: /proc takes no folders, and a name may be too long
        raise as_disk_error(error, corpus) from error
    try:
        with held(state_folder(corpus) / "lock"):
            remove_tree(folder)
            folder.mkdir()
            token = uuid.uuid4().hex
            write_json(folder / TOKEN, token)
            write_json(folder / DISK_FULL, _as_json(as_disk_error(OSError(errno.ENOSPC, "", str(corpus)), corpus)))
            write_json(folder / FILE_LIMIT, _as_json(too_many_files()))
            remove_leftovers(corpus, (*MADE_BY, state_folder(corpus).name))
            try:
                yield
            except UsageError:
                if not has_state and [path.name for path in corpus.iterdir()] == [STATE]:
                    remove_tree(corpus if is_new else state_folder(corpus))  # a mistake leaves nothing behind
                raise
            finally:
                if run_token(corpus) == token:  # else another run has taken the corpus over
                    remove_tree(folder)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise as_disk_error(error, corpus) from error


def request_stop(corpus: Path, error: PipelineError, token: str = "") -> None:
    """Ask every process of the run to stop, and record why. Later requests are ignored.

    Args:
        corpus: The corpus folder.
        error: Why.
        token: The run; empty for whichever there is. Another one, which has taken the corpus over, is left alone.
    """
    path = run_folder(corpus) / STOP
    if path.exists():
        return
    try:
        if not token or run_token(corpus) == token:
            write_json(path, _as_json(error))
    except OSError as failure:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(FILE_LIMIT if failure.errno in TOO_MANY_FILES else DISK_FULL).replace(path)


def stop_request(corpus: Path) -> PipelineError | None:
    """The error for which the run was asked to stop, or None."""
    request = read_json(run_folder(corpus) / STOP)
    return getattr(errors, request["error"])(request["message"]) if request else None


def _as_json(error: PipelineError) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error)}


@contextlib.contextmanager
def stopped_by_signals(corpus: Path, token: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run in order: whole shards stay, the server is ended. A second one ends it at once.

    For as long as Beam and the servers run. Outside of the block both signals end the process as they always do.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        for other in (signal.SIGINT, signal.SIGTERM):
            signal.signal(other, signal.SIG_DFL)
        name = signal.Signals(number).name
        message = f"ended by {name}. Finished shards are kept; run the same command again to resume"
        request_stop(corpus, Interrupted(message), token)

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def write_progress(corpus: Path, token: str, stages: Mapping[str, Progress]) -> None:
    """Write the counters of this process for the driver, in a file that is replaced whole, unless the run has ended."""
    path = run_folder(corpus) / f"progress-{token}-{socket.gethostname()}-{os.getpid()}.json"
    if path.parent.is_dir():
        with write_file(path, durable=False) as stream:
            stream.write(json.dumps({name: vars(progress) for name, progress in stages.items()}).encode())


def last_report(corpus: Path, token: str) -> float:
    """When a process of a run last wrote its counters, by the clock of the disk or store; 0 if none has yet."""
    return max((path.stat().st_mtime for path in run_folder(corpus).glob(f"progress-{token}*.json")), default=0.0)


def read_progress(corpus: Path, token: str = "") -> defaultdict[str, Progress]:
    """Counters of all processes of a run together, by stage."""
    total: defaultdict[str, Progress] = defaultdict(Progress)
    for path in sorted(run_folder(corpus).glob(f"progress-{token}*.json")):
        for name, state in (read_json(path) or {}).items():
            total[name].counts.update(state["counts"])
            total[name].kinds.update(state["kinds"])
            total[name].examples = {**state["examples"], **total[name].examples}
    return total
