"""VATEX: what its layout leaves open."""

import functools
import json

import pytest

from tests.pipeline.sources.benchmarks import layouts
from tests.pipeline.sources.helpers import all_captions, items_and_summary, refusal, write

opened = functools.partial(items_and_summary, "vatex", subset=True)
wrong = functools.partial(refusal, "vatex")


@pytest.fixture
def vatex(tmp_path):
    return layouts.vatex(tmp_path)


def videos(layout, split):
    return [video for video, of in layout.splits.items() if of == split]


def test_without_lists_validation_is_val_and_the_public_test_is_test(vatex):
    for path in vatex.folder.glob("*_names.txt"):
        path.unlink()
    items, summary = opened(vatex.folder)
    renamed = {"train": "train", "val": "val", "test": "val", "public_test": "test"}
    assert {name: item.split for name, item in items.items()} == {
        video: renamed[split] for video, split in vatex.splits.items()
    }
    assert "30 human captions in zh of items that are trained on: not used" in summary
    message = wrong(vatex.folder)
    assert "videos of training: found 10, expected 25,991" in message
    assert "captions in zh of validation: found 21, expected 70" in message


def test_a_test_set_in_two_files_of_a_language_each(vatex):
    (video,) = videos(vatex, "public_test")
    row = {"videoID": video, "chCap": ["一", "", "三"]}
    write(vatex.folder, {"vatex_public_test_chinese_v1.1.json": json.dumps([row])})
    items, summary = opened(vatex.folder)
    assert all_captions(items[video])[3:] == [("zh", "human", 0, "一"), ("zh", "human", 2, "三")]
    assert "1 captions are blank" in summary
    write(vatex.folder, {"vatex_public_test_more.json": json.dumps([row])})
    assert "another file has too" in wrong(vatex.folder)


def test_lists_that_do_not_fit(vatex):
    train, val, test = (videos(vatex, split) for split in ("train", "val", "test"))
    (vatex.folder / "test_names.txt").unlink()
    assert "lists: there is one for val or test, but not for both" in wrong(vatex.folder)
    for listed, message in (
        ([val[0]], f"has {val[0]} in the lists of test and val"),
        ([train[0]], f"has {train[0]} of training in the list of test"),
        (test[:3], f"videos of validation in no list ({test[3]}): found 1, expected 0"),
        ([*test, "alien"], "videos in lists that have no captions (alien): found 1, expected 0"),
    ):
        write(vatex.folder, {"test_list.txt": "".join(f"{name}\r\n" for name in listed)})
        assert message in wrong(vatex.folder)


def test_media_that_are_missing_doubled_or_of_nobody(vatex):
    first, second, *_ = videos(vatex, "val")
    (vatex.folder / "trainval" / f"{first}.npy").rename(vatex.folder / "trainval" / "alien.npy")
    assert "media: 1 of 18 items have none" in wrong(vatex.folder)
    items, summary = opened(vatex.folder, allow_missing_media=True)
    assert (items[first].uri, items[first].media_type) == ("", "video") and items[first].captions
    assert "1 media files belong to no id and are not used (alien.npy)" in summary
    write(vatex.folder, {f"clips/{first}.mp4": b"?", f"clips/{first}.jpg": b"a still"})
    assert opened(vatex.folder)[0][first].uri.endswith(f"clips/{first}.mp4")
    write(vatex.folder, {f"clips/{second}.mp4": b"?"})
    assert f"has two media for {second}" in wrong(vatex.folder)
