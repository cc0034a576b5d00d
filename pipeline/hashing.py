"""Content hashes and settings fingerprints."""

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

CHUNK_BYTES = 1 << 20
WHOLE_BYTES, PIECE_BYTES = 64 << 20, 64 << 10  # see revision()


def short_hash(text: str) -> str:
    """16 hex digits of the SHA-256 of `text`: an id for prompts and settings, where no adversary chooses the text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def stream_hash(stream: BinaryIO) -> str:
    """SHA-256 (hex) of a stream from its start; the stream is rewound afterwards. Memory stays at one chunk."""
    digest = hashlib.sha256()
    stream.seek(0)
    while chunk := stream.read(CHUNK_BYTES):
        digest.update(chunk)
    stream.seek(0)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return stream_hash(stream)


class HashingStream:
    """A stream to write to that keeps the SHA-256 and the number of the bytes it passes on."""

    closed = False

    def __init__(self, stream: BinaryIO):
        self._stream, self.digest, self.size = stream, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        """Write bytes."""
        self.digest.update(data)
        self.size += len(data)
        return self._stream.write(data)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()


def folder_hash(folder: Path) -> str:
    """Hash of a model folder by its files' names, sizes and bytes: 16 hex digits.

    Of files beyond WHOLE_BYTES, as many bytes are read, in pieces spread evenly: models tuned from one another have
    files of the same names and sizes, and differ nearly everywhere.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as stream:
            pieces = WHOLE_BYTES // PIECE_BYTES
            for number in range(min(pieces, -(-size // PIECE_BYTES))):
                stream.seek(
                    number * PIECE_BYTES if size <= WHOLE_BYTES else number * (size - PIECE_BYTES) // (pieces - 1)
                )
                digest.update(stream.read(PIECE_BYTES))
    return digest.hexdigest()[:16]


def canonical_json(value: Any) -> str:
    """JSON with one spelling for one value: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(settings: dict[str, Any]) -> str:
    """Fingerprint of the settings that decide a table's content."""
    return short_hash(canonical_json(settings))


def differences(stored: dict[str, Any], current: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Settings that differ, as (name, stored, current), by name; within groups of settings as `group.name`."""
    result: list[tuple[str, Any, Any]] = []
    for name in sorted(stored.keys() | current.keys()):
        old, new = stored.get(name), current.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            result += [(f"{name}.{inner}", *values) for inner, *values in differences(old, new)]
        elif old != new:
            result.append((name, old, new))
    return result
