import json

import pytest

from pipeline.errors import UsageError
from stages import index, score
from stages.data.batches import EvaluationData
from stages.retrieval.engine import Index
from stages.retrieval.index_reader import Generation
from tests.stages.corpora import row, write_rows, write_training_corpus
from tests.stages.duals import write_dual
from tests.stages.indexed import item_rows, write_indexed, write_model


def records(made):
    """By (corpus, item id)."""
    opened = Generation.open(made)
    return {(record["corpus"], record["item_id"]): record for record in opened.records(range(len(opened)))}


def items(*numbers, corpus="photos"):
    return {(corpus, f"item-{number:05d}.jpg") for number in numbers}


def command(model, made, *corpora):
    data = (part for path in corpora for part in ("--data", str(path)))
    return ["--checkpoint", str(model), "--output", str(made), *data]


def test_run_again_it_holds_what_the_corpus_holds(tmp_path, monkeypatch):
    model, photos, made = write_indexed(tmp_path, 6)
    rows = [row(number, "val" if number == 5 else "train") for number in (0, 1, 2, 3, 8)]
    rows[1]["descriptions"][0]["text"] = "something else"
    rows[2] = {**rows[2], "uri": "/elsewhere/2.jpg"}
    rows[3] = {**rows[3], "split": "test"}
    rows[4]["media"] = b"broken"
    write_rows(photos, rows)
    assert index.main(command(model, made, photos)) == 0
    after = records(made)
    assert after.keys() == items(0, 1, 2, 3)
    by_number = {int(item_id[5:10]): record for (_, item_id), record in after.items()}
    assert by_number[1]["texts"][0]["text"] == "something else"
    assert by_number[2]["uri"] == "/elsewhere/2.jpg" and by_number[3]["split"] == "test"
    write_rows(photos, rows[:4])
    assert index.main(command(model, made, photos)) == 0
    monkeypatch.setattr(index, "run_stages", None)  # vectors that are up to date are only read
    assert index.main(["--output", str(made), "--data", str(photos)]) == 0 and records(made) == after


def test_mistakes(tmp_path):
    model, photos, made = write_indexed(tmp_path, 4)
    other = write_model(tmp_path / "other", seed=1)
    base = command(model, made, photos)
    twin = write_training_corpus(tmp_path / "deeper" / "photos", 3)
    for arguments, message in (
        (["--data", str(twin), "--output", str(made)], "--checkpoint"),
        (command(other, made, photos), "--checkpoint .* --overwrite"),
        ([*base, "--views", "short"], "was made with --views"),
        ([*base, "--split", "train"], "was made with --split"),
        ([*base, "--dtype", "float32"], "was made with --dtype"),
        ([*command(model, tmp_path / "new", photos), "--split", "test"], "no item in split 'test'"),
        (command(model, made, photos, twin), "two corpora are named photos"),
        (command(model, made, tmp_path / "none"), "none"),
        (command(model, made, model / "config.json"), "config.json/training does not exist"),
        (command(model, model / "config.json" / "x", photos), "config.json is a file"),
        ([*base, "--dtype", "int8"], "float32 or float16"),
    ):
        with pytest.raises(UsageError, match=message):
            index.main(arguments)
    assert records(made).keys() == items(*range(4))
    assert index.main([*command(other, made, photos), "--overwrite"]) == 0
    assert "other" in Generation.open(made).origin["space"]["name"]


def test_two_corpora_a_split_and_views(tmp_path):
    model, photos, made = write_indexed(tmp_path, 6, "--split", "val", "--views", "short")
    assert records(made).keys() == items(5)
    assert {text["view"] for record in records(made).values() for text in record["texts"]} == {"short", "caption"}
    bare = write_training_corpus(tmp_path / "bare", 5, seed=1)
    write_rows(bare, [{**row(number, "train"), "descriptions": []} for number in range(2)])
    both = command(model, tmp_path / "both", photos, bare)
    assert index.main([*both, "--views", "short"]) == 0  # which one of the two corpora has
    assert records(tmp_path / "both").keys() == items(*range(6)) | items(*range(2), corpus="bare")
    with pytest.raises(UsageError, match="moon"):
        index.main([*both, "--views", "moon", "--overwrite"])


def test_a_dual_encoder_is_indexed_with_the_late_fusion_that_was_scored(tmp_path):
    """Views are found by their name also where an item lacks the first one."""
    model, made = write_dual(tmp_path / "dual", "clip"), tmp_path / "index"
    rows = [row(number, "val") for number in range(4)]
    rows[2]["descriptions"] = rows[2]["descriptions"][:1]  # without detail, the first in alphabetical order
    photos = write_rows(tmp_path / "photos", rows)
    report = tmp_path / "scores.json"
    given = ["--checkpoint", str(model), "--data", str(photos), "--global-weight", "0.25", "--pooling", "max"]
    assert score.main([*given, "--output", str(report)]) == 0
    scores = json.loads(report.read_text())
    scores["settings"]["view_weights"] = {"detail": 0.25}
    report.write_text(json.dumps(scores))
    assert index.main([*command(model, made, photos), "--late-fusion", str(report), "--dtype", "float32"]) == 0
    finder = Index.open(made)
    data = EvaluationData([photos], "val")
    frames, views = data.items(range(4))
    assert ["", "short: blue red red green"] in views
    scores_N = [(rows_RE @ finder.space.texts(["red"])[0]).max() for rows_RE in item_rows(finder.space, frames, views)]
    hits = finder.find(["red"], 4)[0]
    assert {hit.item_id: hit.score for hit in hits} == pytest.approx(dict(zip(data.item_names, scores_N, strict=True)))
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(UsageError, match="no late fusion"):
        index.main([*command(model, made, photos), "--late-fusion", str(tmp_path / "empty.json")])
