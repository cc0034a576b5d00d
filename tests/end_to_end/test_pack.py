"""`--stage pack` as a user runs it: after the stages before it, killed, filtered, from several corpora, with a leak."""

import json
import shutil
import signal
import subprocess
import time

import datasets
import pytest

from pipeline.corpus.table import Table
from tests.conftest import clean_environment, command, make_photos, run_stage
from tests.end_to_end.test_resume import table_bytes
from tests.loopback import Loopback
from tests.test_beam_runner import ended

ITEMS = 40


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Photos in folders of two splits, captioned, described and translated."""
    folder = tmp_path_factory.mktemp("pack")
    photos = make_photos(folder / "photos" / "train", ITEMS, size=(480, 400))
    (folder / "photos" / "test").mkdir()
    for path in photos[30:]:
        path.rename(folder / "photos" / "test" / path.name)
    texts = ({"file": path.name, "captions": [f"Man number {n} rides a horse."]} for n, path in enumerate(photos[:30]))
    (folder / "photos" / "train" / "captions.jsonl").write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    with Loopback() as server:
        given = ("--input", folder / "photos", "--output", folder / "corpus", "--shard-size", 8)
        for stage in (
            ("--stage", "captions", *given, "--mllm-url", server.url, "--views", "short"),
            ("--stage", "translate", "--output", folder / "corpus", "--languages", "pt"),
        ):
            done = run_stage(*stage)
            assert done.returncode == 0, done.stderr
    return folder / "corpus"


@pytest.fixture
def copy(corpus, tmp_path):
    return shutil.copytree(corpus, tmp_path / "corpus")


def packed(corpus):
    return {row["item_id"]: row for row in Table(corpus, "training").rows()}


def test_shards_to_train_on(copy, capfd):
    (copy / "training").mkdir()
    (copy / "training" / "part-00000-of-00099.arrow").write_bytes(b"of another plan")
    result = ended(capfd, "--stage", "pack", "--output", copy)
    result.done()
    assert not (copy / "training" / "part-00000-of-00099.arrow").exists()
    assert "pt: 30 of 30 pairs kept" in result.out
    rows = datasets.load_dataset("arrow", data_files=f"{copy}/training/*.arrow", split="train")
    assert len(rows) == ITEMS
    assert {row["split"] for row in rows} == {"train", "test"}
    for row in rows:
        assert row["media"].startswith(b"\xff\xd8") and row["num_frames"] == 1
        languages = [caption["language"] for caption in row["captions"]]
        assert languages == (["en", "pt"] if row["split"] == "train" else [])
        assert [description["view"] for description in row["descriptions"]] == ["short"]
    assert "nothing to do" in ended(capfd, "--stage", "pack", "--output", copy).out
    assert ended(capfd, "--stage", "verify", "--output", copy).status == 0
    assert "## Training" in (copy / "README.md").read_text("utf-8")


def test_filters_of_a_file_and_their_mistakes(corpus, copy, capfd, tmp_path):
    filters = tmp_path / "filters.yaml"
    filters.write_text("default: {low_quality: 1.0}\npt: {low_quality: 0.0}\n")
    ended(capfd, "--stage", "pack", "--output", copy, "--filters", filters).done()
    assert sum(len(row["captions"]) for row in packed(copy).values()) == 60
    filters.write_text("default: {too_long: 0.01}\n")
    changed = ended(capfd, "--stage", "pack", "--output", copy, "--filters", filters)
    assert changed.status == 2 and "filters" in changed.error()
    photos = corpus.parent / "photos"
    photos.rename(tmp_path / "away")  # pixels are taken over: the originals are not needed again
    try:
        result = ended(capfd, "--stage", "pack", "--output", copy, "--filters", filters, "--overwrite")
    finally:
        (tmp_path / "away").rename(photos)
    assert "pt: 0 of 30 pairs" in result.out
    assert Table(copy, "training").manifest["dropped"] == {"pt": {"pairs": 30, "kept": 0, "too_long": 30}}
    assert sum(len(row["captions"]) for row in packed(copy).values()) == 30
    assert all(row["media"] for row in packed(copy).values())
    assert ended(capfd, "--stage", "verify", "--output", copy).status == 0


def test_a_photo_of_the_test_split_in_training_under_another_name_is_refused_with_both_paths(tmp_path, capfd):
    photos = make_photos(tmp_path / "photos" / "train", 6)
    (tmp_path / "photos" / "test").mkdir()
    shutil.copy(photos[3], tmp_path / "photos" / "test" / "unlike.jpg")
    lines = [json.dumps({"file": path.name, "captions": ["A thing."]}) for path in photos]
    (tmp_path / "photos" / "train" / "captions.jsonl").write_text("\n".join(lines))
    corpus = tmp_path / "corpus"
    ended(capfd, "--stage", "ingest", "--input", tmp_path / "photos", "--output", corpus).done()
    result = ended(capfd, "--stage", "pack", "--output", corpus)
    assert result.status == 2
    assert str(photos[3]) in result.error() and "test/unlike.jpg" in result.error()
    assert not (corpus / "training").exists()


@pytest.mark.parametrize("kills", [2, pytest.param(6, marks=pytest.mark.torture)])
def test_several_corpora_killed_at_any_moment(corpus, copy, tmp_path, kills):
    """The copy has the same pictures: it adds nothing but its name, and no item twice."""
    renamed = copy.rename(tmp_path / "second")
    given = ("--stage", "pack", "--corpus", corpus, "--corpus", renamed, "--image-size", 64)
    assert run_stage(*given, "--output", tmp_path / "whole").returncode == 0
    for number in range(kills):
        process = subprocess.Popen(command(*given, "--output", tmp_path / "killed"), env=clean_environment())
        time.sleep(1.2 + 0.15 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run_stage(*given, "--output", tmp_path / "killed").returncode == 0
    assert table_bytes(tmp_path / "killed") == table_bytes(tmp_path / "whole")
    sources = Table(tmp_path / "whole", "training").manifest["sources"]
    assert [source["name"] for source in sources] == ["corpus", "second"]
    assert sources[0]["translators"]["pt"]["license"] == "mit" and sources[0]["captioner"] == "loopback"
    rows = packed(tmp_path / "whole")
    assert len(rows) == ITEMS and all(item_id.startswith("corpus/") for item_id in rows)
    assert run_stage("--stage", "verify", "--output", tmp_path / "killed").returncode == 0


@pytest.mark.parametrize("option", ["--corpus", "--filters"])
def test_mistakes_have_one_clear_line(tmp_path, capfd, option):
    result = ended(capfd, "--stage", "pack", "--output", tmp_path / "corpus", option, "no/such/place")
    assert result.status == 2 and "no/such/place" in result.error(), result.error()
