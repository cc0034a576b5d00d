import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pipeline.errors import UsageError
from stages import index
from stages.retrieval.index_reader import VectorIndex
from tests.conftest import ROOT, clean_environment
from tests.stages.corpora import row, write_rows, write_training_corpus
from tests.stages.indexed import write_indexed, write_model


def keys(made):
    there = VectorIndex.open(made)
    columns = (there.column(name).to_pylist() for name in ("corpus", "item_id"))
    return {key for key, present in zip(zip(*columns, strict=True), there.present(), strict=True) if present}


def items(*numbers, corpus="photos"):
    return {(corpus, f"item-{number:05d}.jpg") for number in numbers}


def test_every_item_is_there_once_with_its_descriptions(tmp_path):
    _, _, made = write_indexed(tmp_path, 7)
    there = VectorIndex.open(made)
    assert keys(made) == items(*range(7)) and there.dtype == "float16"
    for record in there.items(range(7)):
        number = int(record["item_id"][5:10])
        wanted = row(number, record["split"])
        assert record["texts"] == wanted["descriptions"] and record["sha256"] == wanted["sha256"]
        assert there.vectors(number).shape == (3, 16) and there.vectors(number, group="text").shape == (2, 16)
    assert there.origin["corpora"][0]["name"] == "photos"


def test_run_again_it_encodes_what_is_new_alone_and_removes_what_is_gone(tmp_path, capsys):
    model, photos, made = write_indexed(tmp_path, 6)
    write_rows(photos, [row(number, "train") for number in (0, 1, 2, 8)])
    again = ["--checkpoint", str(model), "--data", str(photos), "--output", str(made)]
    capsys.readouterr()
    assert index.main(again) == 0
    assert keys(made) == items(0, 1, 2, 8)
    assert "3 items kept, 3 removed or changed" in (told := capsys.readouterr().err) and "1 encoded now" in told
    assert index.main(again) == 0
    assert "4 items kept, 0 removed or changed" in (told := capsys.readouterr().err) and "0 encoded now" in told


def test_an_item_with_other_descriptions_is_encoded_again(tmp_path, capsys):
    model, photos, made = write_indexed(tmp_path, 4)
    rows = [row(number, "val" if number == 3 else "train") for number in range(4)]
    rows[2]["descriptions"][0]["text"] = "something else"
    write_rows(photos, rows)
    index.main(["--checkpoint", str(model), "--data", str(photos), "--output", str(made)])
    assert "3 items kept, 1 removed or changed" in capsys.readouterr().err
    there = VectorIndex.open(made)
    found = {record["item_id"]: record for record in there.items([n for n, x in enumerate(there.present()) if x])}
    assert found["item-00002.jpg"]["texts"][0]["text"] == "something else"


def test_what_is_told_of_an_item_is_what_its_corpus_holds_by_now(tmp_path):
    model, photos, made = write_indexed(tmp_path, 4)
    rows = [{**row(number, "test"), "uri": f"/elsewhere/{number}.jpg"} for number in range(4)]
    write_rows(photos, rows)
    index.main(["--checkpoint", str(model), "--data", str(photos), "--output", str(made)])
    there = VectorIndex.open(made)
    records = there.items(np.flatnonzero(there.present()))
    assert {record["split"] for record in records} == {"test"} and len(records) == 4
    assert all(record["uri"].startswith("/elsewhere/") for record in records)


def test_two_corpora_a_split_and_views(tmp_path):
    model, photos, made = write_indexed(tmp_path, 6, "--split", "val", "--views", "short")
    assert keys(made) == items(5)
    there = VectorIndex.open(made)
    assert {told["view"] for record in there.items([0]) for told in record["texts"]} == {"short"}
    more = write_training_corpus(tmp_path / "more", 5, seed=1)
    both = ["--checkpoint", str(model), "--data", str(photos), "--data", str(more), "--output", str(tmp_path / "both")]
    assert index.main(both) == 0
    assert keys(tmp_path / "both") == items(*range(6)) | items(*range(5), corpus="more")


def test_views_that_one_of_two_corpora_has(tmp_path):
    model, photos, _ = write_indexed(tmp_path, 3)
    bare = write_training_corpus(tmp_path / "bare", 2)
    write_rows(bare, [{**row(number, "train"), "descriptions": []} for number in range(2)])
    both = ["--checkpoint", str(model), "--data", str(photos), "--data", str(bare), "--output", str(tmp_path / "both")]
    assert index.main([*both, "--views", "short"]) == 0
    assert keys(tmp_path / "both") == items(*range(3)) | items(*range(2), corpus="bare")
    with pytest.raises(UsageError, match="--views: got moon"):
        index.main([*both[:-1], str(tmp_path / "none"), "--views", "moon"])


def test_remove_by_id(tmp_path, capsys):
    _, _, made = write_indexed(tmp_path, 5)
    assert index.main(["--output", str(made), "--remove", "photos/item-00001.jpg", "photos/item-00003.jpg"]) == 0
    assert keys(made) == items(0, 2, 4) and "2 removed, 3 left" in capsys.readouterr().err
    again = write_indexed(tmp_path / "small", 3, "--dtype", "int8", "--kind", "ivf")[2]
    assert index.main(["--output", str(again), "--remove", "photos/item-00001.jpg"]) == 0
    assert keys(again) == items(0, 2) and VectorIndex.open(again).dtype == "int8"
    for wrong, told in (("photos/item-00001.jpg", "is not in the index"), ("item", "wanted CORPUS/ITEM")):
        with pytest.raises(UsageError, match=told):
            index.main(["--output", str(made), "--remove", wrong])
    assert keys(made) == items(0, 2, 4)


def test_a_model_that_moved_is_the_same_model(tmp_path):
    model, photos, made = write_indexed(tmp_path, 4)
    moved = model.rename(tmp_path / "moved")
    write_rows(photos, [row(number, "train") for number in range(5)])
    assert index.main(["--checkpoint", str(moved), "--data", str(photos), "--output", str(made)]) == 0
    assert keys(made) == items(*range(5))


def test_an_index_that_is_made_anew_is_published_when_it_is_whole(tmp_path, monkeypatch):
    model, photos, made = write_indexed(tmp_path, 6)
    seen = []
    monkeypatch.setattr(index, "PART", 2)
    encode = index.encode
    monkeypatch.setattr(index, "encode", lambda *given: seen.append(len(keys(made))) or encode(*given))
    again = ["--checkpoint", str(model), "--data", str(photos), "--output", str(made)]
    write_rows(photos, [row(number, "train", seed=1) for number in range(6)])  # other pictures under the same names
    assert index.main([*again, "--overwrite"]) == 0 and seen == [6, 6, 6]
    seen.clear()
    write_rows(photos, [row(number, "train", seed=2) for number in range(6)])
    assert index.main(again) == 0 and seen == [6, 6, 6] and keys(made) == items(*range(6))


def test_an_item_that_is_there_twice_is_told_before_anything_is_encoded(tmp_path, monkeypatch):
    model, photos, made = write_indexed(tmp_path, 6)
    monkeypatch.setattr(index, "encode", None)
    again = ["--checkpoint", str(model), "--data", str(photos), "--output"]
    for numbers in ((0, 1, 2, 1), (0, 7, 8, 7)):  # among those that are kept, and among the new ones
        write_rows(photos, [row(number, "train") for number in numbers])
        with pytest.raises(UsageError, match=f"item-{numbers[-1]:05d}.jpg of photos is there twice"):
            index.main([*again, str(made)])
        with pytest.raises(UsageError, match=f"item-{numbers[-1]:05d}.jpg of photos is there twice"):
            index.main([*again, str(tmp_path / "new")])
    assert keys(made) == items(*range(6))


def test_of_very_many_items_few_states_are_published(tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(index, "PART", 2)
    monkeypatch.setattr(index, "STATES", 3)
    commit = index.IndexWriter.commit
    monkeypatch.setattr(index.IndexWriter, "commit", lambda self: seen.append(self) or commit(self))
    assert keys(write_indexed(tmp_path, 18)[2]) == items(*range(18))
    assert len(seen) == 3 + 1  # and one for what is gone
    assert "16 of 18 items encoded, ETA 0" in (told := capsys.readouterr().err) and "18 of 18" not in told


def test_mistakes(tmp_path):
    model, photos, made = write_indexed(tmp_path, 4)
    other = write_model(tmp_path / "other", seed=1)
    where = ["--data", str(photos), "--output", str(made)]
    base = [*where, "--checkpoint"]
    twin = write_training_corpus(tmp_path / "deeper" / "photos", 3)
    for arguments, told in (
        (where, "wanted --checkpoint"),
        (
            [*base, str(other)],
            r"was made with --checkpoint .*model .*: give the same, another --output, or --overwrite",
        ),
        ([*base, str(model), "--views", "short"], "was made with --views"),
        ([*base, str(model), "--split", "test"], "was made with --split"),
        (
            ["--checkpoint", str(model), "--data", str(photos), "--output", str(tmp_path / "new"), "--split", "test"],
            "no item of split 'test'",
        ),
        ([*base, str(model), "--data", str(twin)], "got a second corpus named photos"),
        (["--checkpoint", str(model), "--data", str(tmp_path / "none"), "--output", str(made)], "none"),
        ([*base, str(model), "--dtype", "float64"], "--dtype"),
        ([*base, str(model), "--batch-size", "0"], "--batch-size: got 0"),
    ):
        with pytest.raises(UsageError, match=told):
            index.main(arguments)
    assert keys(made) == items(*range(4))
    assert index.main([*base, str(other), "--overwrite"]) == 0
    assert "other" in VectorIndex.open(made).origin["space"]["name"]


def test_killed_it_goes_on_and_two_processes_make_what_one_makes(tmp_path):
    """Killed as soon as a first part is published; the next run encodes the rest alone."""
    model = write_model(tmp_path / "model")
    photos = write_training_corpus(tmp_path / "photos", 60)
    code = (
        "import sys; from stages import index; index.PART = 5\n"
        "from stages.processes import run_program; sys.exit(run_program(index.main))"
    )
    arguments = ["--checkpoint", model, "--data", photos, "--batch-size", 2, "--output"]
    environment = clean_environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments), str(killed)],
        stderr=subprocess.PIPE, env=environment, start_new_session=True, cwd=ROOT,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (killed / "manifest.json").exists() and len(VectorIndex.open(killed)) >= 5:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    process.wait()
    process.stderr.close()
    there = len(VectorIndex.open(killed))
    assert 5 <= there < 60
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "stages/index.py"]
    done = subprocess.run(
        [*launch, *map(str, arguments), str(killed)],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{there} items kept" in done.stderr and f"{60 - there} encoded now" in done.stderr
    assert index.main([*map(str, arguments), str(tmp_path / "whole")]) == 0
    vectors = {}
    for made in (killed, tmp_path / "whole"):
        found = VectorIndex.open(made)
        vectors[made] = {
            record["item_id"]: found.vectors(number).tolist() for number, record in enumerate(found.items(range(60)))
        }
    assert vectors[killed].keys() == vectors[tmp_path / "whole"].keys()
    for item, rows in vectors[killed].items():
        assert rows == [pytest.approx(row, abs=2e-3) for row in vectors[tmp_path / "whole"][item]]
    assert json.loads((killed / "manifest.json").read_text())["origin"]["corpora"]
