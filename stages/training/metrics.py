"""What a run reports: metrics.jsonl and its curves always, and to trackers through Accelerate on request.

A line of metrics.jsonl is JSON with `kind`:
    train       step, epoch, loss, raw and weighted by term, gradient_share by term, slot_cosine, lr, grad_norm,
                samples_per_s, data_wait (share of the time)
    validation  step, epoch, split, sum_r, chance, global_weight, recalls by language
Losses are means over ranks. The gradient share of a term is the norm of its weighted gradient with respect to what the
encoders return, over the sum of these norms. The cosine is the mean between different slots of an item.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, TrackioTracker, WandBTracker

from pipeline.corpus.table import read_json
from pipeline.errors import UsageError
from pipeline.storage.files import write_file
from stages.training.settings import Settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS, CURVES, RECORD = "metrics.jsonl", "curves.png", "record.json"


@contextlib.contextmanager
def metrics_log(
    run: Path, settings: Settings, accelerator: Accelerator, resumed: int
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that writes a line to disk and to the trackers; only the main process writes.

    Lines after step `resumed` are removed from an earlier metrics.jsonl, because they will be written again.

    Args:
        run: Run folder.
        settings: Settings of the run.
        accelerator: Holds the trackers.
        resumed: Steps done before.

    Raises:
        UsageError: A tracker's package is not installed.
    """
    if not accelerator.is_main_process:
        yield lambda line: None
        return
    _start_trackers(run, settings, accelerator, resumed)
    lines = [line for line in read_metrics(run) if line["step"] <= resumed]
    with write_file(run / METRICS) as file:
        file.write("".join(map(_to_json, lines)).encode())
    with (run / METRICS).open("a", encoding="utf-8") as stream:

        def write(line: dict[str, Any]) -> None:
            stream.write(_to_json(line))
            stream.flush()
            os.fsync(stream.fileno())
            accelerator.log(dict(flatten(line)), step=line["step"])

        try:
            yield write
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()
            accelerator.trackers = []


def _start_trackers(run: Path, settings: Settings, accelerator: Accelerator, resumed: int) -> None:
    project, name = settings.log_project, run.name
    trackers: dict[str, Callable[[], GeneralTracker]] = {
        "tensorboard": lambda: TensorBoardTracker("tensorboard", run, purge_step=resumed + 1),
        "wandb": lambda: WandBTracker(project, name=name, dir=str(run)),
        "mlflow": lambda: MLflowTracker(project, run_name=name),
        "trackio": lambda: TrackioTracker(project, name=name),
    }
    accelerator.log_with = [trackers[tracker]() for tracker in settings.log_with]
    try:
        accelerator.init_trackers(project)
    except ImportError as error:
        raise UsageError(f"a tracker is not installed ({error}). Install it: pip install {error.name}") from error
    for tracker in accelerator.trackers:
        if not isinstance(tracker, TensorBoardTracker):
            tracker.store_init_configuration(settings.to_json())


def _to_json(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of RUN/metrics.jsonl, up to one that a kill cut off."""
    path = run / METRICS
    lines: list[dict[str, Any]] = []
    with contextlib.suppress(ValueError):
        for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            lines.append(json.loads(text))
    return lines


def flatten(line: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a line with their names, such as `train/raw/media_source`."""
    prefix = prefix or line["kind"]
    for name, value in line.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}/{name}")
        elif isinstance(value, int | float) and name not in ("step", "epoch"):
            yield f"{prefix}/{name}", value


def draw_curves(run: Path, title: str) -> Path | None:
    """Draw RUN/curves.png from RUN/metrics.jsonl; returns None if there is nothing to draw yet."""
    import matplotlib  # imported here because it is slow, and only the main process draws

    matplotlib.use("Agg")  # works without a display
    from matplotlib import pyplot

    lines = read_metrics(run)
    train = [line for line in lines if line["kind"] == "train"]
    start = (read_json(run / RECORD) or {}).get("start")
    validations = [*([start] if start else []), *(line for line in lines if line["kind"] == "validation")]
    if not train:
        return None
    figure, axes = pyplot.subplots(2, 2, figsize=(14, 9), layout="constrained")
    figure.suptitle(title)
    losses = {"total": [line["loss"] for line in train]}
    for name in sorted(train[-1]["weighted"]):
        losses[name.replace("_", " ")] = [line["weighted"][name] for line in train]
    _draw(axes[0, 0], "loss and its weighted terms, mean over ranks, nats", train, losses)
    axes[0, 0].set_yscale("symlog", linthresh=0.01)  # terms of weight 0.01 stay readable next to those of weight 1
    axes[0, 0].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    rates = {"learning rate": [line["lr"] for line in train]}
    _draw(axes[1, 0], "learning rate (left), gradient norm before clipping (right)", train, rates)
    norms = axes[1, 0].twinx()
    norms.plot([line["step"] for line in train], [line["grad_norm"] for line in train], color="C1", alpha=0.6)
    norms.set_yscale("log")
    if validations:
        last = validations[-1]
        sums, recalls = dict[str, list[float]](), dict[str, list[float]]()
        for language in sorted(last["recalls"]):
            own = [line["recalls"][language] for line in validations]
            sums[language] = [both["sum_r"] for both in own]
            recalls[language] = [both["text_to_media"]["r1"] for both in own]
        sums["mean"] = [line["sum_r"] for line in validations]
        title = f"SumR on validation, percent of 600; best mean {max(sums['mean']):.1f}"
        _draw(axes[0, 1], title, validations, sums, last["chance"])
        _draw(axes[1, 1], "R@1 on validation, text to media, percent", validations, recalls, 100 / last["items"])
    for axis in axes.flat:
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    with write_file(run / CURVES) as stream:
        figure.savefig(stream, format="png", dpi=100)
    pyplot.close(figure)
    return run / CURVES


def _draw(
    axis: "Axes", title: str, lines: Sequence[dict[str, Any]], curves: dict[str, list[float]], chance: float = 0
) -> None:
    """Draw curves over the steps of lines, and the score of chance where there is one."""
    axis.set_title(title)
    for name, values in curves.items():
        colour = "black" if name in ("mean", "total") else None
        axis.plot([line["step"] for line in lines], values, marker="." if chance else "", label=name, color=colour)
    if chance:
        axis.axhline(chance, color="gray", linestyle="--", label="chance")
        axis.set_ylim(bottom=0)
    axis.legend(fontsize=8, ncols=2)
