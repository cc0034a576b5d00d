import functools
import json

import pytest

from pipeline.sources.benchmarks import msrvtt_cn
from tests.pipeline.sources.helpers import all_captions, items_and_summary, refusal, write

opened = functools.partial(items_and_summary, "msrvtt_cn")
wrong = functools.partial(refusal, "msrvtt_cn")

SPLITS = {"video0": "train", "video1": "train", "video2": "validate", "video10": "test", "video11": "test"}
OURS = {"train": "train", "validate": "val", "test": "test"}
TRAIN = ["video0", "video1"]
HELD_OUT = ["video2", "video10", "video11"]


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(msrvtt_cn, "COUNTS", {"train": 2, "val": 1, "test": 2})
    monkeypatch.setattr(msrvtt_cn, "JSFUSION", {"train": 3, "test": 1})
    monkeypatch.setattr(msrvtt_cn, "ENGLISH", 2)


def written(video, language):
    return [f"{language} {number} #{video}" for number in range(2)]


def info(videos=SPLITS, language="en"):
    """Sentences not video by video: their numbers are each video's own."""
    sentences = [(number, video, written(video, language)[number]) for number in range(2) for video in videos]
    return json.dumps(
        {
            "info": {},
            "videos": [{"video_id": video, "split": split, "url": ""} for video, split in videos.items()],
            "sentences": [
                {"sen_id": at, "video_id": video, "caption": text} for at, (_, video, text) in enumerate(sentences)
            ],
        }
    )


def caption_file(videos, mark):
    return "".join(f"{video}#{mark}#{n} {text}\n" for video in videos for n, text in enumerate(written(video, mark)))


def layout(root, **more):
    files = {
        "videodatainfo_2017.json": info(),
        "cn/msrvtt10kcnval_zh.caption.txt": caption_file(HELD_OUT[:1], "zh"),
        "cn/msrvtt10kcntest_zh.caption.txt": caption_file(HELD_OUT[1:], "zh"),
    }
    files |= {f"TrainValVideo/{video}.mp4": b"?" for video in SPLITS}
    return write(root, files | more)


def numbered(video, language, origin="human", mark=None):
    return [(language, origin, number, text) for number, text in enumerate(written(video, mark or language))]


def test_the_videos_split_and_both_languages(tmp_path):
    root = layout(tmp_path)
    items, summary = opened(root)
    assert {name: item.split for name, item in items.items()} == {name: OURS[split] for name, split in SPLITS.items()}
    for video in SPLITS:
        chinese = numbered(video, "zh") if video in HELD_OUT else []
        assert all_captions(items[video]) == numbered(video, "en") + chinese
        assert items[video].uri == f"{root}/TrainValVideo/{video}.mp4" and items[video].media_type == "video"
    assert "5 items (train 2, val 1, test 2)" in summary


def test_translations_go_by_the_english_caption_file(tmp_path):
    translated = {"cn/msrvtt10kcntrain_google_enc2zh.caption.txt": caption_file(TRAIN, "enc2zh")}
    root = layout(tmp_path, **translated)
    message = wrong(root)
    assert "translates caption 0 of video0" in message and "Add the English .caption.txt" in message
    write(root, {"cn/msrvtt10kcntrain.caption.txt": caption_file(TRAIN, "enc")})
    items, _ = opened(root)
    english = numbered("video0", "en", mark="enc")
    assert all_captions(items["video0"]) == english + numbered("video0", "zh", "mt", "enc2zh")
    assert all_captions(items["video2"]) == numbered("video2", "en") + numbered("video2", "zh")


def test_human_chinese_is_not_trained_on(tmp_path):
    root = layout(tmp_path, **{"cn/msrvtt10kcntrain_zh.caption.txt": caption_file(TRAIN, "zh")})
    items, summary = opened(root)
    assert all_captions(items["video0"]) == numbered("video0", "en")
    assert "4 human captions in zh of items that are trained on: not used" in summary


@pytest.mark.parametrize("form", ["sentences", "dict"])
def test_chinese_as_json(tmp_path, form):
    chinese = info(language="zh") if form == "sentences" else json.dumps({name: written(name, "zh") for name in SPLITS})
    root = layout(tmp_path, **{"MSRVTT-CN.json": chinese})
    for path in (root / "cn").iterdir():
        path.unlink()
    items, _ = opened(root)
    assert all(all_captions(items[video]) == numbered(video, "en") + numbered(video, "zh") for video in HELD_OUT)
    assert all_captions(items["video1"]) == numbered("video1", "en")


@pytest.mark.parametrize("form", ["txt", "csv"])
def test_the_lists_of_jsfusion(tmp_path, form):
    train, test = ["video1", "video0", "video2"], ["video11"]
    if form == "txt":
        lists = {"train_list_jsfusion.txt": "\n".join(train), "val_list_jsfusion.txt": "\n".join(test)}
    else:
        lists = {
            "MSRVTT_train.9k.csv": "video_id\n" + "".join(f"{video}\n" for video in train),
            "MSRVTT_JSFUSION_test.csv": "key,vid_key,video_id,sentence\nret0,msr1,video11,a man, talks\n",
        }
    root = layout(tmp_path, **lists)
    items, summary = opened(root)
    assert {name: item.split for name, item in items.items()} == dict.fromkeys(train, "train") | {"video11": "test"}
    assert all_captions(items["video2"]) == numbered("video2", "en")  # held out no more: no Chinese
    assert all_captions(items["video11"]) == numbered("video11", "en") + numbered("video11", "zh")
    assert "1 videos are in neither of JSFusion's lists" in summary


def test_lists_that_do_not_fit(tmp_path):
    root = layout(tmp_path, **{"val_list_jsfusion.txt": "video11"})
    assert "there is only the one for test" in wrong(root)
    write(root, {"train_list_jsfusion.txt": "video11\nvideo0"})
    assert "has video11 in the lists of" in wrong(root)
    write(root, {"train_list_jsfusion.txt": "video0\nalien"})
    assert "has alien in its lists" in wrong(root)
    write(root, {"train_list_jsfusion.txt": "video0"})
    assert "videos of train: found 1, expected 3" in wrong(root)
    write(root, {"MSRVTT_JSFUSION_test.csv": "id\n1"})
    assert "columns id; expected one called video_id" in wrong(root)


def test_counts_and_media_that_are_missing(tmp_path):
    root = layout(tmp_path)
    (root / "cn" / "msrvtt10kcntest_zh.caption.txt").write_text(caption_file(["video11"], "zh"))
    message = "videos of test with a Chinese caption: found 1, expected 2"
    assert message in wrong(root) and message in opened(root, subset=True)[1]
    (root / "TrainValVideo" / "video0.mp4").unlink()
    assert "media: 1 of 5 items have none" in wrong(root, subset=True)
    items, _ = opened(root, subset=True, allow_missing_media=True)
    assert (items["video0"].uri, items["video0"].media_type) == ("", "video")
    fewer = {video: split for video, split in SPLITS.items() if video != "video1"}
    write(root, {"videodatainfo_2017.json": info(fewer)})
    assert "videos of train: found 1, expected 2" in wrong(root)
    write(root, {"cn/more_zh.caption.txt": "video9#zh#0 x"})
    assert "captions of ids that are in no list (video9): found 1, expected 0" in wrong(root)


def broken(change):
    found = json.loads(info())
    change(found)
    return json.dumps(found)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ("[]", "another layout"),
        (broken(lambda it: it["videos"].append({"video_id": "a", "split": "spare"})), "the split 'spare'"),
        (broken(lambda it: it["videos"].append(it["videos"][0])), "has video0 a second time"),
        (broken(lambda it: it["sentences"].append({"video_id": "a", "caption": "b"})), "is of a, which is in no list"),
        (broken(lambda it: it.update(sentences={})), "`sentences` is not a list"),
    ],
)
def test_files_that_are_not_the_sets(tmp_path, content, got):
    assert got in wrong(layout(tmp_path, **{"videodatainfo_2017.json": content}), subset=True)


def test_two_files_of_the_same_videos(tmp_path):
    assert "each video once" in wrong(layout(tmp_path, **{"MSRVTT_data.json": info()}))
    assert "has no videodatainfo JSON file" in wrong(write(tmp_path / "other", {"a.txt": ""}))
