"""score.py and its report: figures against loops, the table, the files, and what it refuses."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.corpus.table import manifest_hash
from pipeline.errors import UsageError
from stages import score
from stages.scoring.checkpoint import find_checkpoint
from stages.scoring.report import format_table
from stages.training.validation import selection_label
from tests.model.towers import processor, tiny_model
from tests.stages.corpora import row, write_rows, write_training_corpus
from tests.stages.duals import write_dual
from tests.stages.indexed import write_model


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), global_weight=0.3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_training_corpus(tmp_path_factory.mktemp("corpus"), 30, videos=2)


@pytest.fixture
def scored(tmp_path, corpus):
    """scored(checkpoint, *options) returns the JSON report."""

    def run(checkpoint, *more, data=corpus):
        given = ["--checkpoint", str(checkpoint), "--data", str(data), "--output", str(tmp_path / "scores.json")]
        assert score.main([*given, *map(str, more)]) == 0
        return json.loads((tmp_path / "scores.json").read_text())

    return run


def run_of(folder, model_folder, split="val"):
    """A run as training leaves it."""
    (folder / "checkpoints").mkdir()
    (folder / "best").symlink_to(model_folder)
    best = {"split": split, "step": 40, "sum_r": 123.4, "global_weight": 0.3, "chance": 50.0, "recalls": {}}
    record = {"settings": {"slot_views": ["short"]}, "best": best, "label": selection_label(split)}
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_a_run_is_scored_from_its_best_weights(tmp_path, model_folder, corpus, scored, capsys):
    run = run_of(tmp_path, model_folder)
    report = scored(run, "--per-query", tmp_path / "q.parquet", "--batch-size", 5)
    screen = capsys.readouterr().out
    assert report["checkpoint"] == {
        "name": str(run),
        "source": str(run / "best"),
        "model_type": "leccr",
        "selection": {"split": "val", "step": 40, "sum_r": 123.4, "global_weight": 0.3},
        "recipe": "",
        "method": "",
    }
    assert report["corpora"] == [{"name": corpus.name, "training": manifest_hash(corpus, "training")}]
    assert report["split"] == "val" and report["items"] == 9
    assert report["settings"] == {"global_weight": 0.3, "slot_views": ["short"], "batch_size": 5}
    assert list(report["languages"]) == ["de", "en", "fr"] and report["notes"] == []
    assert format_table(report) in screen and "9 items, global weight 0.3\n" in screen
    rows = pq.read_table(tmp_path / "q.parquet").to_pylist()
    ranks = [row["rank"] for row in rows if (row["language"], row["direction"]) == ("fr", "text_to_media")]
    assert report["languages"]["fr"]["median_rank"]["text_to_media"] == np.median(ranks)


def test_options_override_the_model(model_folder, scored):
    default = scored(model_folder)
    assert default["settings"] == {"global_weight": 0.3, "slot_views": [], "batch_size": 64}
    assert default["checkpoint"]["selection"] is None
    other = scored(model_folder, "--languages", "fr", "--split", "train")
    assert list(other["languages"]) == ["fr"] and other["split"] == "train" and other["items"] == 21
    assert other["notes"] == ["fr: no human text in split train: scored on machine-made texts"]
    by_slots = scored(model_folder, "--global-weight", 0)
    assert by_slots["mean"] != default["mean"]
    assert by_slots["languages"] != scored(model_folder, "--global-weight", 0, "--slot-views", "detail")["languages"]
    other_seed = scored(model_folder, "--global-weight", 0, "--seed", 1)["mean"]
    assert other_seed["sum_r"] == by_slots["mean"]["sum_r"] and other_seed["intervals"] != by_slots["mean"]["intervals"]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_baseline_is_scored_on_the_same_split(tmp_path, kind, scored, capsys):
    report = scored(write_dual(tmp_path / "dual", kind))
    assert report["checkpoint"]["model_type"] == kind and report["items"] == 9
    assert "9 items, only global similarity" in capsys.readouterr().out


def test_items_without_a_text_in_a_language_are_left_out_of_its_gallery(tmp_path, model_folder, scored):
    rows = [row(number, "val") for number in range(8)]
    for item in rows[5:]:
        item["captions"] = [caption for caption in item["captions"] if caption["language"] != "fr"]
    report = scored(model_folder, data=write_rows(tmp_path / "corpus", rows))
    assert {name: found["items"] for name, found in report["languages"].items()} == {"de": 8, "en": 8, "fr": 5}
    assert report["mean_rank_variance"]["items"] == 5
    assert len(report["notes"]) == 1 and report["notes"][0].startswith("fr: 5 of 8 items")


def test_what_is_not_a_checkpoint_is_refused(tmp_path, model_folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, message in ((tmp_path / "nothing", "no such folder, and no model"), (tmp_path, "neither best/ nor")):
        with pytest.raises(UsageError, match=message):
            find_checkpoint(str(name))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UsageError, match=r"has no .*best yet"):
        find_checkpoint(str(tmp_path))
    assert find_checkpoint(str(model_folder)).model_type == "leccr"


@pytest.mark.parametrize(
    "given, message",
    [
        ("--split tset", r"tset.*train.*val"),
        ("--languages de,pl", "pl.*split 'val' has texts in de, en, fr"),
        ("--global-weight 1.5", "--global-weight.*1.5"),
        ("--explain 2", "needs --output"),
        ("--output .", "cannot be written"),
        ("--slot-views foo", "foo.*detail, short"),
        ("--per-query no/q.parquet", "--per-query.*cannot be written"),
        ("--languges de", "unrecognized arguments: --languges"),
    ],
)
def test_mistakes_are_refused(given, message, model_folder, corpus):
    with pytest.raises(UsageError, match=message):
        score.main(["--checkpoint", str(model_folder), "--data", str(corpus), *given.split()])


def test_a_model_that_has_diverged_is_refused(tmp_path, corpus):
    of = processor()
    model = tiny_model(of.vocabulary)
    model.media_head.weight.data.fill_(torch.nan)
    for part in (model, of):
        part.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="not finite: the model has diverged"):
        score.main(["--checkpoint", str(tmp_path), "--data", str(corpus)])


def test_weights_chosen_on_the_test_split_say_so(tmp_path, model_folder, scored, capsys):
    report = scored(run_of(tmp_path, model_folder, split="test"))
    assert "selected on test" in capsys.readouterr().out
    assert "selected on test" in report["notes"][0]
