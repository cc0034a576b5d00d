"""What a run tells while it goes: metrics.jsonl always, TensorBoard and W&B when asked, one line on the screen.

A line of metrics.jsonl is JSON with `kind`:
    train       step, epoch, loss, raw and weighted by term, lr, grad_norm, samples_per_s, data_wait (share of the time)
    validation  step, epoch, split, sum_r, chance, global_weight, recalls by language
Figures of losses are means over ranks.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from pipeline.corpus.table import atomic_writer
from pipeline.engine.progress import PLAIN_S, REDRAW_S, duration
from pipeline.errors import UsageError
from stages.training.settings import Settings

METRICS = "metrics.jsonl"


class Sink(Protocol):
    def write(self, line: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class MetricsFile:
    """RUN/metrics.jsonl, each line on disk at once. Lines after step `resumed` are cut: they come again."""

    def __init__(self, run: Path, resumed: int):
        path = run / METRICS
        kept = [line for line in read_metrics(run) if line["step"] <= resumed]
        with atomic_writer(path) as stream:
            stream.write("".join(map(_line, kept)).encode())
        self._stream = path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        self._stream.write(_line(line))
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._stream.close()


def _line(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of RUN/metrics.jsonl; one that was cut off by a kill, with all after it, is left out."""
    path = run / METRICS
    lines: list[dict[str, Any]] = []
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
    return lines


class TensorBoard:
    def __init__(self, run: Path, resumed: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError("tensorboard=yes: the package is not here: pip install tensorboard") from error
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=resumed + 1)

    def write(self, line: dict[str, Any]) -> None:
        for name, value in flat(line):
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        self._writer.close()


class Wandb:
    def __init__(self, run: Path, project: str, config: dict[str, Any]):
        try:
            import wandb
        except ImportError as error:
            raise UsageError(f"wandb={project}: the package is not here: pip install wandb") from error
        self._run = wandb.init(project=project, name=run.name, dir=str(run), config=config)

    def write(self, line: dict[str, Any]) -> None:
        self._run.log(dict(flat(line)), step=line["step"])

    def close(self) -> None:
        self._run.finish()


def flat(line: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The figures in a line with their names: `train/raw/media_source`."""
    prefix = prefix or line["kind"]
    for name, value in line.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}/{name}")
        elif isinstance(value, int | float) and name not in ("step", "epoch"):
            yield f"{prefix}/{name}", value


class Tracker:
    """All that follow a run; nobody on ranks other than 0."""

    def __init__(self, run: Path, settings: Settings, resumed: int, is_main: bool):
        self._sinks: list[Sink] = []
        if is_main:
            others: list[Sink] = []
            if settings.tensorboard:
                others.append(TensorBoard(run, resumed))
            if settings.wandb:
                others.append(Wandb(run, settings.wandb, settings.to_json()))
            self._sinks = [MetricsFile(run, resumed), *others]

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sink in self._sinks:
            sink.close()

    def write(self, line: dict[str, Any]) -> None:
        for sink in self._sinks:
            sink.write(line)


class Screen:
    """Progress for whoever watches: one line drawn over and over on a terminal, plain lines now and then elsewhere."""

    def __init__(self, total: int, step: int, is_main: bool):
        self._total, self._first, self._is_main = total, step, is_main
        self._terminal = is_main and sys.stderr.isatty()
        self._started = self._shown = time.monotonic()

    def show(self, step: int, loss: float, samples_per_s: float) -> None:
        now = time.monotonic()
        if not self._is_main or now - self._shown < (REDRAW_S if self._terminal else PLAIN_S):
            return
        self._shown = now
        left = (now - self._started) / max(1, step - self._first) * (self._total - step)
        line = (
            f"step {step:,}/{self._total:,} · loss {loss:.3f} · {samples_per_s:,.1f} samples/s · ETA {duration(left)}"
        )
        if self._terminal:
            sys.stderr.write(f"\r{line}\x1b[K")
            sys.stderr.flush()
        else:
            print(line, file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        if self._is_main:
            print(line, flush=True)
