"""What a stage of the pipeline is: settings as plain data, and a worker made of it in each process.

parents → rows of one shard, grouped by item → Worker → an Outcome per item → the stage's tables
"""

import contextlib
import contextvars
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from pipeline.hashing import fingerprint

Row = Any
"""A row of any table: a TypedDict of pipeline.corpus.schema, or a row of the plan."""
Rows = list[Row]
Grouped = dict[str, dict[str, Rows]]
"""item_id → table → rows"""
Say = Callable[[str], None]
"""Prints one line for the user."""


current_shard: contextvars.ContextVar[int] = contextvars.ContextVar("current_shard", default=-1)
"""The index of the shard that the present task makes."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a worker must know of the run.

    Attributes:
        token: Identifies the run, see `run_state.run_token`.
        corpus: Absolute path of the corpus folder.
        num_shards: Shards of every table of the run.
        cache: Absolute path of the response cache's folder, on each machine.
        answers: Folder through which machines share the cache's answers, if the corpus is in an object store.
    """

    token: str
    corpus: Path
    num_shards: int
    cache: Path
    answers: Path | None = None


@dataclasses.dataclass(frozen=True)
class Failure:
    """A record that could not be made. `kind` is the error's type; `attempts` counts the tries of this run."""

    id: str
    kind: str
    message: str
    attempts: int = 1
    view: str = ""
    language: str = ""

    def line(self, stage: str, shard: int) -> dict[str, Any]:
        """The failure as a line of `failures.jsonl`."""
        line = {"id": self.id, "stage": stage, "error": self.kind, "message": self.message, "attempts": self.attempts}
        part = {name: value for name, value in (("view", self.view), ("language", self.language)) if value}
        return {**line, "shard": shard, **part}


@dataclasses.dataclass
class Outcome:
    """What became of one item in one stage: rows by table, and the records that failed."""

    rows: dict[str, Rows]
    failures: list[Failure] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Progress:
    """Counters of a stage at work.

    Attributes:
        counts: What was done: `items`, `shards`, and what else the stage counts.
        kinds: Failures by kind.
        examples: A message for each kind.
    """

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    kinds: Counter[str] = dataclasses.field(default_factory=Counter)
    examples: dict[str, str] = dataclasses.field(default_factory=dict)

    def add_failures(self, outcomes: Iterable[Outcome]) -> None:
        """Count the failures among these outcomes."""
        for failure in (failure for outcome in outcomes for failure in outcome.failures):
            self.kinds[failure.kind] += 1
            self.examples.setdefault(failure.kind, f"{failure.id}: {failure.message}")


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to be made.

    Attributes:
        index: The shard's number.
        rows: Rows of the stage's first parent, one per item.
        joined: Rows of its other parents.
        parent_sha256: Checksum of the parents' shards.
        previous: Rows that an earlier run made.
        retrying: Whether an earlier run finished this shard, with failures.
        seen: When the task was loaded, the `version` of the shard of each table, and under "" that of the sidecar.
    """

    index: int
    rows: Rows
    joined: Grouped
    parent_sha256: str
    previous: Grouped
    retrying: bool
    seen: dict[str, str | None] = dataclasses.field(default_factory=dict)


class _Closable(Protocol):
    ahead: int

    async def close(self) -> None:
        """End threads and connections."""


class Worker(_Closable, Protocol):
    """A stage at work in one process, item by item. `ahead` bounds the items in work at once."""

    async def item(self, row: Row, joined: dict[str, Rows], previous: dict[str, Rows], retrying: bool) -> Outcome:
        """Make the rows of one item.

        Args:
            row: The item's row of the first parent.
            joined: Its rows in the other parents, by table.
            previous: Rows that an earlier run made, by table. The worker checks whether they still hold.
            retrying: Whether failures of an earlier run are to be tried again.
        """


@runtime_checkable
class ShardWorker(_Closable, Protocol):
    """A stage at work in one process, shard by shard, for work that wants large batches, the same ones in every run.

    `ahead` bounds the shards in work at once. The worker counts its items as done by itself.
    """

    async def shard(self, task: ShardTask) -> list[Outcome]:
        """An outcome for each of the task's rows, in their order."""


class Stage(Protocol):
    """A step of the pipeline, sent to the workers as it is. Subclasses are frozen dataclasses."""

    @property
    def name(self) -> str:
        """The stage's name on the command line and on disk."""

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that it makes. The first one's manifest marks the stage as complete."""

    @property
    def parents(self) -> tuple[str, ...]:
        """The tables whose shards it reads, or the plan. Rows of the first are its items; the others are joined."""

    @property
    def records_per_item(self) -> float:
        """Records that one item gives, as the failure budget estimates them while the stage runs."""

    def settings(self) -> dict[str, Any]:
        """Everything that decides the content of its tables, as JSON. Compared when a run is resumed."""

    @property
    def fingerprint(self) -> str:
        """Hash of what decides a shard's content, apart from its parents."""
        return fingerprint(self.settings())

    def plan(self, corpus: Path, say: Say) -> tuple[int, int]:
        """Fix which item goes into which shard; returns the number of shards and of items.

        Only asked of the first stage of a run.
        """
        message = f"{self.name} cannot be the first stage of a run"
        raise NotImplementedError(message)

    def notice(self, corpus: Path) -> str:
        """What a user should know before the run, such as changes of the input, in a line; "" for nothing."""
        return ""

    def ready(self, corpus: Path, say: Say) -> contextlib.AbstractContextManager[Self]:
        """The stage with what it needs for its work, such as a server, for the time of the block."""
        return contextlib.nullcontext(self)

    async def open(self, run: Run, progress: Progress) -> Worker | ShardWorker:
        """Start to work in this process."""

    def origin(self, corpus: Path, index: int) -> tuple[Path, tuple[str, ...], int]:
        """What shard `index` is made from: the corpus that holds the parents, the parents, their shard's index."""
        return corpus, self.parents, index

    def made_from(self, corpus: Path) -> dict[str, Path]:
        """Folders of the tables that it is made from, by the names under which its manifest records their hashes."""
        return {parent: corpus / parent for parent in self.parents if parent != "plan"}

    def keeps(self, settings: dict[str, Any]) -> bool:
        """Whether rows made with these other settings hold something to use again when the stage is made anew."""
        return False

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages whose versions decide what it makes, in addition to those that every stage uses."""
        return ()

    def revise(self, run: Run) -> bool:
        """Once all its shards are made, mark those that must be made again; returns whether there are any."""
        return False

    def not_taken(self, corpus: Path) -> list[dict[str, Any]]:
        """Lines of failures.jsonl about what no shard has. Asked once all its shards are made."""
        return []

    def notes(self, corpus: Path) -> dict[str, Any]:
        """Further entries of the manifest of its first table. Asked once all its shards are made."""
        return {}
