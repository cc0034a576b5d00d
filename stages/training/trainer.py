"""The training loop. Order of samples, random state and learning rate are functions of the step.

So a checkpoint stores none of them, and a killed run resumes: bit-identically on a CPU in float32 with the same number
of processes. All ranks do the same steps, and decide by figures that are the same on each, so that no rank
waits for one that has left.
"""

import contextlib
import dataclasses
import math
import operator
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from model.batch import Batch, Features, map_tensors, to_device
from model.losses import Losses
from model.modeling import LeccrModel
from model.objective import objective
from model.parts import cached_step, mean_over_ranks
from pipeline.corpus.table import write_json
from pipeline.engine.progress import ProgressLine
from pipeline.errors import Interrupted, PipelineError
from stages.data.batches import StepBatches
from stages.processes import on_main, stop_requests
from stages.training.metrics import metrics_log
from stages.training.optim import Ema, make_optimizer, schedule, set_learning_rate
from stages.training.run_folder import ModelWriter, read_progress
from stages.training.settings import Settings
from stages.training.validation import validation_summary

REPORTED_IDS = 8
MAX_RANKS = 1 << 20
MOST_WORKERS = 4  # unless the user says otherwise
PREFETCHED = 2  # batches that each worker prepares ahead


@dataclasses.dataclass
class Position:
    """Progress of a run: what its checkpoint stores next to weights and optimiser."""

    step: int = 0  # steps done
    validated: int = -1  # step of the last validation
    best: dict[str, Any] | None = None  # line of the best validation
    start: dict[str, Any] | None = None  # line of the validation before the first step
    waiting: int = 0  # validations since the best
    processes: int = 1


class Trainer:
    """Trains a model to its last step, with validations and checkpoints.

    Args:
        settings: Settings of the run.
        accelerator: Processes, device and precision.
        model: The model, on any device.
        batches: `batches[i]` is this rank's batch of step i + 1.
        steps: Steps of the whole run.
        validate: Scores the model after a step and returns the line for metrics.jsonl.
        writer: Writes the model into the run folder.
    """

    def __init__(
        self,
        settings: Settings,
        accelerator: Accelerator,
        model: LeccrModel,
        batches: StepBatches,
        steps: int,
        validate: Callable[[int], dict[str, Any]],
        writer: ModelWriter,
    ):
        self.settings, self.accelerator, self.batches, self.steps = settings, accelerator, batches, steps
        self.validate, self.writer, self.model = validate, writer, model
        if settings.compile:
            # In place, so that weights keep their names. Texts differ in length, and cached gradients need the same
            # dropout with and without a graph, which only random numbers from outside the compiled code give.
            model.compile(dynamic=True, options={"fallback_random": True})
        self.wrapped = accelerator.prepare_model(model)
        self.optimizer = make_optimizer(model, model.new_parameters(), settings)
        self.ema = Ema(model, settings.ema) if settings.ema else None
        self.position = Position(processes=accelerator.num_processes)
        self.objective_config = settings.objective_config()

    def resume(self, checkpoint: Path) -> None:
        """Restore optimiser, averaged weights and progress; the model has the checkpoint's weights already."""
        tensors, position = read_progress(checkpoint)
        self.optimizer.load_state_dict(tensors["optimizer"])
        if self.ema:
            for name, weights in tensors["ema"].items():
                self.ema.weights[name].copy_(weights)
        self.position = Position(**position)
        before, now = self.position.processes, self.accelerator.num_processes
        if before != now:
            self._say(
                f"note: {before} processes until step {self.position.step:,}, {now} now: same data, other dropout"
            )
        self.position.processes = now

    def run(self) -> None:
        """Train until the last step or until `patience` ends the run.

        Raises:
            Interrupted: A signal asked to stop; the step was finished and saved.
            PipelineError: The loss diverged.
        """
        position, settings, clock = self.position, self.settings, Clock()
        with (
            stop_requests() as signals,
            metrics_log(self.writer.run, settings, self.accelerator, position.step) as write_line,
            ProgressLine(self.steps, "steps", "", position.step, self.accelerator.is_main_process) as progress,
        ):
            # The start is validated too: training can only be better than it. Later steps get here without a validation
            # if the run was killed between its last step and that.
            if self._validate_if_due(write_line) and position.step:
                self._save()
            for batches in self._load_batches(clock):
                if 0 < settings.patience <= position.waiting:
                    self._say(f"no better validation in {settings.patience}: ended at step {position.step:,}")
                    break
                line, stop = self._step(batches, signals)
                position.step += 1
                clock.samples += settings.batch_size
                figures = clock.figures()
                progress.update(position.step, f"loss {line['loss']:.3f}", f"{figures['samples_per_s']:,.1f} samples/s")
                if self._is_logged(position.step):
                    write_line(line | figures)
                    clock.reset()
                if stop:
                    self._save()
                    raise self._interrupted(signals)
                validated = self._validate_if_due(write_line)
                if validated or (settings.save_every and position.step % settings.save_every == 0):
                    self._save()

    def _step(self, batches: Sequence[Batch], signals: Sequence[int]) -> tuple[dict[str, Any], bool]:
        """Do one step of the optimiser; returns its line for metrics.jsonl, and whether any rank was asked to stop."""
        number, settings = self.position.step + 1, self.settings
        lr = settings.lr * schedule(number, self.steps, settings.warmup, settings.schedule)
        set_learning_rate(self.optimizer, lr)
        torch.manual_seed(step_seed(settings.seed, number, self.accelerator.process_index))
        self.model.train()
        losses = cached_step(
            self.wrapped,
            batches,
            self._losses,
            self.model.temperature_parameters,
            self.accelerator.backward,
            lambda: self.accelerator.no_sync(self.wrapped),
            lambda batch: to_device(batch, self.accelerator.device),
        )
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, settings.clip or math.inf)
        line, stop = reduce_line(losses, norm, bool(signals))  # signals that came during the step too
        if not all(math.isfinite(line[name]) for name in ("loss", "grad_norm")):
            raise self._diverged(number, line)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.limit_temperatures()
        if self.ema:
            self.ema.update(self.model, number)
        return {"kind": "train", "step": number, "epoch": self._epoch(number), **line, "lr": lr}, stop

    def _losses(self, features: Features, item_ids: torch.Tensor, weights: torch.Tensor) -> Losses:
        logged = self._is_logged(self.position.step + 1)
        return objective(features, self.model.logit_scales, item_ids, weights, self.objective_config, logged)

    def _is_logged(self, step: int) -> bool:
        return step % self.settings.log_every == 0 or step == self.steps

    def _load_batches(self, clock: "Clock") -> Iterator[list[Batch]]:
        """The remaining steps' batches of this rank, in micro-batches; `clock` learns how long the step waited.

        At most PREFETCHED batches per worker are ready and one is in use. With a GPU they lie in pinned memory, which
        torch takes in powers of two: at most twice as many bytes as these batches have.
        """
        steps, workers = (
            range(self.position.step, self.steps),
            num_workers(self.settings.workers, self.accelerator.device),
        )
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            prefetch_factor=PREFETCHED if workers else None,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        clock.reset()
        batches = iter(loader)
        for _ in steps:
            start = time.monotonic()
            try:
                batch = next(batches)
            except PipelineError as error:  # torch puts the traceback of a worker process into the message
                raise type(error)(str(error).rstrip().rpartition(f"{type(error).__name__}: ")[2]) from error
            clock.waited_s += time.monotonic() - start
            yield split_batch(batch, self.settings.micro_batch)

    def _epoch(self, step: int) -> int:
        """The epoch, from 1, of a step, from 1."""
        return (step - 1) // self.batches.steps_per_epoch + 1

    def _validate_if_due(self, write_line: Callable[[dict[str, Any]], None]) -> bool:
        position = self.position
        every = self.settings.validate_every or self.batches.steps_per_epoch
        due = position.step == self.steps or position.step % every == 0
        if not due or position.validated == position.step:
            return False
        with self.ema.applied(self.model) if self.ema else contextlib.nullcontext():
            line = {**self.validate(position.step), "epoch": self._epoch(position.step)}
            position.validated = position.step
            position.waiting += 1
            if position.step == 0:
                position.start = line
            is_best = position.best is None or line["sum_r"] > position.best["sum_r"]
            if is_best:
                position.best, position.waiting = line, 0
                on_main(lambda: self.writer.write_best(line, position.start))
        if position.step:  # that of the start is in record.json
            write_line(line)
        self._say(validation_summary(line, is_best))
        return True

    def _save(self) -> None:
        tensors = {"optimizer": self.optimizer.state_dict(), "ema": self.ema.weights if self.ema else {}}
        on_main(lambda: self.writer.write_checkpoint(tensors, dataclasses.asdict(self.position)))

    def _interrupted(self, signals: Sequence[int]) -> Interrupted:
        number = signals[0] if signals else signal.SIGTERM  # another rank was asked
        error = Interrupted(
            f"stopped by {signal.Signals(number).name} after step {self.position.step:,} of {self.steps:,}, which "
            "is saved: run the same command with --resume to continue"
        )
        error.status = 128 + number
        return error

    def _diverged(self, step: int, line: dict[str, Any]) -> PipelineError:
        """The error for a loss that is not finite; all ranks get here together, because figures are means over them."""
        ids = self.batches.item_ids(step - 1)
        path = self.writer.run / "diverged.json"
        figures = {name: str(line[name]) for name in ("loss", "grad_norm", "raw")}
        on_main(lambda: write_json(path, {"step": step, "item_ids": ids, **figures}))
        return PipelineError(
            f"step {step:,}: the loss is {line['loss']} and the gradient norm {line['grad_norm']}. Look at the items "
            f"of the batch ({', '.join(ids[:REPORTED_IDS])}; all are in {path}), or start again with a smaller lr, "
            "with clip or with mixed_precision=no. Earlier checkpoints are kept"
        )

    def _say(self, message: str) -> None:
        if self.accelerator.is_main_process:
            if sys.stderr.isatty():
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)  # over the progress line
            print(message, flush=True)


class Clock:
    """Samples per second, and the share of the time spent waiting for data, since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again from zero."""
        self.started, self.waited_s, self.samples = time.monotonic(), 0.0, 0

    def figures(self) -> dict[str, float]:
        """The figures for metrics.jsonl."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        return {"samples_per_s": self.samples / elapsed, "data_wait": self.waited_s / elapsed}


def reduce_line(losses: Losses, norm: torch.Tensor, stop: bool) -> tuple[dict[str, Any], bool]:
    """Figures of a step as means over ranks, in one exchange, and whether any rank was asked to stop."""
    single = {"loss": losses.total, "grad_norm": norm}
    if losses.slot_cosine is not None:
        single["slot_cosine"] = losses.slot_cosine
    by_term = {"raw": losses.raw, "weighted": losses.weighted, "gradient_share": losses.gradients}
    values = [*single.values(), *(value for terms in by_term.values() for value in terms.values())]
    vector = torch.stack([value.detach().double() for value in values])
    # The stop flag has its own element: the figures may be NaN.
    *means, stops = mean_over_ranks(torch.cat([vector, vector.new_tensor([float(stop)])])).tolist()
    mean = iter(means)
    line: dict[str, Any] = {name: next(mean) for name in single}
    line |= {name: {term: next(mean) for term in terms} for name, terms in by_term.items() if terms}
    if losses.gradients:  # the squares of the norms add up over ranks
        norms = {name: math.sqrt(square) for name, square in line["gradient_share"].items()}
        total = sum(norms.values()) or 1.0
        line["gradient_share"] = {name: value / total for name, value in norms.items()}
    return line, stops > 0


def num_workers(workers: int, device: torch.device) -> int:
    """The number of processes that load data for each training process; −1 chooses it. Results do not depend on it."""
    if workers >= 0 or device.type != "cuda":
        return max(0, workers)
    return min(MOST_WORKERS, max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def step_seed(seed: int, step: int, rank: int) -> int:
    """The random seed of a step on a rank."""
    return ((seed * 1_000_003 + step) * MAX_RANKS + rank) % (1 << 63)


def split_batch(batch: Batch, size: int) -> list[Batch]:
    """Micro-batches of `size` samples, the last one smaller; 0 keeps the batch whole."""
    count = len(batch.item_ids)
    if not 0 < size < count:
        return [batch]
    return [map_tensors(batch, operator.itemgetter(slice(at, at + size))) for at in range(0, count, size)]
