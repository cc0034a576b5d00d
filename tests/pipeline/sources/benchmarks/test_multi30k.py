"""Multi30K: what the layout of its repository leaves open, and the real text."""

import functools
import gzip
import shutil

import pytest

from pipeline.corpus.table import Table
from pipeline.sources.benchmarks import multi30k
from tests.conftest import run_stage
from tests.pipeline.sources.benchmarks import layouts
from tests.pipeline.sources.helpers import items_and_summary, numbered, refusal, write
from tests.worked_examples import each_example

opened = functools.partial(items_and_summary, "multi30k", subset=True)
wrong = functools.partial(refusal, "multi30k")
TASK1 = "dataset/data/task1"


@pytest.fixture
def folder(tmp_path):
    return layouts.multi30k(tmp_path / "set").folder


def test_any_of_its_folders_may_be_given(folder):
    items, _ = opened(folder)
    shutil.move(folder / "flickr30k-images", folder / "dataset" / "data" / "images")
    (folder / TASK1 / "raw" / "val.en").write_bytes(
        gzip.decompress((folder / TASK1 / "raw" / "val.en.gz").read_bytes())
    )
    for part in ("dataset", "dataset/data"):
        again, _ = opened(folder / part)
        assert [item.captions for item in again.values()] == [item.captions for item in items.values()]
    assert "has no task1/raw" in wrong(folder / "dataset" / "data" / "images")


def test_later_test_sets_need_pictures_or_the_users_leave(folder):
    texts = {f"{TASK1}/raw/test_2018_flickr.{language}": f"{language} of it\n" for language in multi30k.LANGUAGES}
    write(folder, {f"{TASK1}/image_splits/test_2018_flickr.txt": "later.jpg#7\n", **texts})
    items, summary = opened(folder)
    assert "later.jpg" not in items and "1 pictures of test_2018_flickr are not here" in summary
    items, _ = opened(folder, allow_missing_media=True)
    assert (items["later.jpg"].split, numbered(items["later.jpg"], "cs")) == ("test_2018_flickr", {0: "cs of it"})


def test_all_that_is_wrong_is_reported_at_once(folder):
    (folder / "flickr30k-images" / "1010.jpg").unlink()
    (folder / TASK1 / "raw" / "train.fr.gz").unlink()
    (folder / TASK1 / "raw" / "val.de.gz").write_bytes(gzip.compress(b"Ein Hund.\n"))
    message = wrong(folder)
    assert "captions in task1/raw/train.fr: found 0, expected 29,000" in message
    assert "val.de has 1 lines, but the list of its pictures has 3" in message
    assert "media: 1 of 17 items have none under" in message
    assert "val.de has 1 lines" in wrong(folder, subset=True, allow_missing_media=True)  # which picture is it of?


@each_example("a_picture_in_two_splits_or_places_is_refused", "files, message")
def test_a_picture_in_two_splits_or_places_is_refused(folder, files, message):
    assert message in wrong(write(folder, files), subset=True)


def test_a_blank_line_shifts_nothing(folder):
    write(folder, {f"{TASK1}/raw/val.fr": "\nUn chien.\nUn chat.\n"})
    items, summary = opened(folder)
    assert [numbered(items[f"101{at}.jpg"], "fr") for at in (0, 1)] == [{}, {0: "Un chien."}]
    assert "1 captions are blank" in summary


@pytest.mark.torture
def test_the_real_text(data, tmp_path):
    """Its own counts, no picture, as a user would take it for its texts."""
    given = ("--stage", "ingest", "--source", "multi30k", "--input", data / "multi30k", "--output", tmp_path / "corpus")
    refused = run_stage(*given)
    assert refused.returncode == 2 and "31,014 of 31,014 items have none" in refused.stderr
    assert not (tmp_path / "corpus" / "items").exists()
    ingested = run_stage(*given, "--allow-missing-media")
    assert ingested.returncode == 0, ingested.stderr
    assert "32,085 items (train 29,000, val 1,014, test 1,000, test_2018_flickr 1,071)" in ingested.stdout
    first = next(iter(Table(tmp_path / "corpus", "items").rows()))
    assert (first["item_id"], first["uri"], first["sha256"], first["width"]) == ("1000092795.jpg", "", "", 0)
    rows = [row for row in Table(tmp_path / "corpus", "captions").rows() if row["item_id"] == "1018148011.jpg"]
    texts = {row["caption_id"]: row["text"] for row in rows}
    assert texts["1018148011.jpg#en#0"] == "A group of men are loading cotton onto a truck"
    assert texts["1018148011.jpg#de#1"] == "Baumwolllager mit LKW"
    assert sorted(texts) == [
        f"1018148011.jpg#{language}#{number}"
        for language, numbers in {"cs": [0], "de": range(6), "en": [0, 1, 2, 3, 5], "fr": [0]}.items()
        for number in numbers
    ]
