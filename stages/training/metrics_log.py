"""What a run reports: metrics.jsonl always, TensorBoard and W&B through Accelerate on request.

A line of metrics.jsonl is JSON with `kind`:
    train       step, epoch, loss, raw and weighted by term, lr, grad_norm, samples_per_s, data_wait (share of the time)
    validation  step, epoch, split, sum_r, chance, global_weight, recalls by language
Losses are means over ranks.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from pipeline.corpus.table import atomic_writer
from pipeline.errors import UsageError
from stages.training.settings import Settings

METRICS = "metrics.jsonl"


class MetricsLog:
    """Writes the lines of a run; only the main process writes.

    Lines after step `resumed` are removed from an earlier metrics.jsonl, because they will be written again.

    Args:
        run: Run folder.
        settings: Settings of the run.
        accelerator: Holds the trackers.
        resumed: Steps done before.

    Raises:
        UsageError: A tracker's package is not installed.
    """

    def __init__(self, run: Path, settings: Settings, accelerator: Accelerator, resumed: int):
        self._is_main, self._accelerator = accelerator.is_main_process, accelerator
        if not self._is_main:
            return
        _start_trackers(run, settings, accelerator, resumed)
        lines = [line for line in read_metrics(run) if line["step"] <= resumed]
        with atomic_writer(run / METRICS) as stream:
            stream.write("".join(map(_to_json, lines)).encode())
        self._stream = (run / METRICS).open("a", encoding="utf-8")

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_main:
            self._stream.close()
        for tracker in self._accelerator.trackers:
            tracker.finish()
        self._accelerator.trackers = []

    def write(self, line: dict[str, Any]) -> None:
        """Write a line to disk and to the trackers."""
        if self._is_main:
            self._stream.write(_to_json(line))
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._accelerator.log(dict(flatten(line)), step=line["step"])


def _start_trackers(run: Path, settings: Settings, accelerator: Accelerator, resumed: int) -> None:
    trackers: list[GeneralTracker] = []
    if settings.tensorboard:
        trackers.append(TensorBoardTracker("tensorboard", run, purge_step=resumed + 1))
    if settings.wandb:
        trackers.append(WandBTracker(settings.wandb, name=run.name, dir=str(run), config=settings.to_json()))
    if trackers:
        accelerator.log_with = trackers
        try:
            accelerator.init_trackers(settings.wandb)
        except ImportError as error:
            names = " and ".join(tracker.name for tracker in trackers)
            raise UsageError(
                f"{names} is not installed ({error}). Install it: pip install tensorboard wandb"
            ) from error


def _to_json(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of RUN/metrics.jsonl, up to one that a kill cut off."""
    path = run / METRICS
    lines: list[dict[str, Any]] = []
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
    return lines


def flatten(line: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a line with their names, such as `train/raw/media_source`."""
    prefix = prefix or line["kind"]
    for name, value in line.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}/{name}")
        elif isinstance(value, int | float) and name not in ("step", "epoch"):
            yield f"{prefix}/{name}", value
