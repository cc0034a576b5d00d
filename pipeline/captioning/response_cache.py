"""Answers you have paid for, kept on disk: a resumed run asks again only for what was in flight.

Keys are fingerprints of everything that decides an answer (content hash, model, revision, prompt, decoding).
An answer is committed before its request counts as finished, so SIGKILL loses none. A power cut may lose the last
moments but never the file (write-ahead log).
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentTrouble

SCHEMA = "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID"


class ResponseCache:
    """A dictionary of JSON values on disk, shared by the processes of one machine. Each thread needs its own instance.

    Raises:
        EnvironmentTrouble: The file cannot be used, here or in any method.
    """

    def __init__(self, folder: Path):
        self._path = folder / "responses.sqlite"
        with self._errors_explained():
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self._path, timeout=60, isolation_level=None)
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
        with self._errors_explained():
            row = self._connection.execute("SELECT value FROM responses WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, answers: Iterable[tuple[str, Any]]) -> None:
        """Keep the values of some keys, all or none."""
        rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in answers]
        with self._errors_explained():
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:  # commits, or rolls back
                self._connection.executemany("INSERT OR REPLACE INTO responses VALUES (?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
