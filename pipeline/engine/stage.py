"""What a stage of the pipeline is: plain data that tells its settings, and a worker made of it in each process.

parents → rows of one shard, grouped by item → Worker → an Outcome an item → the stage's tables
"""

import dataclasses
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from pipeline.engine.run_state import Progress
from pipeline.hashing import fingerprint

Rows = list[dict[str, Any]]
Grouped = dict[str, dict[str, Rows]]  # item_id → table → rows


@dataclasses.dataclass(frozen=True)
class Run:
    """What a worker must know of the run. `cache` is the folder of the response cache."""

    token: str
    corpus: str
    num_shards: int
    retry: dict[str, frozenset[int]]  # shards finished with failures, by stage
    cache: str  # absolute

    @property
    def folder(self) -> Path:
        return Path(self.corpus)


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
        line = {"id": self.id, "stage": stage, "error": self.kind, "message": self.message, "attempts": self.attempts}
        part = {name: value for name, value in (("view", self.view), ("language", self.language)) if value}
        return {**line, "shard": shard, **part}


@dataclasses.dataclass
class Outcome:
    """What became of one item in one stage: rows by table, and the records that failed."""

    rows: dict[str, Rows]
    failures: list[Failure] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to be made: its parents' rows, their checksum, and what an earlier run made."""

    index: int
    rows: Rows  # of the stage's first parent: an item each
    joined: Grouped  # the rows of its other parents
    parent_sha256: str  # of what it is made from
    kept: Grouped
    retrying: bool  # an earlier run finished this shard, with failures


class Worker(Protocol):
    """A stage at work in one process, item by item. `ahead` bounds the items in work at once."""

    ahead: int

    async def item(
        self, row: dict[str, Any], joined: dict[str, Rows], kept: dict[str, Rows], retrying: bool
    ) -> Outcome:
        """Make the rows of one item. `joined` are its rows in the further parents, `kept` those that an earlier run
        made, still to be checked for use; both by table."""

    async def close(self) -> None: ...


@runtime_checkable
class ShardWorker(Protocol):
    """A stage at work in one process, on whole shards: for work that wants large batches, the same ones in every
    run. `ahead` bounds the shards in work at once. Counts its items as done by itself."""

    ahead: int

    async def shard(self, task: ShardTask) -> list[Outcome]:
        """An outcome for each of the task's rows, in their order."""

    async def close(self) -> None: ...


class Stage(Protocol):
    """A step of the pipeline, sent to the workers as it is. Subclasses are frozen dataclasses."""

    @property
    def name(self) -> str: ...

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that it makes; the first one is its mark of completeness."""

    @property
    def parents(self) -> tuple[str, ...]:
        """The tables whose shards it reads, or the plan. Rows of the first are its items; the others are joined."""

    @property
    def records_per_item(self) -> float:
        """Records that one item gives, as the failure budget estimates them while the stage runs."""

    def settings(self) -> dict[str, Any]: ...

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.settings())

    def origin(self, corpus: Path, index: int) -> tuple[Path, tuple[str, ...], int]:
        """What shard `index` is made from: the corpus that holds the parents, the parents, their shard's index."""
        return corpus, self.parents, index

    def made_from(self, corpus: Path) -> dict[str, Path]:
        """The folders of the tables that it is made from, by the names under which its manifest tells their hashes."""
        return {parent: corpus / parent for parent in self.parents if parent != "plan"}

    def keeps(self, settings: dict[str, Any]) -> bool:
        """Whether rows made with these other settings hold what can be used again when the stage is made anew."""
        return False

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages whose versions decide what it makes, beside those that every stage uses."""
        return ()

    def notes(self, corpus: Path) -> dict[str, Any]:
        """What the manifest of its first table tells besides; asked once all its shards are made."""
        return {}

    @property
    def server(self) -> Any:
        """The model on chat servers that it asks (an MllmCaptioner), or None."""
        return None

    def asking(self, server: Any) -> Self:
        """The same stage, asking this server."""
        return self

    async def open(self, run: Run, progress: Progress) -> Worker | ShardWorker: ...
