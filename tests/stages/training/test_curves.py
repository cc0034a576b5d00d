"""The page of curves: drawn whenever something was trained, with what was measured."""

import json

from matplotlib import pyplot
from PIL import Image

from stages.training import curves


def write_metrics(run, steps, validated=True):
    """Lines of a run whose terms are negative, as diversity may be."""
    lines = []
    for step in range(1, steps + 1):
        terms = {"media_source": -1 / step, "diversity": -2 / step}
        line = {"kind": "train", "step": step, "loss": 3 / step, "weighted": terms, "lr": 1e-3, "grad_norm": 1.0 * step}
        lines.append(line)
        if validated and step % 5 == 0:
            both = {"text_to_media": {"r1": step}, "sum_r": 6.0 * step}
            sums = {"sum_r": 6.0 * step, "chance": 12.0, "items": 25}
            lines.append({"kind": "validation", "step": step, **sums, "recalls": {"de": both, "ja": both}})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_page_shows_every_term_and_language(tmp_path, monkeypatch):
    write_metrics(tmp_path, 20)
    figures = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    path = curves.draw(tmp_path, "a run")
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width >= 1000
    legends = [legend for axis in figures[0].axes if (legend := axis.get_legend())]
    labels = [text.get_text() for legend in legends for text in legend.get_texts()]
    assert labels.count("chance") == labels.count("de") == 2
    assert {"total", "media source", "diversity", "ja", "mean, best 120.0", "learning rate"} <= set(labels)


def test_run_without_validation_is_drawn_and_one_without_steps_is_not(tmp_path):
    write_metrics(tmp_path, 0)
    assert curves.draw(tmp_path, "nothing") is None
    write_metrics(tmp_path, 3, validated=False)
    assert curves.draw(tmp_path, "short").exists()
