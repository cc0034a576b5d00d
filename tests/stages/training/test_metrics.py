"""metrics.jsonl after kills, its curves, and what trackers receive."""

import json
import sys
from types import SimpleNamespace

import pytest
from accelerate import Accelerator
from matplotlib import pyplot
from PIL import Image

from pipeline.errors import UsageError
from stages.training.metrics import draw_curves, flatten, metrics_log, read_metrics
from stages.training.settings import Settings

LINE = {"kind": "train", "step": 1, "epoch": 1, "loss": 2.5, "raw": {"media_source": 1.0}, "lr": 0.1}


def write(run, steps, resumed=0, **settings):
    run.mkdir(exist_ok=True)
    with metrics_log(run, Settings(**settings), Accelerator(cpu=True), resumed) as write_line:
        for step in steps:
            write_line(LINE | {"step": step})
            assert read_metrics(run)[-1]["step"] == step  # on disk while the run continues


def test_lines_after_the_checkpoint_are_written_again(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-9])  # a kill cut off the last line
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    write(tmp_path, [3, 4, 5], resumed=2)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]


def test_tensorboard_receives_the_figures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, [1, 2], log_with=("tensorboard",))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/raw/media_source")] == [1, 2]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_receives_the_figures_or_is_a_usage_error(tmp_path, monkeypatch, name):
    logged, config = [], {}
    run = SimpleNamespace(
        log=lambda figures, step: logged.append((step, figures)), finish=lambda: logged.append("finished")
    )

    def init(project, name, **_):
        logged.append((project, name))
        return run

    monkeypatch.setitem(sys.modules, name, SimpleNamespace(init=init, config=SimpleNamespace(update=config_of(config))))
    write(tmp_path / "seven", [7], log_with=(name,), log_project="search")
    assert logged == [("search", "seven"), (7, dict(flatten(LINE))), "finished"] and config["log_project"] == "search"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=f"pip install {name}"):
        write(tmp_path / "other", [1], log_with=(name,))


def config_of(values):
    return lambda given, **_: values.update(given)


def write_curves(run, steps, validated=True):
    """Lines of a run whose terms are negative, as diversity may be."""
    lines = []
    for step in range(1, steps + 1):
        terms = {"media_source": -1 / step, "diversity": -2 / step}
        lines.append({"kind": "train", "step": step, "loss": 3 / step, "weighted": terms, "lr": 0.1, "grad_norm": 1.0})
        if validated and step % 5 == 0:
            both = {"text_to_media": {"r1": step}, "sum_r": 6.0 * step}
            sums = {"sum_r": 6.0 * step, "chance": 12.0, "items": 25}
            lines.append({"kind": "validation", "step": step, **sums, "recalls": {"de": both, "ja": both}})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_curves_have_every_term_and_language(tmp_path, monkeypatch):
    write_curves(tmp_path, 0)
    assert draw_curves(tmp_path, "nothing") is None
    write_curves(tmp_path, 3, validated=False)
    assert draw_curves(tmp_path, "short").exists()
    write_curves(tmp_path, 20)
    figures = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    with Image.open(draw_curves(tmp_path, "a run")) as image:
        assert image.format == "PNG" and image.width >= 1000
    legends = [legend for axis in figures[0].axes if (legend := axis.get_legend())]
    labels = [text.get_text() for legend in legends for text in legend.get_texts()]
    assert labels.count("chance") == labels.count("de") == 2
    assert {"total", "media source", "diversity", "ja", "mean", "learning rate"} <= set(labels)
