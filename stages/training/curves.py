"""RUN/curves.png: losses, validation scores, learning rate and gradient norm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # works without a display
from matplotlib import pyplot
from matplotlib.axes import Axes

from stages.training.metrics_log import read_metrics

FILE = "curves.png"
TEXT_TO_MEDIA = "text_to_media"


def draw(run: Path, title: str) -> Path | None:
    """Draw the curves from RUN/metrics.jsonl; returns None if there is nothing to draw yet."""
    lines = read_metrics(run)
    train = [line for line in lines if line["kind"] == "train"]
    validation = [line for line in lines if line["kind"] == "validation"]
    if not train:
        return None
    figure, axes = pyplot.subplots(2, 2, figsize=(14, 9), layout="constrained")
    figure.suptitle(title)
    _losses(axes[0, 0], train)
    _sums(axes[0, 1], validation)
    _recalls(axes[1, 1], validation)
    _speed(axes[1, 0], train)
    for axis in axes.flat:
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    path = run / FILE
    temporary = path.with_name(f".{FILE}.tmp")
    figure.savefig(temporary, format="png", dpi=100)
    pyplot.close(figure)
    temporary.replace(path)
    return path


def _losses(axis: Axes, train: Sequence[dict[str, Any]]) -> None:
    steps = [line["step"] for line in train]
    axis.set_title("loss and its weighted terms, mean over ranks")
    axis.plot(steps, [line["loss"] for line in train], color="black", linewidth=2, label="total")
    for number, name in enumerate(sorted(train[-1]["weighted"])):
        values = [line["weighted"].get(name) for line in train]
        axis.plot(steps, values, label=name.replace("_", " "), color=f"C{number}", linewidth=1)
    smallest = min(value for line in train for value in line["weighted"].values())
    if smallest >= 0:
        axis.set_yscale("symlog", linthresh=0.01)  # terms of weight 0.01 stay readable next to those of weight 1
        axis.set_ylim(bottom=0)
    axis.set_ylabel("nats (linear below .01)")
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _sums(axis: Axes, validation: Sequence[dict[str, Any]]) -> None:
    axis.set_title("SumR on validation: R@1 + R@5 + R@10, both directions")
    axis.set_ylabel("percent, of 600")
    _by_language(axis, validation, lambda recalls: recalls["sum_r"])
    if validation:
        steps = [line["step"] for line in validation]
        sums = [line["sum_r"] for line in validation]
        axis.plot(steps, sums, color="black", linewidth=2, marker="o", label=f"mean, best {max(sums):.1f}")
        axis.axhline(validation[-1]["chance"], color="gray", linestyle="--", label="chance")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8, ncols=2)


def _recalls(axis: Axes, validation: Sequence[dict[str, Any]]) -> None:
    axis.set_title("R@1 on validation, text to media")
    axis.set_ylabel("percent")
    _by_language(axis, validation, lambda recalls: recalls[TEXT_TO_MEDIA]["r1"])
    if validation:
        axis.axhline(100 / validation[-1]["items"], color="gray", linestyle="--", label="chance")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8, ncols=2)


def _by_language(axis: Axes, validation: Sequence[dict[str, Any]], value: Any) -> None:
    for number, language in enumerate(sorted(validation[-1]["recalls"]) if validation else ()):
        points = [(line["step"], value(line["recalls"][language])) for line in validation]
        axis.plot(*zip(*points, strict=True), color=f"C{number}", linewidth=1, marker=".", label=language)


def _speed(axis: Axes, train: Sequence[dict[str, Any]]) -> None:
    axis.set_title("learning rate, and gradient norm before clipping")
    steps = [line["step"] for line in train]
    left = axis.plot(steps, [line["lr"] for line in train], color="C0", linewidth=2, label="learning rate")
    axis.set_ylabel("learning rate")
    axis.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    other = axis.twinx()
    norms = [line["grad_norm"] for line in train]
    right = other.plot(steps, norms, color="C1", linewidth=0.8, alpha=0.6, label="gradient norm")
    other.set_ylabel("gradient norm")
    other.set_yscale("log")
    axis.legend(handles=[*left, *right], fontsize=8)
