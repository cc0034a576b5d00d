"""One run at a time: the lease of a corpus.

On a disk it is a lock that the system releases however the process ends. In an object store it is an object that its
holder renews. One that nobody has renewed for EXPIRES_S may be taken over; whether it changes counts, no clock does.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.storage.files import version
from pipeline.storage.object_path import FileChanged, ObjectPath

RENEW_S, EXPIRES_S = 5.0, 30.0


@contextlib.contextmanager
def held(path: Path, say: Callable[[str], None] = print) -> Iterator[None]:
    """Hold a lease for the time of the block.

    Args:
        path: Its file.
        say: Prints a line for the user who has to wait.

    Raises:
        UsageError: Another run holds it. The message names its host and pid.
    """
    with _object_held(path, say) if isinstance(path, ObjectPath) else _file_held(path):
        yield


def _refusal(path: Path, holder: str) -> UsageError:
    return UsageError(
        f"{path.parent.parent} is in use by another run ({holder or 'host and pid unknown'}). "
        "Wait for it, end it, or give another --output"
    )


def _holder() -> str:
    return f"host {socket.gethostname()}, pid {os.getpid()}"


@contextlib.contextmanager
def _file_held(path: Path) -> Iterator[None]:
    with path.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise _refusal(path, lock.read()) from error
        lock.truncate(0)
        lock.write(_holder())
        lock.flush()
        yield


@contextlib.contextmanager
def _object_held(path: ObjectPath, say: Callable[[str], None]) -> Iterator[None]:
    lease, ended = {"holder": _holder(), "id": uuid.uuid4().hex}, threading.Event()
    seen = _take(path, lease, say)

    def renew() -> None:
        nonlocal seen
        renewals = 0
        while not ended.wait(RENEW_S):
            renewals += 1
            try:
                seen = _write(path, {**lease, "renewals": str(renewals)}, seen)
            except FileChanged:  # taken over, because this process was stopped or cut off
                return
            except Exception:  # noqa: S112  the store is away: tried again until somebody else has the lease
                continue

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(Exception):
            if _read(path).get("id") == lease["id"]:
                path.unlink(missing_ok=True)


def _take(path: ObjectPath, lease: dict[str, str], say: Callable[[str], None]) -> str:
    """Write the lease where there is none, or where nobody renews it any more."""
    seen = version(path)
    if seen is not None:
        holder = _read(path).get("holder", "")
        say(f"{path.parent.parent} is held by a run on {holder}: waiting {EXPIRES_S:.0f} s to see whether that goes on")
        deadline = time.monotonic() + EXPIRES_S
        while version(path) == seen:
            if time.monotonic() > deadline:
                break
            time.sleep(1)
        else:
            if version(path) is not None:
                raise _refusal(path, holder)
            seen = None
    try:
        return _write(path, lease, seen)
    except FileChanged:
        raise _refusal(path, _read(path).get("holder", "")) from None


def _write(path: ObjectPath, lease: dict[str, str], seen: str | None) -> str:
    return path.put(json.dumps(lease).encode(), seen)


def _read(path: Path) -> dict[str, str]:
    with contextlib.suppress(FileNotFoundError):
        lease: dict[str, str] = json.loads(path.read_bytes())
        return lease
    return {}
