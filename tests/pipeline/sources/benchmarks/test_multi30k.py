"""Multi30K: small folders laid out as its repository, with traps, and the real text."""

import functools
import gzip
import shutil

import pytest

from pipeline.corpus.table import Table
from pipeline.errors import UsageError
from pipeline.sources.benchmarks import multi30k
from tests.conftest import run_stage
from tests.pipeline.sources.helpers import jpeg, numbered, open_set, write

opened = functools.partial(open_set, "multi30k")

SIZES = {"train": 3, "val": 2, "test_2016_flickr": 2, "test_2017_mscoco": 2, "test_2018_flickr": 1}
LANGUAGES = ("en", "de", "fr", "cs")


def names(split):
    return [f"{split}-{number}.jpg" for number in range(SIZES[split])]


def lines(texts, end="\n"):
    return "".join(text + end for text in texts).encode()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The repository with both tasks, packed and unpacked, and the pictures of all but the split of 2018."""
    monkeypatch.setattr(multi30k, "IMAGES", SIZES)
    files = {}
    for split in SIZES:
        listed = [f"{name}#{7 + n}" if "mscoco" in split else name for n, name in enumerate(names(split))]
        files[f"data/task1/image_splits/{split}.txt"] = lines(listed)
        for language in LANGUAGES if "2017" not in split else LANGUAGES[:3]:
            texts = lines([f"{language} of {name}" for name in names(split)], "\r\n" if language == "de" else "\n")
            packed = split != "val"
            files[f"data/task1/raw/{split}.{language}{'.gz' * packed}"] = gzip.compress(texts) if packed else texts
    for split, name in {"val": "val", "test_2016_flickr": "test_2016"}.items():
        for number in range(1, 6):
            for language in ("en", "de"):
                texts = [f"{language} {number} of {picture}" for picture in names(split)]
                if (split, language, number) == ("val", "en", 2):
                    texts[0] = f"en of {names(split)[0]}"  # task 1's caption is one of these five
                files[f"data/task2/raw/{name}.{number}.{language}"] = lines(texts)
    number = 0
    for split in SIZES:
        for name in names(split) if split != "test_2018_flickr" else ():
            number += 1
            files[f"flickr30k-images/{name}"] = jpeg(number)
    files["flickr30k-images/other.jpg"] = jpeg(99)
    return write(tmp_path / "multi30k", files)


def test_both_tasks_with_their_pictures(folder):
    source = opened(folder, license="research")
    items = {item.item_id: item for item in source.items()}
    assert {item.split for item in items.values()} == {"train", "val", "test", "test_2017_mscoco"}
    assert list(items)[:3] == names("train") and items["train-0.jpg"].uri.endswith("flickr30k-images/train-0.jpg")
    assert numbered(items["train-1.jpg"], "cs") == {0: "cs of train-1.jpg"}
    assert numbered(items["val-1.jpg"], "de") == {
        0: "de of val-1.jpg",
        **{n: f"de {n} of val-1.jpg" for n in range(1, 6)},
    }
    assert list(numbered(items["val-0.jpg"], "en")) == [0, 1, 3, 4, 5]  # the second says what task 1 says
    assert numbered(items["test_2017_mscoco-1.jpg"], "fr") == {0: "fr of test_2017_mscoco-1.jpg"}
    assert {item.license for item in items.values()} == {"research"}
    for note in (
        "test_2018_flickr left out: none of its 1 pictures",
        "task 2 has no train",
        "1 captions left out",
        "1 media files belong to no id and are not used (other.jpg)",
    ):
        assert note in source.summary


def test_any_of_its_folders_may_be_given(folder, tmp_path):
    items = list(opened(folder).items())
    shutil.move(folder / "flickr30k-images", folder / "data" / "images")
    assert [item.captions for item in opened(folder / "data").items()] == [item.captions for item in items]
    shutil.copytree(folder, tmp_path / "parent" / "dataset")
    assert len(list(opened(tmp_path / "parent").items())) == len(items)
    with pytest.raises(UsageError, match="has no task1/raw"):
        opened(folder / "data" / "images")


def test_all_that_is_wrong_is_told_at_once(folder):
    (folder / "flickr30k-images" / "val-0.jpg").unlink()
    raw = folder / "data" / "task1" / "raw"
    (raw / "train.fr.gz").unlink()
    (raw / "val.de").write_bytes(lines(["de of val-0.jpg"]))
    with pytest.raises(UsageError) as caught:
        opened(folder)
    for line in (
        "captions in fr, train: found 0, expected 3",
        "captions in de, val: found 1, expected 2",
        "val.de has 1 lines, but the list of its pictures has 2",
        "media: 1 of 9 items have none under",
    ):
        assert line in str(caught.value)
    with pytest.raises(UsageError, match=r"val.de has 1 lines"):  # which picture a line is of, nobody can allow
        opened(folder, subset=True, allow_missing_media=True)


def test_a_picture_in_two_splits_and_two_of_one_name_are_refused(folder):
    listed = folder / "data" / "task1" / "image_splits"
    (listed / "val.txt").write_bytes(lines(["val-0.jpg", "train-2.jpg"]))
    with pytest.raises(UsageError, match=r"'train-2.jpg' comes twice"):
        opened(folder)
    (listed / "val.txt").write_bytes(lines(["val-0.jpg", "val-0.jpg"]))
    with pytest.raises(UsageError, match=r"val.txt: the id 'val-0.jpg' comes twice, in line 1 and line 2"):
        opened(folder)
    (listed / "val.txt").write_bytes(lines(names("val")))
    write(folder / "small", {"val-0.jpg": jpeg(1)})
    with pytest.raises(UsageError, match=r"has val-0.jpg more than once \(flickr30k-images/val-0.jpg, small/val-0"):
        opened(folder)


def test_a_blank_line_shifts_nothing(folder):
    (folder / "data" / "task1" / "raw" / "val.fr").write_bytes(b"\nfr of val-1.jpg\n")
    source = opened(folder)
    items = {item.item_id: item for item in source.items()}
    assert numbered(items["val-0.jpg"], "fr") == {} and numbered(items["val-1.jpg"], "fr") == {0: "fr of val-1.jpg"}
    assert "1 blank lines" in source.summary


def test_the_real_text(data, tmp_path):
    """Its own counts, no picture, as a user would take it for its texts."""
    given = ("--stage", "ingest", "--source", "multi30k", "--input", data / "multi30k", "--output", tmp_path / "corpus")
    refused = run_stage(*given)
    assert refused.returncode == 2 and "31,014 of 31,014 items have none" in refused.stderr
    assert not (tmp_path / "corpus" / "items").exists()
    made = run_stage(*given, "--allow-missing-media")
    assert made.returncode == 0, made.stderr
    assert "32,085 items (train 29,000, val 1,014, test 1,000, test_2018_flickr 1,071)" in made.stdout
    items, captions = (Table(tmp_path / "corpus", name) for name in ("items", "captions"))
    first = next(iter(items.rows()))
    assert (first["item_id"], first["uri"], first["sha256"], first["width"]) == ("1000092795.jpg", "", "", 0)
    rows = [row for row in captions.rows() if row["item_id"] == "1018148011.jpg"]
    texts = {row["caption_id"]: row["text"] for row in rows}
    assert texts["1018148011.jpg#en#0"] == "A group of men are loading cotton onto a truck"
    assert texts["1018148011.jpg#de#0"] == "Eine Gruppe von Männern lädt Baumwolle auf einen Lastwagen"
    assert texts["1018148011.jpg#de#1"] == "Baumwolllager mit LKW"
    assert sorted(texts) == [
        f"1018148011.jpg#{language}#{number}"
        for language, numbers in {"cs": [0], "de": range(6), "en": [0, 1, 2, 3, 5], "fr": [0]}.items()
        for number in numbers
    ]
