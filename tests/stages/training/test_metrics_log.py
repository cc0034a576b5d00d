"""metrics.jsonl after kills, what goes to TensorBoard and W&B, the line on the screen."""

import builtins
import io
import sys

import pytest

from pipeline.errors import UsageError
from stages.training.metrics_log import Screen, Tracker, flat, read_metrics
from stages.training.settings import Settings

LINE = {"kind": "train", "step": 1, "epoch": 1, "loss": 2.5, "raw": {"media_source": 1.0}, "lr": 0.1}


def write(run, steps, resumed=0, settings=None):
    with Tracker(run, settings or Settings(), resumed, True) as tracker:
        for step in steps:
            tracker.write(LINE | {"step": step})


def test_lines_after_the_checkpoint_are_cut_and_come_again(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    write(tmp_path, [3, 4, 5], resumed=2)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_line_cut_by_a_kill_is_left_out(tmp_path):
    write(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-9])
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]
    write(tmp_path, [2], resumed=1)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]


def test_lines_are_there_while_the_run_goes_on(tmp_path):
    with Tracker(tmp_path, Settings(), 0, True) as tracker:
        tracker.write(LINE)
        assert read_metrics(tmp_path) == [LINE]


def test_other_ranks_write_nothing(tmp_path):
    with Tracker(tmp_path, Settings(tensorboard=True), 0, False) as tracker:
        tracker.write(LINE)
    assert not list(tmp_path.iterdir())


def test_figures_have_flat_names():
    assert dict(flat(LINE)) == {"train/loss": 2.5, "train/raw/media_source": 1.0, "train/lr": 0.1}


def test_tensorboard_gets_the_figures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, [1, 2], settings=Settings(tensorboard=True))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/raw/media_source")] == [1, 2]


@pytest.mark.parametrize(
    ("settings", "package", "told"),
    [
        (Settings(wandb="search"), "wandb", "pip install wandb"),
        (Settings(tensorboard=True), "torch.utils.tensorboard", "pip install tensorboard"),
    ],
)
def test_a_tracker_that_is_not_installed_is_said_so(tmp_path, monkeypatch, settings, package, told):
    real = builtins.__import__

    def without(name, *more, **named):
        if name == package:
            raise ImportError(name)
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=told):
        Tracker(tmp_path, settings, 0, True)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_wandb_gets_the_figures(tmp_path, monkeypatch):
    class Fake:
        def init(self, **named):
            self.named, self.logged = named, []
            return self

        def log(self, figures, step):
            self.logged.append((step, figures))

        def finish(self):
            self.logged.append("finished")

    fake = Fake()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    write(tmp_path, [7], settings=Settings(wandb="search"))
    assert fake.named["project"] == "search" and fake.named["config"]["wandb"] == "search"
    assert fake.logged == [(7, dict(flat(LINE))), "finished"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_has_one_line_drawn_over_and_a_file_few(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr("stages.training.metrics_log.time.monotonic", lambda: clock[0])
    stream = Terminal()
    for terminal in (stream, io.StringIO()):
        monkeypatch.setattr(sys, "stderr", terminal)
        screen = Screen(total=100, step=20, is_main=True)
        for step in range(21, 61):
            clock[0] += 1.0
            screen.show(step, 2.0, 33.0)
        if terminal is stream:
            assert terminal.getvalue().count("\r") == 40 and "\n" not in terminal.getvalue()
            assert "step 60/100 · loss 2.000 · 33.0 samples/s · ETA 40 s" in terminal.getvalue()
        else:
            assert terminal.getvalue() == "step 50/100 · loss 2.000 · 33.0 samples/s · ETA 50 s\n"
    other = Screen(total=100, step=0, is_main=False)
    clock[0] += 100
    other.show(1, 1.0, 1.0)
    other.say("nothing")
    assert capsys.readouterr().out == ""
