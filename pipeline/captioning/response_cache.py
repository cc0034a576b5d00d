"""Answers you have paid for, kept on disk: a resumed run asks again only for what was in flight.

Keys are fingerprints of everything that decides an answer (content hash, model, revision, prompt, decoding).
An answer is committed before its request counts as finished, so SIGKILL loses none. A power cut may lose the last
moments but never the file (write-ahead log).

Where the corpus is in an object store, answers are also put there every FLUSH_S, by shard. Whoever makes a shard reads
what others have asked for it, so that a lost machine costs the last moments of its answers.
"""

import contextlib
import fcntl
import json
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.engine.stage import current_shard
from pipeline.errors import EnvironmentTrouble
from pipeline.storage.files import write_file

SCHEMA = "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID"


REPLACE, ADD = "INSERT OR REPLACE INTO responses VALUES (?, ?)", "INSERT OR IGNORE INTO responses VALUES (?, ?)"
FLUSH_S = 3.0


class ResponseCache:
    """A dictionary of JSON values on disk, shared by the processes of one machine. Each thread needs its own instance.

    Args:
        folder: Its folder on this machine.
        shared: The folder of an object store through which machines share answers, if there is one.

    Raises:
        EnvironmentTrouble: The file cannot be used, here or in any method.
    """

    def __init__(self, folder: Path, shared: Path | None = None):
        self._shared = _SharedAnswers(shared) if shared else None
        self._path = folder / "responses.sqlite"
        with self._errors_explained():
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self._path, timeout=60, isolation_level=None)
            with (folder / "responses.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # SQLite does not wait for another process that begins the log
                self._connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {SCHEMA}")

    @contextlib.contextmanager
    def _errors_explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise EnvironmentTrouble(
                f"the response cache {self._path} cannot be used: {error}. Free the disk, or delete the file "
                "(its answers will be asked for again), then run the same command again"
            ) from error

    def get(self, key: str) -> Any | None:
        """The value of a key, or None."""
        if self._shared and (answers := self._shared.read_new()):
            self._execute(ADD, answers)
        with self._errors_explained():
            row = self._connection.execute("SELECT value FROM responses WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, answers: Iterable[tuple[str, Any]]) -> None:
        """Keep the values of some keys, all or none."""
        rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in answers]
        self._execute(REPLACE, rows)
        if self._shared:
            self._shared.add(rows)

    def _execute(self, statement: str, rows: list[tuple[str, str]]) -> None:
        with self._errors_explained():
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:  # commits, or rolls back
                self._connection.executemany(statement, rows)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        if self._shared:
            self._shared.close()


class _SharedAnswers:
    """Answers in an object store, by shard: SHARED/part-00017/ID.jsonl, a pair [key, value] in each line."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._new: dict[int, list[tuple[str, str]]] = {}
        self._read: set[int] = set()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._flush_regularly, name="answers", daemon=True)
        self._thread.start()

    def read_new(self) -> list[tuple[str, str]]:
        """What others have been answered about the current shard, when it is asked for the first time."""
        shard = current_shard.get()
        if shard in self._read:
            return []
        self._read.add(shard)
        files = (self._folder / f"part-{shard:05d}").glob("*.jsonl")
        return [tuple(json.loads(line)) for path in files for line in path.read_bytes().splitlines()]

    def add(self, rows: list[tuple[str, str]]) -> None:
        """Let others have these answers about the current shard, with the next flush."""
        with self._lock:
            self._new.setdefault(current_shard.get(), []).extend(rows)

    def _flush_regularly(self) -> None:
        while not self._ended.wait(FLUSH_S):
            with contextlib.suppress(EnvironmentTrouble):  # the store is away; they are put with the next flush
                self._flush()

    def _flush(self) -> None:
        with self._lock:
            new, self._new = self._new, {}
        try:
            for shard in list(new):
                path = self._folder / f"part-{shard:05d}" / f"{uuid.uuid4().hex}.jsonl"
                with write_file(path) as stream:
                    stream.write("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in new[shard]).encode())
                del new[shard]
        finally:
            with self._lock:
                for shard, rows in new.items():  # those that could not be put
                    self._new[shard] = [*rows, *self._new.get(shard, [])]

    def close(self) -> None:
        """Put what is left."""
        self._ended.set()
        self._thread.join()
        self._flush()
