"""What the user sees of a run, and the failure budget.

`ProgressLine` is the one progress display of every program. `Monitor` is a thread of the driver that reads the workers'
counters, draws them, and enforces the failure budget.
"""

import concurrent.futures
import contextlib
import dataclasses
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from pipeline.corpus import shards
from pipeline.corpus.table import state_folder
from pipeline.engine.run_state import read_progress, request_stop
from pipeline.engine.stage import Failure, Outcome, Progress, Run, Stage
from pipeline.errors import BudgetSpent, EnvironmentTrouble, UsageError
from pipeline.storage.files import pause
from pipeline.storage.folders import Folders, keep_together

REDRAW_S, PLAIN_S = 0.25, 30.0
KEEP_S = 600.0  # until sidecars are put together again
DEFAULT_FLOOR = 10  # failures


@dataclasses.dataclass(frozen=True)
class FailureBudget:
    """How many records of a stage may fail before the run is stopped as hopeless.

    Attributes:
        text: A count ("20") or a fraction ("0.01", "1%"), as the user gave it; empty for the default.
    """

    text: str = ""

    def __post_init__(self) -> None:
        """Refuse text that is neither."""
        self.allowed(100)

    def allowed(self, records: int) -> int:
        """Failures allowed among `records`: a count, a fraction of them, or by default 1 % or 10, but never all.

        Raises:
            UsageError: The text is neither a count nor a fraction.
        """
        text = self.text
        if not text:
            return min(max(DEFAULT_FLOOR, records // 100), max(records - 1, 0))
        if text.isdecimal():
            return int(text)
        with contextlib.suppress(ValueError):
            fraction = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
            if 0 <= fraction <= 1:
                return int(records * fraction)
        raise UsageError(f"--max-failures: {text!r} is neither a count (20) nor a fraction of the records (0.01 or 1%)")

    def check(self, stage: str, records: int, progress: Progress) -> None:
        """Check a stage's failures.

        Args:
            stage: Its name.
            records: How many records it makes, with those that failed.
            progress: Its failures.

        Raises:
            BudgetSpent: More records failed than allowed.
        """
        failed, allowed = progress.kinds.total(), self.allowed(records)
        if failed <= allowed:
            return
        reasons = "; ".join(
            f"{count:,} × {kind} (for example {progress.examples[kind]})"
            for kind, count in progress.kinds.most_common(3)
        )
        raise BudgetSpent(
            f"stage {stage}: {failed:,} of {records:,} records failed, more than {allowed:,}: {reasons}. Fix the cause "
            "or raise --max-failures, then run the same command again; finished shards are kept"
        )


class ProgressLine:
    """How far a piece of work is: a line redrawn on a terminal, a plain line every half minute elsewhere.

    with ProgressLine(total=40_000, unit="items", name="index") as line:
        for batch in batches:
            line.update(line.done + len(batch))

    Args:
        total: Units of the whole work.
        unit: What is counted, as a plural.
        name: What is worked on; the beginning of the line.
        done: Units that were done before.
        visible: Whether anything is drawn, for example only by one of several processes.

    Attributes:
        prefix: Before the name, which of several pieces of work this is: `2/3 `.
    """

    prefix = ""

    def __init__(self, total: int, unit: str, name: str = "", done: int = 0, visible: bool = True):
        self.total, self.done = total, done
        self._unit, self._name, self._first, self._visible = unit, f"{self.prefix}{name}", done, visible
        self._terminal = sys.stderr.isatty()
        self._started = self._drawn = time.monotonic()

    def update(self, done: int, *notes: str) -> None:
        """Record that `done` of the total are done, and draw the line if it is time to.

        Args:
            done: How many are done, counted from the beginning.
            *notes: Further parts of the line, before the remaining time.
        """
        self.done = done
        now = time.monotonic()
        if not self._visible or now - self._drawn < (REDRAW_S if self._terminal else PLAIN_S):
            return
        self._drawn = now
        rate = (done - self._first) / max(now - self._started, 1e-9)
        parts = [f"{self._name} {done:,}/{self.total:,} {self._unit}".strip(), *notes]
        if rate:  # there is none before the first unit is done
            parts[1:1] = [f"{rate:,.1f} {self._unit}/s"]
            parts.append(f"ETA {duration((self.total - done) / rate)}")
        text = " · ".join(parts)
        if self._terminal:
            text = f"\r{text[: shutil.get_terminal_size((120, 24)).columns - 1]}\x1b[K"
        print(text, end="" if self._terminal else "\n", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Clear the terminal's line."""
        if self._terminal and self._visible:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Monitor:
    """Watches one run: draws its progress, and stops it when the failure budget is spent."""

    def __init__(self, run: Run, stages: Sequence[Stage], num_items: int, budget: FailureBudget):
        self._run, self._stages, self._num_items, self._budget = run, stages, num_items, budget

    @contextlib.contextmanager
    def running(self, num_shards: int, open_shards: Mapping[str, frozenset[int]]) -> Iterator[None]:
        """Watch for as long as Beam runs.

        Args:
            num_shards: Shards of every stage.
            open_shards: By stage, the shards that are still to be made.
        """
        # Estimated, as if all shards had the same number of items.
        base = {
            name: self._num_items * (num_shards - len(indices)) // num_shards for name, indices in open_shards.items()
        }
        ended = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(1, "monitor") as pool:
            pool.submit(self._watch, base, ended)
            try:
                yield
            finally:
                ended.set()

    def _watch(self, base: Mapping[str, int], ended: threading.Event) -> None:
        last = self._stages[-1]
        kept_s = time.monotonic()
        with ProgressLine(self._num_items, "items", last.name, base[last.name]) as line:
            while not ended.wait(pause(self._run.corpus, REDRAW_S)):
                if time.monotonic() - kept_s > KEEP_S:
                    kept_s = time.monotonic()
                    with contextlib.suppress(EnvironmentTrouble):  # the store is away
                        for stage in self._stages:
                            keep_together(state_folder(self._run.corpus) / stage.name)
                progress = read_progress(self._run.corpus, self._run.token)
                notes = []
                for stage in self._stages:
                    counts = progress[stage.name].counts
                    done = min(base[stage.name] + counts["items"], self._num_items)
                    if stage is not last and done < self._num_items:
                        notes.append(f"{stage.name} {done:,}")
                    try:
                        records = round(self._num_items * stage.records_per_item)
                        self._budget.check(stage.name, records, progress[stage.name])
                    except BudgetSpent as error:
                        request_stop(self._run.corpus, error, self._run.token)
                num_failed = sum(stage.kinds.total() for stage in progress.values())
                line.update(done, *notes, f"{num_failed:,} failed")

    def check_budget(self, num_shards: int, files: Folders) -> None:
        """Check the budget once more when all is made: a short run can end between two looks at the counters."""
        for stage in self._stages:
            progress, rows = Progress(), 0
            for sidecar in shards.read_sidecars(self._run.corpus, stage.name, num_shards, files):
                rows += sidecar["tables"][stage.tables[0]]["rows"]
                failures = [Failure(line["id"], line["error"], line["message"]) for line in sidecar["failures"]]
                progress.add_failures([Outcome({}, failures)])
            self._budget.check(stage.name, rows + progress.kinds.total(), progress)


def duration(seconds: float) -> str:
    """A length of time as one reads it: `42 s`, `7 min`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
