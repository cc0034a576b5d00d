"""The page of curves: there whenever something was trained, with what was measured on it."""

import json

from matplotlib import pyplot
from PIL import Image

from stages.training import curves


def lines(steps, terms=("media_source", "diversity"), sign=1):
    for step in range(1, steps + 1):
        weighted = {name: sign / (step + number) for number, name in enumerate(terms)}
        train = {"kind": "train", "step": step, "epoch": 1, "loss": 3 / step, "raw": weighted, "weighted": weighted}
        yield train | {"lr": 1e-3 / step, "grad_norm": 1.0 * step, "samples_per_s": 9.0, "data_wait": 0.1}
        if step % 5 == 0:
            recalls = {"r1": step, "r5": step, "r10": step}
            both = {"text_to_media": recalls, "media_to_text": recalls, "sum_r": 6.0 * step}
            recalls = {"de": both, "ja": both}
            yield {
                "kind": "validation", "step": step, "sum_r": 6.0 * step, "chance": 12.0, "recalls": recalls,
                "items": 25, "global_weight": 0.8, "split": "val",
            }  # fmt: skip


def write(run, values):
    (run / "metrics.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))


def test_the_page_shows_every_term_and_language(tmp_path, monkeypatch):
    write(tmp_path, lines(20, sign=-1))
    kept = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    path = curves.draw(tmp_path, "a run")
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width >= 1000
    legends = [axis.get_legend() for axis in kept[0].axes]
    labels = [text.get_text() for legend in legends if legend for text in legend.get_texts()]
    assert labels.count("chance") == labels.count("de") == 2
    assert set(labels) >= {
        "total",
        "media source",
        "diversity",
        "de",
        "ja",
        "mean, best 120.0",
        "chance",
        "learning rate",
    }
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_a_run_without_validation_is_drawn_and_one_without_steps_is_not(tmp_path):
    write(tmp_path, [])
    assert curves.draw(tmp_path, "nothing") is None
    write(tmp_path, [line for line in lines(3) if line["kind"] == "train"])
    assert curves.draw(tmp_path, "short").exists()
