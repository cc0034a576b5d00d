"""The account of an input: what a source did not take or did not understand, and why."""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Reason:
    """Things of an input that were not taken for one reason.

    Attributes:
        kind: The `error` of their lines in failures.jsonl, such as `unmatched_row`.
        text: What they are and why they were not taken, after their number: `rows of captions.csv name no file here`.
        total: How many such things the input has, with those that were taken; 0 where nobody counted.
        names: The things, each the `id` of its line in failures.jsonl.
    """

    kind: str
    text: str
    total: int = 0
    names: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = f" of {self.total:,}" if self.total else ""
        return f"{len(self.names):,}{total} {self.text}, e.g. {self.names[0]!r}"


class Account:
    """What was not taken, by reason. Each source has one; it is complete once `items()` has run to its end."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, str], Reason] = {}

    def add(self, kind: str, text: str, name: str, total: int = 0) -> None:
        """Note one thing that was not taken; see Reason for the arguments."""
        reason = self._reasons.setdefault((kind, text), Reason(kind, text))
        reason.names.append(name)
        reason.total = total

    def __iter__(self) -> Iterator[Reason]:
        return iter(self._reasons.values())
