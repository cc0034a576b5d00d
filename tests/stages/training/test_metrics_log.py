"""metrics.jsonl after kills, and what TensorBoard and W&B receive."""

import sys
from types import SimpleNamespace

import pytest
from accelerate import Accelerator

from pipeline.errors import UsageError
from stages.training.metrics_log import MetricsLog, flatten, read_metrics
from stages.training.settings import Settings

LINE = {"kind": "train", "step": 1, "epoch": 1, "loss": 2.5, "raw": {"media_source": 1.0}, "lr": 0.1}


def write(run, steps, resumed=0, settings=None):
    with MetricsLog(run, settings or Settings(), Accelerator(cpu=True), resumed) as log:
        for step in steps:
            log.write(LINE | {"step": step})


def test_lines_after_the_checkpoint_are_written_again(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    write(tmp_path, [3, 4, 5], resumed=2)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path):
    write(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-9])
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]
    write(tmp_path, [2], resumed=1)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]


def test_lines_are_on_disk_while_the_run_goes_on(tmp_path):
    with MetricsLog(tmp_path, Settings(), Accelerator(cpu=True), 0) as log:
        log.write(LINE)
        assert read_metrics(tmp_path) == [LINE]


def test_tensorboard_gets_the_figures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, [1, 2], settings=Settings(tensorboard=True))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/raw/media_source")] == [1, 2]


def test_a_tracker_that_is_not_installed_is_a_usage_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match="pip install tensorboard wandb"):
        MetricsLog(tmp_path, Settings(wandb="search"), Accelerator(cpu=True), 0)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_wandb_gets_the_figures(tmp_path, monkeypatch):
    logged = []

    def init(**named):
        assert named["project"] == "search" and named["config"]["wandb"] == "search"
        return SimpleNamespace(
            log=lambda figures, step: logged.append((step, figures)), finish=lambda: logged.append("finished")
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    write(tmp_path, [7], settings=Settings(wandb="search"))
    assert logged == [(7, dict(flatten(LINE))), "finished"]
