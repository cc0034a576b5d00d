"""Content hashes, settings fingerprints: what makes two things the same thing."""

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

CHUNK_BYTES = 1 << 20


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


def canonical_json(value: Any) -> str:
    """JSON with one spelling for one value: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(settings: dict[str, Any]) -> str:
    """Fingerprint of the settings that decide a table's content."""
    return short_hash(canonical_json(settings))


def differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Settings that differ, as (name, stored, wanted), by name; within groups of settings as `group.name`."""
    found: list[tuple[str, Any, Any]] = []
    for name in sorted(stored.keys() | wanted.keys()):
        old, new = stored.get(name), wanted.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += [(f"{name}.{inner}", *values) for inner, *values in differences(old, new)]
        elif old != new:
            found.append((name, old, new))
    return found
