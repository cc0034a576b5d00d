"""The account of an input: what a source did not take or did not understand, and why."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

LISTED = 10_000  # names that are listed for one reason, so that memory is bounded; all are counted


@dataclass
class Reason:
    """Things of an input that were not taken for one reason.

    Attributes:
        kind: The `error` of their lines in failures.jsonl, such as `unmatched_row`; "" for things that are not
            input at all, which are only counted.
        text: What they are and why they were not taken, after their number: `rows of captions.csv name no file here`.
        count: How many there are.
        total: How many such things the input has, with those that were taken; 0 where nobody counted.
        names: The first of them, each the `id` of its line in failures.jsonl.
    """

    kind: str
    text: str
    count: int = 0
    total: int = 0
    names: list[str] = field(default_factory=list)


class Account:
    """What was not taken, by reason. Each source has one; it is complete once `items()` has run to its end."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, str], Reason] = {}

    def add(self, kind: str, text: str, name: str, total: int = 0) -> None:
        """Note one thing that was not taken; see Reason for the arguments."""
        reason = self._reasons.setdefault((kind, text), Reason(kind, text))
        reason.count += 1
        reason.total = total
        if len(reason.names) < (LISTED if kind else 1):
            reason.names.append(name)

    def __iter__(self) -> Iterator[Reason]:
        return iter(self._reasons.values())


def summarize(reasons: Iterable[Reason]) -> list[dict[str, Any]]:
    """The reasons as the manifest of `items` records them: `kind`, `text`, `count`, `total`, `example`."""
    return [
        {"kind": each.kind, "text": each.text, "count": each.count, "total": each.total, "example": each.names[0]}
        for each in reasons
    ]


def list_failures(reasons: Iterable[Reason]) -> list[dict[str, Any]]:
    """The lines of failures.jsonl about things that were not taken. They belong to no shard."""
    lines = []
    for reason in reasons:
        messages = [(name, reason.text) for name in reason.names if reason.kind]
        if reason.kind and reason.count > LISTED:
            messages.append(("…", f"{reason.count - LISTED:,} more {reason.text}"))
        common = {"stage": "ingest", "error": reason.kind, "attempts": 1, "shard": None}
        lines += [{"id": name, "message": message, **common} for name, message in messages]
    return lines


def sentence(entry: Mapping[str, Any]) -> str:
    """An entry of `summarize` in words: `3 of 120 rows of captions.csv name no file here, e.g. 'a.jpg'`."""
    total = f" of {entry['total']:,}" if entry["total"] else ""
    return f"{entry['count']:,}{total} {entry['text']}, e.g. {entry['example']!r}"
