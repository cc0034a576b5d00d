"""The loop with a small stand-in of a model: to the last bit after kills, stops that lose nothing, what is refused."""

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
from pipeline.errors import Interrupted, PipelineError
from stages.training import checkpoints
from stages.training.metrics_log import read_metrics
from stages.training.settings import Settings
from stages.training.trainer import Plan, Trainer, reduce_line, split_batch, step_seed

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
    def logit_scale(self):
        return self.log_scale.exp()

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
            unit_slots @ unit_slots.mT, source, target,
        )  # fmt: skip


class Samples(Dataset):
    """Step i's batch, a function of i alone."""

    def __init__(self, steps):
        self.steps, self.read = steps, []

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        self.read.append(step)
        generator = torch.Generator().manual_seed(step)
        items = torch.randperm(ITEMS, generator=generator)[:SAMPLES]
        vectors = torch.nn.functional.one_hot(items, ITEMS).float()[:, None, :WIDTH] + 0.1
        mask = torch.ones(SAMPLES, 1, dtype=torch.bool)
        texts = Texts(vectors, mask)
        views = Texts(vectors.repeat(1, 2, 1), mask.repeat(1, 2))
        return Batch(Media(vectors, mask), texts, texts, views, items, torch.ones(SAMPLES))


class Writer:
    def __init__(self, run, model):
        self.run, self.model = run, model

    def write(self, folder, best):
        torch.save(self.model.state_dict(), folder / "weights.pt")

    def write_best(self, best):
        checkpoints.write_folder(self.run / "best", lambda folder: self.write(folder, best))


class Run:
    """A trainer of `Small` in `folder`; `sums` are what its validations find."""

    def __init__(self, folder, sums=(), resume=False, **settings):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        defaults = {"batch_size": SAMPLES, "lr": 0.05, "log_every": 1, "new_layer_lr_multiplier": 1.0, "steps": 9}
        self.settings = Settings(**(defaults | settings))
        self.model = Small()
        self.samples = Samples(self.settings.steps)
        self.validated, self.sums = [], sums
        plan = Plan(self.settings.steps, PER_EPOCH, lambda step: [f"item {number}" for number in range(20)])
        if resume:
            found = checkpoints.newest(folder, print)
            self.model.load_state_dict(torch.load(found / "weights.pt", weights_only=True))
        self.trainer = Trainer(
            self.settings,
            Accelerator(cpu=True),
            self.model,
            self.samples,
            plan,
            self.validate,
            Writer(folder, self.model),
        )
        if resume:
            self.trainer.resume(found)

    def validate(self, step):
        self.validated.append((step, {name: value.clone() for name, value in self.model.state_dict().items()}))
        sum_r = self.sums[step // PER_EPOCH - 1] if self.sums else float(step)
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
    """The run as far as `step`, ended there with nothing said."""
    real = run.trainer._step

    def until(*arguments):
        if run.trainer.position.step == step:
            raise Killed
        return real(*arguments)

    run.trainer._step = until
    with pytest.raises(Killed):
        run.run()


@pytest.mark.parametrize("settings", [{"ema": 0.9}, {"micro_batch": 3}, {"save_every": 2, "schedule": "cosine"}])
def test_three_kills_and_the_same_to_the_last_bit(tmp_path, settings):
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


def test_dropout_is_on_and_the_seed_matters(tmp_path):
    losses = {}
    for name, settings in {"a": {}, "b": {}, "c": {"seed": 1}}.items():
        losses[name] = [line["loss"] for line in Run(tmp_path / name, **settings).run().lines() if "loss" in line]
    assert losses["a"] == losses["b"] != losses["c"]
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(4)}
    assert len(seeds) == 3 * 50 * 4


def test_it_learns_and_every_term_is_in_the_line(tmp_path):
    run = Run(tmp_path, steps=60, warmup=0.0).run()
    lines = [line for line in run.lines() if line["kind"] == "train"]
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    for line in lines:
        assert line["loss"] == pytest.approx(sum(line["weighted"].values()), rel=1e-6)
        assert line["raw"].keys() == line["weighted"].keys()
    assert [line["epoch"] for line in lines[:7]] == [1, 1, 1, 2, 2, 2, 3]
    assert lines[0]["lr"] == 0.05


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_at_the_end_of_the_step_and_the_run_goes_on_from_there(tmp_path, number):
    whole = Run(tmp_path / "whole").run()
    run = Run(tmp_path / "stopped")
    real = run.trainer._losses

    def during(*arguments):
        if run.trainer.position.step == 5:  # in step 6, when a validation is due
            os.kill(os.getpid(), number)
        return real(*arguments)

    run.trainer._losses = during
    with pytest.raises(Interrupted, match=r"after step 6 of 9.*--resume") as caught:
        run.run()
    assert caught.value.status == 128 + number
    assert [step for step, _ in run.validated] == [3]
    on = Run(tmp_path / "stopped", resume=True)
    assert on.trainer.position.step == 6
    on.run()
    assert [step for step, _ in on.validated] == [6, 9]
    assert on.lines() == whole.lines() and on.weights() == whole.weights()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_ended_in_the_last_step_it_is_validated_once_and_then_done(tmp_path):
    run = Run(tmp_path / "run")
    real = run.trainer._losses

    def during(*arguments):
        if run.trainer.position.step == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    run.trainer._losses = during
    with pytest.raises(Interrupted):
        run.run()
    assert [step for step, _ in Run(tmp_path / "run", resume=True).run().validated] == [9]
    assert Run(tmp_path / "run", resume=True).run().validated == []


def test_the_scale_is_bounded_after_each_step(tmp_path):
    run = Run(tmp_path / "run", steps=3)
    with torch.no_grad():
        run.model.log_scale.fill_(6.0)
    run.run()
    assert run.model.log_scale.exp() <= 100.001


@pytest.mark.parametrize("micro_batch", [0, 2])
def test_a_loss_that_is_no_number_stops_with_the_items(tmp_path, micro_batch):
    run = Run(tmp_path, micro_batch=micro_batch)
    run.model.broken_at = 5 if not micro_batch else 4 * 4 + 1
    with pytest.raises(
        PipelineError, match=r"step 5: the loss is nan.*item 0, item 1.*and 12 more.*smaller lr"
    ) as caught:
        run.run()
    assert caught.value.status == 1
    told = json.loads((tmp_path / "diverged.json").read_text())
    assert told["step"] == 5 and len(told["item_ids"]) == 20
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path)] == ["step-00000003"]
    assert all(torch.isfinite(value).all() for value in run.model.state_dict().values())


def test_the_best_is_kept_and_patience_ends_the_run(tmp_path):
    run = Run(tmp_path, sums=[5.0, 7.0, 6.0, 7.0, 9.0], steps=15, patience=2).run()
    assert [step for step, _ in run.validated] == [3, 6, 9, 12]
    best = torch.load(tmp_path / "best" / "weights.pt", weights_only=True)
    assert all(torch.equal(best[name], value) for name, value in run.validated[1][1].items())
    position = checkpoints.read_position(checkpoints.newest(tmp_path, print))
    assert (position["step"], position["validated"], position["waiting"]) == (12, 12, 2)
    assert (position["best"]["step"], position["best"]["sum_r"], position["best"]["epoch"]) == (6, 7.0, 2)
    again = Run(tmp_path, sums=[], steps=15, patience=2, resume=True).run()
    assert again.validated == [] and again.trainer.position.step == 12


def test_checkpoints_come_as_often_as_asked_and_at_validations(tmp_path, monkeypatch):
    saved, real = [], checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda run, step, *rest: saved.append(step) or real(run, step, *rest))
    Run(tmp_path / "often", save_every=2).run()
    Run(tmp_path / "seldom").run()
    assert saved == [2, 3, 4, 6, 8, 9, 3, 6, 9]


def test_another_number_of_processes_is_said(tmp_path, capsys):
    run = Run(tmp_path, steps=3)
    run.trainer.position.processes = 2
    run.run()
    assert "note" not in capsys.readouterr().out
    assert Run(tmp_path, steps=3, resume=True).trainer.position.processes == 1
    assert "note: 2 processes until step 3, 1 now" in capsys.readouterr().out


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


def test_the_cached_step_is_the_plain_one(tmp_path):
    def without_dropout(**settings):
        run = Run(tmp_path / str(len(settings)), steps=6, **settings)
        run.model.dropout.p = 0.0
        return run.run().weights()

    plain, cached = without_dropout(), without_dropout(micro_batch=3)
    for name, value in plain.items():
        assert torch.tensor(value).allclose(torch.tensor(cached[name]), atol=1e-6), name


def test_clipping_holds_the_gradient_and_the_line_tells_it_before(tmp_path, monkeypatch):
    norms = []
    real = torch.optim.AdamW.step

    def step(self, *arguments):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(math.sqrt(sum(float((grad**2).sum()) for grad in grads)))
        return real(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    lines = Run(tmp_path, clip=0.01).run().lines()
    told = [line["grad_norm"] for line in lines if line["kind"] == "train"]
    assert max(norms) <= 0.0101 and min(told) > 0.02
    norms.clear()
    Run(tmp_path / "free", clip=0.0).run()
    assert max(norms) > 0.02


def test_lines_come_as_often_as_asked_and_for_the_last_step(tmp_path):
    lines = Run(tmp_path, log_every=4).run().lines()
    assert [line["step"] for line in lines if line["kind"] == "train"] == [4, 8, 9]


def test_loading_workers_change_nothing(tmp_path):
    one, two = Run(tmp_path / "one").run(), Run(tmp_path / "two", workers=2).run()
    assert one.lines() == two.lines()


def test_a_batch_is_split_without_loss():
    batch = Samples(1)[0]
    parts = split_batch(batch, 3)
    assert [len(part.item_ids) for part in parts] == [3, 1]
    assert torch.equal(torch.cat([part.descriptions.tokens for part in parts]), batch.descriptions.tokens)
    assert split_batch(batch, 0) == [batch] and len(split_batch(batch, SAMPLES)) == 1


def test_a_figure_that_is_no_number_does_not_hide_the_wish_to_stop():
    from model.objective import Losses

    losses = Losses(torch.tensor(math.nan), {"a": torch.tensor(math.inf)}, {"a": torch.tensor(1.0)})
    line, stop = reduce_line(losses, torch.tensor(2.0), True)
    assert stop and math.isnan(line["loss"]) and line["raw"] == {"a": math.inf} and line["grad_norm"] == 2.0
    assert not reduce_line(losses, torch.tensor(2.0), False)[1]
