"""MSR-VTT-CN: what its layout leaves open."""

import functools
import json

import pytest

from tests.pipeline.sources.benchmarks import layouts
from tests.pipeline.sources.helpers import all_captions, items_and_summary, refusal, write

opened = functools.partial(items_and_summary, "msrvtt_cn", subset=True)
wrong = functools.partial(refusal, "msrvtt_cn")
INFO, ENGLISH = "train_val_test_videodatainfo.json", "TextData/msrvtt10kcntrain.caption.txt"


@pytest.fixture
def msrvtt(tmp_path):
    return layouts.msrvtt_cn(tmp_path)


def test_translations_need_the_english_caption_file(msrvtt):
    (msrvtt.folder / ENGLISH).unlink()
    message = wrong(msrvtt.folder)
    assert "translates caption 0 of video0" in message and "Add the English .caption.txt" in message
    (msrvtt.folder / "TextData" / "msrvtt10kcntrain_google_enc2zh.caption.txt").unlink()
    items, summary = opened(msrvtt.folder)
    assert [text for *_, text in all_captions(items["video0"])] == [*msrvtt.human["video0"].values()]
    assert "sentences in English: found 51, expected 340" in summary
    assert "30 human captions in zh of items that are trained on: not used" in summary


@pytest.mark.parametrize("form", ["txt", "csv"])
def test_the_lists_of_jsfusion(msrvtt, form):
    train, test = [*(f"video{at}" for at in range(10)), "video11"], ["video16"]
    if form == "txt":
        lists = {"train_list_jsfusion.txt": "\n".join(train), "val_list_jsfusion.txt": "\n".join(test)}
    else:
        lists = {
            "MSRVTT_train.9k.csv": "video_id\n" + "".join(f"{video}\n" for video in train),
            "MSRVTT_JSFUSION_test.csv": "key,vid_key,video_id,sentence\nret0,msr1,video16,a man, talks\n",
        }
    items, summary = opened(write(msrvtt.folder, lists))
    assert {name: item.split for name, item in items.items()} == dict.fromkeys(train, "train") | {"video16": "test"}
    assert {language for language, *_ in all_captions(items["video11"])} == {"en"}  # held out no more
    assert {language for language, *_ in all_captions(items["video16"])} == {"en", "zh"}
    assert "5 videos are in neither of JSFusion's lists" in summary and "in no list" not in summary


def test_lists_that_do_not_fit(msrvtt):
    write(msrvtt.folder, {"val_list_jsfusion.txt": "video11"})
    assert "there is only the one for test" in wrong(msrvtt.folder)
    for listed, message in (
        ("video11\nvideo0", "has video11 in the lists of"),
        ("video0\nalien", "items to train on without a caption (alien)"),
        ("video0", "videos of train: found 1, expected 9,000"),
    ):
        assert message in wrong(write(msrvtt.folder, {"train_list_jsfusion.txt": listed}))
    write(msrvtt.folder, {"MSRVTT_JSFUSION_test.csv": "id\n1"})
    assert "columns id; expected one called video_id" in wrong(msrvtt.folder)


def test_counts_and_captions_that_are_missing(msrvtt):
    assert "videos of train: found 10, expected 6,513" in wrong(msrvtt.folder)
    (msrvtt.folder / "TextData" / "msrvtt10kcntest_zh.caption.txt").write_text("video13#zh#0 狗\nvideo99#zh#0 猫\n")
    _, summary = opened(msrvtt.folder)
    assert "videos of test with a Chinese caption: found 1, expected 4" in summary
    assert "captions of ids that are in no list (video99): found 1, expected 0" in summary


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info["videos"].append({"video_id": "a", "split": "spare"}), "another layout (KeyError: 'spare')"),
        (lambda info: info["videos"].append(info["videos"][0]), "the id 'video0' comes twice"),
        (lambda info: info["sentences"].append({"video_id": "a", "caption": "b"}), "is of a, which is in no list"),
        (lambda info: info.pop("sentences"), "another layout"),
    ],
)
def test_files_that_are_not_the_sets(msrvtt, change, message):
    info = json.loads((msrvtt.folder / INFO).read_text())
    change(info)
    assert message in wrong(write(msrvtt.folder, {INFO: json.dumps(info)}), subset=True)
