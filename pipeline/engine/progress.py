"""What the user sees of a run, and the failure budget: one thread of the driver that reads the workers' counters.

On a terminal one line is drawn over and over; elsewhere a plain line comes every half minute.
"""

import collections
import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.corpus import shards
from pipeline.engine.run_state import ask_to_stop, progress
from pipeline.engine.stage import Stage
from pipeline.errors import BudgetSpent, UsageError

REDRAW_S, PLAIN_S, RATE_OVER_S = 0.25, 30.0, 60.0
DEFAULT_FRACTION, DEFAULT_FLOOR = 0.01, 10


@dataclasses.dataclass(frozen=True)
class FailureBudget:
    """How many records of a stage may fail before the run is stopped as hopeless."""

    text: str = ""  # as the user gave it; "" is the default

    def __post_init__(self) -> None:
        self.allowed(100)

    def allowed(self, records: int) -> int:
        """Failures allowed among `records`: a count, a fraction of them, or the default of 1 % but at least 10."""
        if not self.text:
            return max(DEFAULT_FLOOR, int(records * DEFAULT_FRACTION))
        try:
            if self.text.endswith("%"):
                fraction = float(self.text[:-1]) / 100
            elif "." in self.text or "e" in self.text.lower():
                fraction = float(self.text)
            else:
                count = int(self.text)
                if count < 0:
                    raise ValueError
                return count
            if not 0 <= fraction <= 1:
                raise ValueError
        except ValueError:
            raise UsageError(
                f"--max-failures: got {self.text!r}, wanted a count (20) or a fraction of the records (0.01 or 1%)"
            ) from None
        return int(records * fraction)

    def shown(self) -> str:
        return self.text or f"1 %, at least {DEFAULT_FLOOR}"

    def judge(
        self, stage: str, records: int, failed: int, kinds: Mapping[str, int], examples: Mapping[str, str]
    ) -> None:
        """Raise BudgetSpent, with the commonest reasons, where more failed than may."""
        allowed = self.allowed(records)
        hopeless = failed >= records > 0 and not self.text
        if failed <= allowed and not hopeless:
            return
        reasons = "; ".join(
            f"{count:,} × {kind} (for example {examples.get(kind, 'no example')})"
            for kind, count in sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0]))[:3]
        )
        why = "every one of them" if hopeless else f"more than --max-failures ({self.shown()}) allows, {allowed:,}"
        raise BudgetSpent(
            f"stage {stage}: {failed:,} of {records:,} records failed, {why}: {reasons}: mend what is wrong or raise "
            "--max-failures, then run the same command again; what was finished is kept"
        )


class Monitor:
    """Watches one run: draws its progress, stops it when the budget is spent. `num_items` is the planned number."""

    def __init__(self, corpus: Path, stages: Sequence[Stage], num_items: int, budget: FailureBudget):
        self._corpus, self._stages, self._num_items, self._budget = corpus, stages, num_items, budget
        self._terminal = sys.stderr.isatty()
        self._history: collections.deque[tuple[float, int, int]] = collections.deque()
        self._base: dict[str, int] = {}

    @contextlib.contextmanager
    def running(self, states: Mapping[str, Any], num_shards: int) -> Iterator[None]:
        """For as long as Beam runs. `states` tells by stage which shards are still to be made."""
        for stage in self._stages:
            open_ = states[stage.name].open
            made = (shards.read_sidecar(self._corpus, stage.name, i) for i in range(num_shards) if i not in open_)
            self._base[stage.name] = sum(sidecar["items"] for sidecar in made if sidecar)
        ended = threading.Event()
        thread = threading.Thread(target=self._watch, args=(ended,), name="monitor", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _watch(self, ended: threading.Event) -> None:
        started = shown = time.monotonic()
        while not ended.wait(REDRAW_S):
            now = time.monotonic()
            state = progress(self._corpus)
            self._enforce(state)
            if self._terminal:
                sys.stderr.write(f"\r{self._line(state, now)}\x1b[K")
                sys.stderr.flush()
            elif now - shown >= PLAIN_S:
                shown = now
                print(self._line(state, now), file=sys.stderr, flush=True)
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
        elif time.monotonic() - started >= PLAIN_S:
            print(self._line(progress(self._corpus), time.monotonic()), file=sys.stderr, flush=True)

    def _enforce(self, state: Mapping[str, Any]) -> None:
        for stage in self._stages:
            seen = state.get(stage.name)
            if not seen:
                continue
            records = round(self._num_items * stage.records_per_item)
            try:
                self._budget.judge(stage.name, records, sum(seen["kinds"].values()), seen["kinds"], seen["examples"])
            except BudgetSpent as error:
                ask_to_stop(self._corpus, error)

    def _line(self, state: Mapping[str, Any], now: float) -> str:
        parts = []
        for stage in self._stages:
            counts = state.get(stage.name, {}).get("counts", {})
            done = min(self._base[stage.name] + counts.get("items", 0), self._num_items)
            if stage is not self._stages[-1]:
                if done < self._num_items:
                    parts.append(f"{stage.name} {done:,}/{self._num_items:,}")
                continue
            parts.append(f"{stage.name} {done:,}/{self._num_items:,} items")
            parts += self._rates(now, done, counts.get("completion_tokens", 0))
        failed = sum(sum(stage["kinds"].values()) for stage in state.values())
        parts.insert(-1, f"{failed:,} failed")
        return " · ".join(parts)

    def _rates(self, now: float, done: int, tokens: int) -> list[str]:
        self._history.append((now, done, tokens))
        while now - self._history[0][0] > RATE_OVER_S:
            self._history.popleft()
        then, done_then, tokens_then = self._history[0]
        seconds = max(now - then, 1e-9)
        rate = (done - done_then) / seconds
        rates = [f"{rate:,.1f} items/s"]
        if tokens:
            rates.append(f"{(tokens - tokens_then) / seconds:,.0f} tokens/s")
        return [*rates, f"ETA {duration((self._num_items - done) / rate) if rate else 'unknown'}"]

    def judge(self, num_shards: int) -> None:
        """The budget once more when all is made: a short run can end between two looks at the counters."""
        for stage in self._stages:
            kinds: collections.Counter[str] = collections.Counter()
            examples: dict[str, str] = {}
            made = 0
            for index in range(num_shards):
                sidecar = shards.sidecar(self._corpus, stage.name, index)
                made += sidecar["tables"][stage.tables[0]]["rows"]
                for failure in sidecar["failures"]:
                    kinds[failure["error"]] += 1
                    examples.setdefault(failure["error"], f"{failure['id']}: {failure['message']}")
            failed = sum(kinds.values())
            self._budget.judge(stage.name, made + failed, failed, kinds, examples)


def duration(seconds: float) -> str:
    """A length of time as one reads it: `42 s`, `7 min`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
