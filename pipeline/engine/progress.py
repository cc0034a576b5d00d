"""What the user sees of a run, and the failure budget.

`ProgressLine` is the one progress display of every program. `Monitor` is a thread of the driver that reads the workers'
counters, draws them, and enforces the failure budget.
"""

import collections
import contextlib
import dataclasses
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pipeline.corpus import shards
from pipeline.engine.run_state import progress, request_stop
from pipeline.engine.stage import Stage
from pipeline.errors import BudgetSpent, UsageError

REDRAW_S, PLAIN_S, RATE_OVER_S = 0.25, 30.0, 60.0
DEFAULT_FRACTION, DEFAULT_FLOOR = 0.01, 10


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

    def __str__(self) -> str:
        """The budget as a user would type it."""
        return self.text or f"1 %, at least {DEFAULT_FLOOR}"

    def allowed(self, records: int) -> int:
        """Failures allowed among `records`: a count, a fraction of them, or the default of 1 % but at least 10.

        Raises:
            UsageError: The text is neither a count nor a fraction.
        """
        text = self.text
        try:
            if not text:
                return max(DEFAULT_FLOOR, int(records * DEFAULT_FRACTION))
            if text.isdecimal():
                return int(text)
            fraction = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
            if 0 <= fraction <= 1:
                return int(records * fraction)
            raise ValueError
        except ValueError:
            raise UsageError(
                f"--max-failures: got {text!r}, expected a count (20) or a fraction of the records (0.01 or 1%)"
            ) from None

    def check(self, stage: str, records: int, kinds: Mapping[str, int], examples: Mapping[str, str]) -> None:
        """Check a stage's failures.

        Args:
            stage: Its name.
            records: How many records it makes, with those that failed.
            kinds: Failures by kind.
            examples: A message for each kind.

        Raises:
            BudgetSpent: More records failed than allowed, or, with the default budget, all of them.
        """
        failed, allowed = sum(kinds.values()), self.allowed(records)
        hopeless = failed >= records > 0 and not self.text
        if failed <= allowed and not hopeless:
            return
        reasons = "; ".join(
            f"{count:,} × {kind} (for example {examples.get(kind, 'no example')})"
            for kind, count in sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0]))[:3]
        )
        why = "every one of them" if hopeless else f"more than --max-failures ({self}) allows, {allowed:,}"
        raise BudgetSpent(
            f"stage {stage}: {failed:,} of {records:,} records failed, {why}: {reasons}. Fix the cause or raise "
            "--max-failures, then run the same command again; finished shards are kept"
        )


class ProgressLine:
    """How far a piece of work is: a line redrawn on a terminal, a plain line every half minute elsewhere.

    with ProgressLine(total=40_000, unit="items", name="index") as line:
        for batch in batches:
            line.update(line.done + len(batch))
    """

    def __init__(self, total: int, unit: str, name: str = "", done: int = 0):
        self.total, self.done = total, done
        self._unit, self._name = unit, name
        self._rate = Rate()
        self._last: tuple[float, Sequence[str]] = 0.0, ()
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
        rate = self._rate.update(now, done)
        if now - self._drawn >= (REDRAW_S if self._terminal else PLAIN_S):
            self._drawn = now
            self._draw(rate, notes)
        self._last = rate, notes

    def _draw(self, rate: float, notes: Sequence[str]) -> None:
        remaining = duration((self.total - self.done) / rate) if rate else "unknown"
        counts = f"{self._name} {self.done:,}/{self.total:,} {self._unit}".strip()
        text = " · ".join([counts, f"{rate:,.1f} {self._unit}/s", *notes, f"ETA {remaining}"])
        if self._terminal:
            width = shutil.get_terminal_size((120, 24)).columns - 1
            sys.stderr.write(f"\r{text[:width]}\x1b[K")
            sys.stderr.flush()
        else:
            print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Clear the terminal's line; elsewhere, print the last state of work that took longer than one interval."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        elif time.monotonic() - self._started >= PLAIN_S:
            self._draw(*self._last)


class Rate:
    """Units per second over the last minute."""

    def __init__(self) -> None:
        self._history: collections.deque[tuple[float, float]] = collections.deque()

    def update(self, now: float, done: float) -> float:
        """Record that `done` units were done at `now`, in seconds; returns the rate."""
        self._history.append((now, done))
        while now - self._history[0][0] > RATE_OVER_S:
            self._history.popleft()
        then, done_then = self._history[0]
        return (done - done_then) / max(now - then, 1e-9)


class Monitor:
    """Watches one run: draws its progress, and stops it when the failure budget is spent."""

    def __init__(self, corpus: Path, stages: Sequence[Stage], num_items: int, budget: FailureBudget):
        self._corpus, self._stages, self._num_items, self._budget = corpus, stages, num_items, budget

    @contextlib.contextmanager
    def running(self, num_shards: int, open_shards: Mapping[str, frozenset[int]]) -> Iterator[None]:
        """Watch for as long as Beam runs.

        Args:
            num_shards: Shards of every stage.
            open_shards: By stage, the shards that are still to be made.
        """
        base = {}
        for stage in self._stages:
            closed = (index for index in range(num_shards) if index not in open_shards[stage.name])
            sidecars = (shards.read_sidecar(self._corpus, stage.name, index) for index in closed)
            base[stage.name] = sum(sidecar["items"] for sidecar in sidecars if sidecar)
        ended = threading.Event()
        thread = threading.Thread(target=self._watch, args=(base, ended), name="monitor", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _watch(self, base: Mapping[str, int], ended: threading.Event) -> None:
        *earlier, last = [stage.name for stage in self._stages]
        tokens = Rate()
        with ProgressLine(self._num_items, "items", last, base[last]) as line:
            while not ended.wait(REDRAW_S):
                state = progress(self._corpus)
                self._enforce(state)
                done = {
                    name: min(base[name] + state.get(name, {}).get("counts", {}).get("items", 0), self._num_items)
                    for name in base
                }
                notes = [f"{name} {done[name]:,}" for name in earlier if done[name] < self._num_items]
                completion_tokens = state.get(last, {}).get("counts", {}).get("completion_tokens", 0)
                if completion_tokens:
                    notes.append(f"{tokens.update(time.monotonic(), completion_tokens):,.0f} tokens/s")
                notes.append(f"{sum(sum(stage['kinds'].values()) for stage in state.values()):,} failed")
                line.update(done[last], *notes)

    def _enforce(self, state: Mapping[str, Any]) -> None:
        for stage in self._stages:
            counters = state.get(stage.name)
            if not counters:
                continue
            records = round(self._num_items * stage.records_per_item)
            try:
                self._budget.check(stage.name, records, counters["kinds"], counters["examples"])
            except BudgetSpent as error:
                request_stop(self._corpus, error)

    def check_budget(self, num_shards: int) -> None:
        """Check the budget once more when all is made: a short run can end between two looks at the counters."""
        for stage in self._stages:
            kinds: collections.Counter[str] = collections.Counter()
            examples: dict[str, str] = {}
            rows = 0
            for index in range(num_shards):
                sidecar = shards.sidecar(self._corpus, stage.name, index)
                rows += sidecar["tables"][stage.tables[0]]["rows"]
                for failure in sidecar["failures"]:
                    kinds[failure["error"]] += 1
                    examples.setdefault(failure["error"], f"{failure['id']}: {failure['message']}")
            self._budget.check(stage.name, rows + kinds.total(), kinds, examples)


def duration(seconds: float) -> str:
    """A length of time as one reads it: `42 s`, `7 min`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
