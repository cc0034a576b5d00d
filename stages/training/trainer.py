"""The loop of a run. Order, random state and learning rate are functions of the step, so a checkpoint needs none of
them, and a run that was killed goes on to the last bit as it would have.

Every rank does the same steps, and decides by figures that are the same everywhere: nobody waits for who has left.
"""

import contextlib
import dataclasses
import functools
import math
import operator
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from model.batch import Batch, map_tensors
from model.cached_step import cached_step
from model.gather import mean_over_ranks
from model.modeling import LARGEST_SCALE, LeccrModel
from model.objective import Losses, objective
from pipeline.corpus.table import write_json
from pipeline.errors import Interrupted, PipelineError
from stages.processes import asked_to_stop, on_main
from stages.training import checkpoints
from stages.training.metrics_log import Screen, Tracker
from stages.training.optim import Ema, make_optimizer, schedule, set_learning_rate
from stages.training.run_folder import Keeper
from stages.training.settings import Settings
from stages.training.validation import said

SHOWN_IDS = 8
RANKS = 1 << 20  # more than there will be


@dataclasses.dataclass
class Position:
    """Where a run is: all that its checkpoint knows beside weights and the optimiser."""

    step: int = 0  # steps done
    validated: int = 0  # step of the last validation
    best: dict[str, Any] | None = None  # the best validation's line
    waiting: int = 0  # validations since the best
    processes: int = 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long a run is. `ids(step)`: the items of a step's whole batch, over all ranks."""

    steps: int
    steps_per_epoch: int
    ids: Callable[[int], Sequence[str]]

    def epoch(self, step: int) -> int:
        """The epoch, from 1, that step `step` (from 1) is in."""
        return (step - 1) // self.steps_per_epoch + 1


class Trainer:
    """`samples[i]` is this rank's batch of step i + 1; `validate(step)` gives a validation line of the model."""

    def __init__(
        self,
        settings: Settings,
        accelerator: Accelerator,
        model: LeccrModel,
        samples: Dataset,
        plan: Plan,
        validate: Callable[[int], dict[str, Any]],
        keeper: Keeper,
    ):
        self.settings, self.accelerator, self.samples, self.plan = settings, accelerator, samples, plan
        self.validate, self.keeper, self.model = validate, keeper, model
        self.wrapped = accelerator.prepare_model(model)
        self.optimizer = make_optimizer(model, model.new_parameters(), settings)
        self.ema = Ema(model, settings.ema) if settings.ema else None
        self.position = Position(processes=accelerator.num_processes)
        self.objective_config = settings.objective_config()

    def resume(self, folder: Path) -> None:
        """Go on from a checkpoint whose weights the model has already."""
        state = checkpoints.read_training(folder)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            for name, weights in state["ema"].items():
                self.ema.weights[name].copy_(weights)
        self.position = Position(**checkpoints.read_position(folder))
        before, now = self.position.processes, self.accelerator.num_processes
        if before != now and self.accelerator.is_main_process:
            print(f"note: {before} processes until step {self.position.step:,}, {now} now: same data, other dropout")
        self.position.processes = now

    def run(self) -> None:
        position, settings = self.position, self.settings
        screen = Screen(self.plan.steps, position.step, self.accelerator.is_main_process)
        with (
            asked_to_stop() as signals,
            Tracker(self.keeper.run, settings, position.step, self.accelerator.is_main_process) as tracker,
        ):
            if self._validate_if_due(tracker, screen):  # the run was ended between a last step and this
                self._save()
            for batches, clock in self._batches():
                if self._ended_early():
                    screen.say(f"no better validation for {settings.patience}: ended at step {position.step:,}")
                    break
                line, stop = self._step(batches, signals)
                position.step += 1
                clock.done(self.settings.batch_size)
                screen.show(position.step, line["loss"], clock.samples_per_s)
                if position.step % settings.log_every == 0 or position.step == self.plan.steps:
                    tracker.write(line | clock.read())
                if stop:
                    self._interrupted(signals)
                self._validate_if_due(tracker, screen)
                if self._save_due():
                    self._save()

    def _step(self, batches: Sequence[Batch], signals: Sequence[int]) -> tuple[dict[str, Any], bool]:
        """One step of the optimiser: its line for metrics.jsonl, and whether some rank was asked to stop."""
        number = self.position.step + 1
        settings = self.settings
        lr = settings.lr * schedule(number, self.plan.steps, settings.warmup, settings.schedule)
        set_learning_rate(self.optimizer, lr)
        torch.manual_seed(step_seed(settings.seed, number, self.accelerator.process_index))
        self.model.train()
        losses = cached_step(
            self.wrapped,
            batches,
            self._losses,
            [self.model.log_scale],
            self.accelerator.backward,
            lambda: self.accelerator.no_sync(self.wrapped),
            lambda batch: to_device(batch, self.accelerator.device),
        )
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, settings.clip or math.inf)
        line, stop = agreed(losses, norm, bool(signals))
        if not all(math.isfinite(line[name]) for name in ("loss", "grad_norm")):
            self._diverged(number, line)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.model.log_scale.clamp_(max=math.log(LARGEST_SCALE))
        if self.ema:
            self.ema.update(self.model, number)
        return {"kind": "train", "step": number, "epoch": self.plan.epoch(number), **line, "lr": lr}, stop

    def _losses(self, features: Any, item_ids: torch.Tensor, weights: torch.Tensor) -> Losses:
        return objective(features, self.model.logit_scale, item_ids, weights, self.objective_config)

    def _batches(self) -> Iterator[tuple[list[Batch], "Clock"]]:
        """This rank's batches from the next step on, in micro-batches, with a clock that tells waiting from working."""
        steps = range(self.position.step, self.plan.steps)
        workers = self.settings.workers
        loader = DataLoader(
            self.samples,
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        clock = Clock()
        batches = iter(loader)
        for _ in steps:
            clock.waits()
            batch = next(batches)
            clock.works()
            yield split(batch, self.settings.micro_batch), clock

    def _validate_if_due(self, tracker: Tracker, screen: Screen) -> bool:
        position = self.position
        every = self.settings.validate_every or self.plan.steps_per_epoch
        due = position.step == self.plan.steps or position.step % every == 0
        if not due or position.validated == position.step:
            return False
        with self.ema.applied(self.model) if self.ema else contextlib.nullcontext():
            line = {**self.validate(position.step), "epoch": self.plan.epoch(position.step)}
            position.validated = position.step
            position.waiting += 1
            better = position.best is None or line["sum_r"] > position.best["sum_r"]
            if better:
                position.best, position.waiting = line, 0
                on_main(lambda: self.keeper.keep_best(line))
        tracker.write(line)
        screen.say(said(line, better))
        return True

    def _ended_early(self) -> bool:
        return 0 < self.settings.patience <= self.position.waiting

    def _save_due(self) -> bool:
        step, every = self.position.step, self.settings.save_every
        return step == self.position.validated or bool(every and step % every == 0)

    def _save(self) -> None:
        training = {"optimizer": self.optimizer.state_dict(), "ema": self.ema.weights if self.ema else {}}
        position = dataclasses.asdict(self.position)

        def write() -> None:
            save = functools.partial(self.keeper.save, best=self.position.best)
            checkpoints.save(self.keeper.run, self.position.step, save, training, position)

        on_main(write)

    def _interrupted(self, signals: Sequence[int]) -> None:
        self._save()
        number = signals[0] if signals else signal.SIGTERM  # another rank was asked
        error = Interrupted(
            f"ended by {signal.Signals(number).name} after step {self.position.step:,} of {self.plan.steps:,}, which "
            "is saved: run the same command with --resume to go on"
        )
        error.status = 128 + number
        raise error

    def _diverged(self, step: int, line: dict[str, Any]) -> None:
        """All ranks come here together: the figures are means over them."""
        ids = sorted(self.plan.ids(step))
        shown = ", ".join(ids[:SHOWN_IDS]) + (f" and {len(ids) - SHOWN_IDS:,} more" if len(ids) > SHOWN_IDS else "")
        path = self.keeper.run / "diverged.json"
        figures = {name: str(line[name]) for name in ("loss", "grad_norm", "raw")}
        on_main(lambda: write_json(path, {"step": step, "item_ids": ids, **figures}))
        raise PipelineError(
            f"step {step:,}: the loss is {line['loss']} and the gradient's norm {line['grad_norm']}, wanted finite "
            f"numbers: look at the batch's items ({shown}; all in {path}), or start again with a smaller lr, with clip "
            "or with mixed_precision=no; checkpoints made before stay"
        )


class Clock:
    """How fast samples go through, and how much of the time went by waiting for data, since the last reading."""

    def __init__(self) -> None:
        self.samples_per_s = 0.0
        self._reset()

    def _reset(self) -> None:
        self._started = self._mark = time.monotonic()
        self._waited, self._samples = 0.0, 0

    def waits(self) -> None:
        self._mark = time.monotonic()

    def works(self) -> None:
        self._waited += time.monotonic() - self._mark

    def done(self, samples: int) -> None:
        self._samples += samples
        self.samples_per_s = self._samples / max(time.monotonic() - self._started, 1e-9)

    def read(self) -> dict[str, float]:
        spent = max(time.monotonic() - self._started, 1e-9)
        figures = {"samples_per_s": self._samples / spent, "data_wait": self._waited / spent}
        self._reset()
        return figures


def agreed(losses: Losses, norm: torch.Tensor, stop: bool) -> tuple[dict[str, Any], bool]:
    """Figures of a step as means over ranks, in one exchange, and whether any rank wants to stop."""
    names = list(losses.raw)
    values = [losses.total, norm, *losses.raw.values(), *(losses.weighted[name] for name in names)]
    vector = torch.stack([value.detach().double() for value in values])
    # the flag is apart from the figures: they may be no numbers
    vector = torch.cat([vector, vector.new_tensor([float(stop)])])
    total, mean_norm, *rest = mean_over_ranks(vector).tolist()
    raw, weighted = rest[: len(names)], rest[len(names) : -1]
    line = {
        "loss": total,
        "raw": dict(zip(names, raw, strict=True)),
        "weighted": dict(zip(names, weighted, strict=True)),
        "grad_norm": mean_norm,
    }
    return line, rest[-1] > 0


def step_seed(seed: int, step: int, rank: int) -> int:
    """Random state of a step on a rank, a pure function of the three."""
    return ((seed * 1_000_003 + step) * RANKS + rank) % (1 << 63)


def split(batch: Batch, size: int) -> list[Batch]:
    """Micro-batches of `size` samples, the last one smaller; 0: the batch as it is."""
    count = len(batch.item_ids)
    if not 0 < size < count:
        return [batch]
    return [map_tensors(batch, operator.itemgetter(slice(at, at + size))) for at in range(0, count, size)]


def to_device(batch: Batch, device: torch.device) -> Batch:
    return map_tensors(batch, lambda x: x.to(device, non_blocking=True))
