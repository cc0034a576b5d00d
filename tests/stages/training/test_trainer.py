"""The training loop with a small model: bit-identical after kills, stops that lose nothing, divergence."""

import json
import math
import os
import signal

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from model.batch import Batch, Features, Media, Texts
from model.losses import Losses
from pipeline.errors import EnvironmentTrouble, Interrupted, PipelineError
from stages.training import run_folder, trainer
from stages.training.metrics import read_metrics
from stages.training.run_folder import ModelWriter, list_checkpoints, newest_checkpoint
from stages.training.settings import Settings
from stages.training.trainer import Trainer, num_workers, reduce_line, step_seed

ITEMS, WIDTH, SAMPLES, PER_EPOCH = 12, 6, 4, 3


class Small(nn.Module):
    """Media, texts and slots from one layer each, with dropout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.media, self.text, self.slots = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.log_scale = nn.Parameter(torch.tensor(2.0))
        self.dropout = nn.Dropout(0.3)
        self.broken_at = None
        self.step = 0

    @property
    def temperature_parameters(self):
        return [self.log_scale]

    def limit_temperatures(self):
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(100))

    @property
    def logit_scales(self):
        return torch.stack([self.log_scale, self.log_scale]).exp()

    def new_parameters(self):
        return [name for name, _ in self.named_parameters()]

    def forward(self, batch):
        media = self.dropout(self.media(batch.media.frames[:, 0]))
        slots = self.dropout(self.slots(batch.descriptions.tokens))
        if self.training:
            self.step += 1
            if self.step == self.broken_at:
                media = media * math.nan
        unit = nn.functional.normalize
        source, target = (unit(self.text(texts.tokens[:, 0]), dim=-1) for texts in (batch.source, batch.target))
        unit_slots = unit(slots, dim=-1)
        return Features(
            unit(media, dim=-1), unit_slots, unit_slots.mean(1), unit(media, dim=-1),
            unit_slots @ unit_slots.mT, source, target, source[:, :0],
        )  # fmt: skip


class Samples(Dataset):
    """Step i's batch, a function of only i."""

    steps_per_epoch = PER_EPOCH

    def item_ids(self, step):
        return [f"item {step} {number}" for number in range(20)]

    def __getitem__(self, step):
        generator = torch.Generator().manual_seed(step)
        items = torch.randperm(ITEMS, generator=generator)[:SAMPLES]
        vectors = torch.nn.functional.one_hot(items, ITEMS).float()[:, None, :WIDTH] + 0.1
        mask = torch.ones(SAMPLES, 1, dtype=torch.bool)
        texts = Texts(vectors, mask)
        views = Texts(vectors.repeat(1, 2, 1), mask.repeat(1, 2))
        return Batch(Media(vectors, mask), texts, texts, views, items, torch.ones(SAMPLES))


class Writer(ModelWriter):
    def __init__(self, run, model):
        self.run, self.model = run, model

    def write(self, folder, best):
        torch.save(self.model.state_dict(), folder / "weights.pt")

    def write_best(self, best, start):
        run_folder.write_folder(self.run / "best", lambda folder: self.write(folder, best))


class Run:
    """A trainer of `Small` in `folder`; `sums` are the SumR of its validations."""

    def __init__(self, folder, sums=(), resume=False, **settings):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        defaults = {"batch_size": SAMPLES, "lr": 0.05, "log_every": 1, "new_layer_lr_multiplier": 1.0, "steps": 9}
        self.settings = Settings(**(defaults | settings))
        self.model = Small()
        self.validated, self.sums = [], sums
        if resume:
            checkpoint = newest_checkpoint(folder)
            self.model.load_state_dict(torch.load(checkpoint / "weights.pt", weights_only=True))
        self.trainer = Trainer(
            self.settings,
            Accelerator(cpu=True),
            self.model,
            Samples(),
            self.settings.steps,
            self.validate,
            Writer(folder, self.model),
        )
        if resume:
            self.trainer.resume(checkpoint)

    def validate(self, step):
        self.validated.append((step, {name: value.clone() for name, value in self.model.state_dict().items()}))
        sum_r = self.sums[step // PER_EPOCH] if self.sums else float(step)
        recalls = {"de": {"sum_r": sum_r}}
        return {
            "kind": "validation", "step": step, "sum_r": sum_r, "chance": 1.0, "split": "val", "items": 3,
            "recalls": recalls, "global_weight": 1.0,
        }  # fmt: skip

    def run(self):
        self.trainer.run()
        return self

    def lines(self):
        timed = ("samples_per_s", "data_wait")
        return [{k: v for k, v in line.items() if k not in timed} for line in read_metrics(self.folder)]

    def weights(self):
        return {name: value.tolist() for name, value in self.model.state_dict().items()}


class Killed(Exception):
    pass


def killed_at(run, step):
    """Train as far as `step` and end there without a checkpoint."""
    real = run.trainer._step

    def until(*arguments):
        if run.trainer.position.step == step:
            raise Killed
        return real(*arguments)

    run.trainer._step = until
    with pytest.raises(Killed):
        run.run()


@pytest.mark.parametrize("settings", [{"ema": 0.9}, {"micro_batch": 3}, {"save_every": 2, "schedule": "cosine"}])
def test_run_killed_three_times_ends_bit_identically(tmp_path, settings):
    whole = Run(tmp_path / "whole", **settings).run()
    killed = tmp_path / "killed"
    killed_at(Run(killed, **settings), 4)
    for step in (5, 8):
        killed_at(Run(killed, resume=True, **settings), step)
    last = Run(killed, resume=True, **settings).run()
    assert last.lines() == whole.lines() and len(whole.lines()) == 9 + 3
    assert last.weights() == whole.weights()
    assert last.trainer.optimizer.state_dict()["state"].keys() == whole.trainer.optimizer.state_dict()["state"].keys()
    if "ema" in settings:
        for name, value in whole.trainer.ema.weights.items():
            assert torch.equal(value, last.trainer.ema.weights[name])


def test_results_do_not_depend_on_processes_that_load_data(tmp_path):
    plain, loaded = (Run(tmp_path / str(workers), workers=workers).run() for workers in (-1, 2))
    assert loaded.lines() == plain.lines() and loaded.weights() == plain.weights()


def test_data_is_loaded_by_other_processes_where_there_is_a_gpu(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert [num_workers(-1, cpu), num_workers(3, cpu), num_workers(-1, gpu), num_workers(0, gpu)] == [0, 3, 4, 0]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert num_workers(-1, gpu) == 3


@pytest.mark.parametrize("settings", [{}, {"micro_batch": 3, "ema": 0.9}])
def test_a_compiled_model_trains_alike_and_keeps_the_names_of_its_weights(tmp_path, monkeypatch, settings):
    plain = Run(tmp_path / "plain", **settings).run()
    real, calls = nn.Module.compile, []
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **options: calls.append(self) or real(self, backend="eager", **options)
    )
    compiled = Run(tmp_path / "compiled", compile=True, **settings).run()
    assert calls == [compiled.model] and compiled.weights() == plain.weights()
    assert compiled.lines() == plain.lines()


def test_dropout_is_on_and_the_seed_matters(tmp_path):
    losses = {}
    for name, settings in {"a": {}, "b": {}, "c": {"seed": 1}}.items():
        losses[name] = [line["loss"] for line in Run(tmp_path / name, **settings).run().lines() if "loss" in line]
    assert losses["a"] == losses["b"] != losses["c"]
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(4)}
    assert len(seeds) == 3 * 50 * 4


def test_it_learns_and_every_term_is_in_the_line(tmp_path):
    run = Run(tmp_path, steps=60, warmup=0.0)
    with torch.no_grad():
        run.model.log_scale.fill_(6.0)
    run.run()
    assert run.model.log_scale.exp() <= 100.001
    lines = [line for line in run.lines() if line["kind"] == "train"]
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    for line in lines:
        assert line["loss"] == pytest.approx(sum(line["weighted"].values()), rel=1e-6)
        assert line["raw"].keys() == line["weighted"].keys() == line["gradient_share"].keys()
        assert sum(line["gradient_share"].values()) == pytest.approx(1) and -1 <= line["slot_cosine"] <= 1
    assert [line["epoch"] for line in lines[:7]] == [1, 1, 1, 2, 2, 2, 3]
    assert lines[0]["lr"] == 0.05


def test_gradients_of_terms_are_computed_on_logged_steps_only(tmp_path, monkeypatch):
    asked, real = [], trainer.objective
    monkeypatch.setattr(trainer, "objective", lambda *given: asked.append(given[-1]) or real(*given))
    Run(tmp_path, log_every=4, micro_batch=2).run()
    assert asked == [False, False, False, True, False, False, False, True, True]


def test_gradient_shares_are_those_of_the_whole_batch():
    """Ranks send squared norms, whose mean is proportional to the square of the whole gradient's norm."""
    one = torch.tensor(1.0)
    losses = Losses(one, {"a": one, "b": one}, {"a": one, "b": one}, {"a": torch.tensor(9.0), "b": one}, one / 2)
    line, _ = reduce_line(losses, one, False)
    assert line["gradient_share"] == {"a": 0.75, "b": 0.25} and line["slot_cosine"] == 0.5


def signalled_in(run, step, number=signal.SIGTERM):
    """Train until a signal arrives in the middle of a step; returns the error."""
    losses = run.trainer._losses

    def during(*arguments):
        if run.trainer.position.step == step - 1:
            os.kill(os.getpid(), number)
        return losses(*arguments)

    run.trainer._losses = during
    with pytest.raises(Interrupted) as caught:
        run.run()
    return caught.value


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_after_the_step_and_the_run_resumes_there(tmp_path, number):
    whole = Run(tmp_path / "whole").run()
    run = Run(tmp_path / "stopped")
    error = signalled_in(run, 6, number)  # when a validation is due
    assert error.status == 128 + number and "after step 6 of 9" in str(error)
    assert [step for step, _ in run.validated] == [0, 3]
    resumed = Run(tmp_path / "stopped", resume=True)
    assert resumed.trainer.position.step == 6
    resumed.run()
    assert [step for step, _ in resumed.validated] == [6, 9]
    assert resumed.lines() == whole.lines() and resumed.weights() == whole.weights()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_signal_in_the_last_step_is_followed_by_one_validation(tmp_path):
    signalled_in(Run(tmp_path), 9)
    assert [step for step, _ in Run(tmp_path, resume=True).run().validated] == [9]
    assert Run(tmp_path, resume=True).run().validated == []


@pytest.mark.parametrize("micro_batch", [0, 2])
def test_loss_that_is_not_finite_stops_the_run_and_names_the_items(tmp_path, micro_batch):
    run = Run(tmp_path, micro_batch=micro_batch)
    run.model.broken_at = 5 if not micro_batch else 4 * 4 + 1
    with pytest.raises(PipelineError, match=r"step 5: the loss is nan.*item 4 0, item 4 1.*smaller lr"):
        run.run()
    report = json.loads((tmp_path / "diverged.json").read_text())
    assert report["step"] == 5 and len(report["item_ids"]) == 20
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000003"]
    assert all(torch.isfinite(value).all() for value in run.model.state_dict().values())


def test_the_best_is_kept_and_patience_ends_the_run(tmp_path):
    run = Run(tmp_path, sums=[1.0, 5.0, 7.0, 6.0, 7.0, 9.0], steps=15, patience=2).run()
    assert [step for step, _ in run.validated] == [0, 3, 6, 9, 12]
    best = torch.load(tmp_path / "best" / "weights.pt", weights_only=True)
    assert all(torch.equal(best[name], value) for name, value in run.validated[2][1].items())
    _, position = run_folder.read_progress(newest_checkpoint(tmp_path))
    assert (position["step"], position["validated"], position["waiting"]) == (12, 12, 2)
    assert (position["best"]["step"], position["best"]["sum_r"], position["best"]["epoch"]) == (6, 7.0, 2)
    again = Run(tmp_path, sums=[], steps=15, patience=2, resume=True).run()
    assert again.validated == [] and again.trainer.position.step == 12


def test_checkpoints_are_written_every_so_many_steps_and_at_validations(tmp_path, monkeypatch):
    steps, write = [], ModelWriter.write_checkpoint
    monkeypatch.setattr(
        ModelWriter, "write_checkpoint", lambda self, *state: steps.append(state[1]["step"]) or write(self, *state)
    )
    Run(tmp_path / "often", save_every=2).run()
    Run(tmp_path / "seldom").run()
    assert steps == [2, 3, 4, 6, 8, 9, 3, 6, 9]


def test_averaged_weights_are_what_is_scored_and_kept_as_best_and_training_goes_on_with_its_own(tmp_path):
    plain, averaged = Run(tmp_path / "plain").run(), Run(tmp_path / "ema", ema=0.9).run()
    assert [line for line in averaged.lines() if line["kind"] == "train"] == [
        line for line in plain.lines() if line["kind"] == "train"
    ]
    scored = averaged.validated[-1][1]
    for name, value in averaged.trainer.ema.weights.items():
        assert torch.equal(scored[name], value)
        assert not torch.equal(value, averaged.model.state_dict()[name])
    best = torch.load(tmp_path / "ema" / "best" / "weights.pt", weights_only=True)
    assert all(torch.equal(best[name], value) for name, value in scored.items())


class Replaced(Samples):
    def __getitem__(self, step):
        raise EnvironmentTrouble("part-0 was replaced: leave it alone")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_loading_process_reports_is_one_sentence(tmp_path, workers):
    run = Run(tmp_path, workers=workers)
    run.trainer.batches = Replaced()
    with pytest.raises(EnvironmentTrouble, match=r"^part-0 was replaced: leave it alone$"):
        run.run()


def test_stop_request_survives_figures_that_are_not_finite():
    losses = Losses(torch.tensor(math.nan), {"a": torch.tensor(math.inf)}, {"a": torch.tensor(1.0)})
    line, stop = reduce_line(losses, torch.tensor(2.0), True)
    assert stop and math.isnan(line["loss"]) and line["raw"] == {"a": math.inf} and line["grad_norm"] == 2.0
    assert not reduce_line(losses, torch.tensor(2.0), False)[1]
