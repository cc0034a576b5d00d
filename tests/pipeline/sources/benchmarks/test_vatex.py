import functools
import json

import numpy as np
import pytest

from pipeline.sources.benchmarks import vatex
from tests.pipeline.sources.benchmarks.test_bigfile import write_bigfile
from tests.pipeline.sources.helpers import all_captions, items_and_summary, refusal, write

opened = functools.partial(items_and_summary, "vatex")
wrong = functools.partial(refusal, "vatex")

TRAIN, VAL, TEST = (
    [f"{name}_{number}_000000_000010" for number in range(count)] for name, count in (("-t", 3), ("v", 4), ("p", 2))
)
NAMES = {
    "training": "vatex_training_v1.0.json",
    "validation": "vatex_validation_v1.0.json",
    "public_test": "vatex_public_test_english_v1.1.json",
}


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(vatex, "PARTS", {"training": 3, "validation": 4, "public_test": 2})
    monkeypatch.setattr(vatex, "HALF", 2)


def texts(video, language):
    return [f"{language} {number} of {video}" for number in range(10)]


def rows(videos, languages=("en", "ch")):
    return [{"videoID": video} | {f"{of}Cap": texts(video, of) for of in languages} for video in videos]


def layout(root, *, media=True, **changed):
    parts = {"training": rows(TRAIN), "validation": rows(VAL), "public_test": rows(TEST, ("en",))} | changed
    files = {f"annotations/{NAMES[part]}": json.dumps(found) for part, found in parts.items() if found is not None}
    files |= {f"clips/{video}.mp4": b"?" for video in (*TRAIN, *VAL, *TEST)} if media else {}
    return write(root, files)


def numbered(video, language, key):
    return [(language, "human", number, text) for number, text in enumerate(texts(video, key))]


def test_the_published_files(tmp_path):
    root = layout(tmp_path)
    items, summary = opened(root)
    assert {name: item.split for name, item in items.items()} == (
        dict.fromkeys(TRAIN, "train") | dict.fromkeys(VAL, "val") | dict.fromkeys(TEST, "test")
    )
    for video in TRAIN + TEST:
        assert all_captions(items[video]) == numbered(video, "en", "en")
    for video in VAL:
        assert all_captions(items[video]) == numbered(video, "en", "en") + numbered(video, "zh", "ch")
    assert {item.media_type for item in items.values()} == {"video"}
    assert all(item.uri == f"{root}/clips/{name}.mp4" for name, item in items.items())
    assert "30 human captions in zh of items that are trained on: not used" in summary
    assert "public_test has no captions in zh" in summary


def test_a_test_set_in_two_files_of_a_language_each(tmp_path):
    root = layout(tmp_path, public_test=rows(TEST, ("en",)))
    write(root, {"vatex_public_test_chinese_v1.1.json": json.dumps(rows(TEST, ("ch",)))})
    items, _ = opened(root)
    assert all_captions(items[TEST[0]]) == numbered(TEST[0], "en", "en") + numbered(TEST[0], "zh", "ch")
    write(root, {"vatex_public_test_more.json": json.dumps(rows(TEST, ("en",)))})
    assert "another file has too" in wrong(root)


@pytest.mark.parametrize("kind", ["txt", "npy", "files"])
def test_the_lists_halve_the_validation_videos(tmp_path, kind):
    root = layout(tmp_path)
    if kind == "txt":
        write(root, {"val_list.txt": "\n".join(VAL[2:]), "test_list.txt": "".join(f"{name}\r\n" for name in VAL[:2])})
    else:
        (root / "public_split").mkdir()
        form = "videos/{}.mp4" if kind == "files" else "{}"
        for name, videos in (("trn", TRAIN), ("val", VAL[2:]), ("tst", VAL[:2])):
            np.save(root / "public_split" / f"{name}_names.npy", [form.format(video) for video in videos])
    items, _ = opened(root)
    assert {name: item.split for name, item in items.items()} == (
        dict.fromkeys(TRAIN, "train")
        | dict.fromkeys(VAL[2:], "val")
        | dict.fromkeys(VAL[:2], "test")
        | dict.fromkeys(TEST, "public_test")
    )
    assert all_captions(items[VAL[0]])[10:] == numbered(VAL[0], "zh", "ch")


def test_lists_that_do_not_fit(tmp_path):
    root = layout(tmp_path)
    write(root, {"val_list.txt": "\n".join(VAL[:2])})
    assert "lists: there is one for val but none for test" in wrong(root)
    write(root, {"test_list.txt": "\n".join(VAL[1:])})
    assert f"has {VAL[1]} in the lists of test and val" in wrong(root)
    write(root, {"test_list.txt": VAL[2]})
    message = wrong(root)
    assert "videos of test: found 1, expected 2" in message
    assert f"videos of validation in no list ({VAL[3]}): found 1, expected 0" in message
    write(root, {"test_list.txt": f"{TRAIN[0]}\n{VAL[2]}"})
    assert f"has {TRAIN[0]} of training in the list of test" in wrong(root)
    write(root, {"test_list.txt": f"{VAL[2]}\n{VAL[3]}\nalien"})
    assert "videos in lists that have no captions (alien): found 1, expected 0" in wrong(root)
    write(root, {"test_ids.txt": VAL[2]})
    assert "two lists for the split test differ" in wrong(root)


def test_a_list_that_would_have_to_be_unpickled_is_refused(tmp_path):
    root = layout(tmp_path)
    np.save(root / "val_names.npy", np.array([print, "a"], dtype=object))
    assert "val_names.npy has an array that cannot be read as it is" in wrong(root)
    np.save(root / "val_names.npy", np.ones(3))
    assert "has an array of float64 with 1 dimensions" in wrong(root)


@pytest.mark.parametrize("kind", ["arrays", "bigfile"])
def test_features(tmp_path, kind):
    root = layout(tmp_path, media=False)
    if kind == "arrays":
        for folder, videos in (("trainval", TRAIN + VAL), ("public_test", TEST)):
            (root / folder).mkdir()
            for video in videos:
                np.save(root / folder / f"{video}.npy", np.ones((1, 5, 1024), "f4"))
    else:
        write_bigfile(root / "i3d", [f"{video}_{n}" for video in TRAIN + VAL + TEST for n in range(3)])
    items, _ = opened(root)
    uri = f"{root}/trainval/{VAL[0]}.npy" if kind == "arrays" else f"{root}/i3d/feature.bin#dim=3&rows=9-11"
    assert items[VAL[0]].uri == uri and all(item.uri for item in items.values())


def test_media_that_are_missing_doubled_or_of_nobody(tmp_path):
    root = layout(tmp_path)
    (root / "clips" / f"{VAL[0]}.mp4").rename(root / "clips" / "alien.mp4")
    assert "media: 1 of 9 items have none" in wrong(root)
    items, summary = opened(root, allow_missing_media=True)
    assert (items[VAL[0]].uri, items[VAL[0]].media_type) == ("", "video") and items[VAL[0]].captions
    assert "1 media files belong to no id and are not used (alien.mp4)" in summary
    write(root, {f"val/{VAL[1]}.npy": b"?"})
    assert f"has two media for {VAL[1]}" in wrong(root)
