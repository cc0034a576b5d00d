"""The layout of NRCCR and LECCR: its variants, and what cannot be decided."""

import functools

import pytest

from tests.pipeline.sources.benchmarks import layouts
from tests.pipeline.sources.benchmarks.layouts import IDS
from tests.pipeline.sources.helpers import all_captions, items_and_summary, refusal, write
from tests.worked_examples import each_example

opened = functools.partial(items_and_summary, "leccr_release")
wrong = functools.partial(refusal, "leccr_release")
EXTRA = "TextData/extra.caption.txt"


@pytest.fixture
def release(tmp_path):
    return layouts.release_with_pictures(tmp_path)


def described(item):
    return [(number, text) for _, origin, number, text in all_captions(item) if origin == "mllm"]


def captions(item):
    return {(language, number): text for language, origin, number, text in all_captions(item) if origin != "mllm"}


@each_example("variants_of_ids_marks_and_folders", "variant")
def test_variants_of_ids_marks_and_folders(tmp_path, variant):
    layout = layouts.release_with_pictures(tmp_path, **variant)
    items, summary = opened(tmp_path)
    assert {name: item.split for name, item in items.items()} == layout.splits
    for name, item in items.items():
        assert captions(item) == layout.human[name] | layout.machine[name]
        assert item.media_type == "image" and item.uri == f"{tmp_path}/pictures/{name}.jpg"
    assert "17 items (train 10, val 3, test 4)" in summary and "1 of 30 captions are not translated" in summary


def test_mscoco_names_its_files_in_a_list_of_their_own(release, tmp_path):
    for split in ("val", "test"):
        (tmp_path / "img_id" / f"{split}_id.txt").rename(tmp_path / "img_id" / f"zh_{split}_id.txt")
    for folder, suffix in (("pictures", "jpg"), ("descriptions", "txt")):
        for at, item in enumerate(IDS[:-1]):
            (tmp_path / folder / f"{item}.{suffix}").rename(tmp_path / folder / f"COCO_{at}.{suffix}")
    listed = "".join(f"{item} COCO_{at}.jpg\n" for at, item in enumerate(IDS)) + "elsewhere COCO_99.jpg\n"
    write(tmp_path, {"img_id/image_ids.txt": listed})
    items, _ = opened(tmp_path)
    for at, item in enumerate(IDS[:-1]):
        assert items[item].uri == f"{tmp_path}/pictures/COCO_{at}.jpg"
        assert items[item].split == release.splits[item] and described(items[item]) == [(0, release.described[item])]
    write(tmp_path, {"img_id/image_ids.txt": listed + "z COCO_0.jpg\n"})
    assert "a file of its own for z" in wrong(tmp_path)


def test_descriptions_in_two_folders_blank_and_missing(release, tmp_path):
    write(tmp_path, {f"second/{IDS[3]}.txt": "another view", f"second/{IDS[4]}.txt": " \n", "second/README.txt": "?"})
    items, summary = opened(tmp_path)
    assert described(items[IDS[3]]) == [(0, release.described[IDS[3]]), (1, "another view")]
    assert described(items[IDS[4]]) == [(0, release.described[IDS[4]])] and described(items["z"]) == []
    assert "1 of 17 items have no description in descriptions" in summary


def test_texts_that_are_not_used_are_counted(release, tmp_path):
    held_out, trained = IDS[10], IDS[0]
    texts = {
        "train_zh": f"{trained}#zh#0 狗",
        "train_google_enc2zh2enc": f"{trained}#enc2zh2enc#0 a dog",
        "val_google_zh2enc": f"{held_out}#zh2enc#0 a dog",
        "val_enc2zh": f"{held_out}#enc2zh#0 狗",
        "val_enc": f"{held_out}#enc#0 a dog\n{held_out}#enc#1 \n",
    }
    write(tmp_path, {f"TextData/small{name}.caption.txt": text for name, text in texts.items()})
    items, summary = opened(tmp_path)
    assert "1 human captions in zh of items that are trained on: not used" in summary
    assert "2 captions translated back into English: not used" in summary
    assert "1 translations into zh of items that are held out: not used" in summary
    assert "1 blank captions: not used" in summary
    assert captions(items[held_out]) == release.human[held_out] | {("en", 0): "a dog"}


def test_text_is_kept_as_it_is_behind_the_first_blank(release, tmp_path):
    text = "#1 and a#enc#0, \u2028 \x85 “two”"
    write(tmp_path, {EXTRA: f"a#b#enc#7 {text}\n"})
    assert all_captions(opened(tmp_path)[0]["a#b"])[3] == ("en", "human", 7, text)


@each_example("what_nobody_can_decide_is_refused", "files, message")
def test_what_nobody_can_decide_is_refused(release, tmp_path, files, message):
    assert message in wrong(write(tmp_path, files), subset=True, allow_missing_media=True)


def test_ids_without_lists_captions_or_media(release, tmp_path):
    write(tmp_path, {EXTRA: "alien#enc#0 x\nalien#enc#1 y\n"})
    message = "captions of ids that are in no list (alien): found 2, expected 0"
    assert message in wrong(tmp_path) and message in opened(tmp_path, subset=True)[1]
    (tmp_path / EXTRA).unlink()
    (tmp_path / "pictures" / "z.jpg").unlink()
    assert "media: 1 of 17 items have none" in wrong(tmp_path)
    items, _ = opened(tmp_path, allow_missing_media=True)
    assert (items["z"].uri, items["z"].media_type) == ("", "image") and items["z"].captions
    write(tmp_path, {"img_id/train_id.txt": "\n".join((*IDS[:10], "mute"))})
    message = "items to train on without a caption (mute): found 1, expected 0"
    assert message in wrong(tmp_path, allow_missing_media=True)
