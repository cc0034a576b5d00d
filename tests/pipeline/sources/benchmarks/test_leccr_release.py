import dataclasses
import functools
import re

import numpy as np
import pytest

from pipeline.media.uri import open_media
from pipeline.sources.scenes.content import Message
from pipeline.sources.scenes.drawing import encode
from pipeline.sources.scenes.grammar import caption
from pipeline.sources.scenes.noise import descriptions, translation
from pipeline.sources.scenes.rows import Settings, draw, item_messages, plan
from tests.pipeline.sources.benchmarks.test_bigfile import write_bigfile
from tests.pipeline.sources.helpers import items_and_summary, refusal, write

opened = functools.partial(items_and_summary, "leccr_release", license="of the set")
wrong = functools.partial(refusal, "leccr_release")

SETTINGS = Settings(items=3, val=2, test=2, size=16, seed=5)
LANGUAGE = "zh"


@dataclasses.dataclass(frozen=True)
class Scene:
    """An item as it is written below, and as it has to come back."""

    item_id: str
    split: str
    messages: list[Message]
    described: str
    picture: bytes

    def english(self) -> list[str]:
        return [caption(message, "en") for message in self.messages]

    def human(self) -> list[str]:
        return [caption(message, LANGUAGE) for message in self.messages]

    def translated(self) -> list[str]:
        return [
            translation(message, LANGUAGE, 0.3, 5, f"{self.item_id}#{number}").text
            for number, message in enumerate(self.messages)
        ]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Ids as the sets have them: with #, with a leading dash, ending in what looks like a frame's number."""
    ids = ["a#b", "-Ptf_000122_000132", "1000092795", "video7", "COCO_val_9", "x.y", "z"]
    return [
        Scene(
            item_id,
            item.split,
            item_messages(item, 5),
            next(iter(descriptions(item.scene, 0, 5, item.item_id).values())),
            encode(draw(item, SETTINGS)),
        )
        for item_id, item in zip(ids, plan(SETTINGS), strict=True)
    ]


def caption_file(scenes, mark, texts, *, suffix="", first=0) -> str:
    lines = [
        f"{scene.item_id}{suffix}#{mark}#{number} {text}\n"
        for scene in scenes
        for number, text in enumerate(texts(scene), first)
    ]
    return "".join(lines)


def of_split(scenes, split):
    return [scene for scene in scenes if scene.split == split]


def layout(scenes, *, set="mini", lists="FeatureData", suffix="", test="test_id.txt", generic=False, first=0):
    """All the text files of a release: path → content."""
    train, val, held = (of_split(scenes, split) for split in ("train", "val", "test"))
    mark = "enc" if generic else LANGUAGE
    files = {
        f"TextData/{set}train_enc.caption.txt": caption_file(train, "enc", Scene.english, suffix=suffix, first=first),
        f"TextData/{set}train_google_enc2{LANGUAGE}.caption.txt": caption_file(
            train, f"enc2{LANGUAGE}", Scene.translated, suffix=suffix, first=first
        ),
        f"TextData/{set}val_{LANGUAGE}.caption.txt": caption_file(val, mark, Scene.human, suffix=suffix, first=first),
        f"TextData/{set}test_{LANGUAGE}_2016.caption.txt": caption_file(
            held, mark, Scene.human, suffix=suffix, first=first
        ),
        f"{lists}/train_id.txt": "".join(f"{scene.item_id}\n" for scene in train),
        f"{lists}/val_id.txt": "".join(f"{scene.item_id}{suffix}\n" for scene in val),
        f"{lists}/{test}": "\n".join(scene.item_id for scene in held),
    }
    return files


def with_pictures(scenes, files):
    return files | {f"pictures/{scene.item_id}.png": scene.picture for scene in scenes}


def written(item, origin=None):
    return [
        (c.language, c.origin, c.number, c.text)
        for c in item.captions
        if (c.origin == origin if origin else c.origin != "mllm")
    ]


def expected(scene, first=0):
    human, mt = ("en", "human"), (LANGUAGE, "mt")
    if scene.split == "train":
        both = [(human, scene.english()), (mt, scene.translated())]
    else:
        both = [((LANGUAGE, "human"), scene.human())]
    return [(*kind, number, text) for kind, texts in both for number, text in enumerate(texts, first)]


@pytest.mark.parametrize(
    ("lists", "suffix", "generic", "test", "first"),
    [
        ("FeatureData", "", False, "test_id.txt", 0),
        ("img_id", ".jpg", True, "test_id_2016.txt", 1),
        ("video_id", ".mp4", False, "test_id.txt", 1),
    ],
)
def test_what_was_written_comes_back(tmp_path, scenes, lists, suffix, generic, test, first):
    files = layout(scenes, lists=lists, suffix=suffix, generic=generic, test=test, first=first)
    root = write(tmp_path, with_pictures(scenes, files))
    items, summary = opened(root)
    assert list(items) == [scene.item_id for scene in scenes]
    for scene in scenes:
        item = items[scene.item_id]
        assert (item.split, item.media_type, item.license) == (scene.split, "image", "of the set")
        assert item.uri == f"{root}/pictures/{scene.item_id}.png"
        assert written(item) == expected(scene, first) and written(item, "mllm") == []
    assert "7 items (train 3, val 2, test 2)" in summary


def test_the_frames_of_a_bigfile(tmp_path, scenes):
    root = write(tmp_path, layout(scenes, lists="video_id"))
    frames = {scene.item_id: [f"{scene.item_id}_{n}" for n in range(2 + at)] for at, scene in enumerate(scenes)}
    ids = [frame for names in frames.values() for frame in reversed(names)] + ["nobody_0"]
    write_bigfile(root / "FeatureData" / "i3d", ids, videos={**frames, "nobody": ["nobody_0"]})
    items, summary = opened(root)
    row = 0
    for scene in scenes:
        item, names = items[scene.item_id], frames[scene.item_id]
        with open_media(item.uri) as stream:
            rows = np.load(stream, allow_pickle=False)[:, 0].tolist()
        assert rows == list(range(row + len(names) - 1, row - 1, -1)) and item.media_type == "video"
        row += len(names)
    assert "1 media files belong to no id and are not used (nobody)" in summary
    (root / "FeatureData" / "i3d" / "video2frames.txt").unlink()
    assert opened(root)[0].keys() == items.keys()


def test_mscoco_names_its_files_in_a_list_of_their_own(tmp_path, scenes):
    files = layout(scenes, lists="img_id")
    for split in ("val", "test"):
        files[f"img_id/{LANGUAGE}_{split}_id.txt"] = files.pop(f"img_id/{split}_id.txt")
    files["img_id/image_ids.txt"] = "".join(f"{scene.item_id} COCO_{n}.jpg\n" for n, scene in enumerate(scenes))
    files["img_id/image_ids.txt"] += "elsewhere COCO_99.jpg\n"
    files |= {f"coco/train2014/COCO_{n}.jpg": scene.picture for n, scene in enumerate(scenes)}
    files |= {f"described/COCO_{n}.txt": f"{scene.described}\n" for n, scene in enumerate(scenes)}
    root = write(tmp_path, files)
    items, _ = opened(root)
    for number, scene in enumerate(scenes):
        assert items[scene.item_id].uri == f"{root}/coco/train2014/COCO_{number}.jpg"
        assert items[scene.item_id].split == scene.split
        assert written(items[scene.item_id], "mllm") == [("en", "mllm", 0, scene.described)]
    write(root, {"img_id/image_ids.txt": files["img_id/image_ids.txt"] + "z COCO_0.jpg\n"})
    assert "has COCO_0.jpg for z" in wrong(root)


def test_descriptions_and_those_that_are_missing_or_vectors(tmp_path, scenes):
    files = with_pictures(scenes, layout(scenes))
    files |= {f"described/{scene.item_id}.txt": f"{scene.described}\n" for scene in scenes[2:]}
    files["described/README.txt"] = "about"
    files[f"second/{scenes[3].item_id}.txt"] = "another view"
    files[f"second/{scenes[4].item_id}.txt"] = " \n"
    root = write(tmp_path, files)
    for scene in scenes[:2]:
        np.save(root / "described" / f"{scene.item_id}.npy", np.ones((5, 768), "f4"))
    items, summary = opened(root)
    for number, scene in enumerate(scenes):
        wanted = [("en", "mllm", 0, scene.described)] if number > 1 else []
        wanted += [("en", "mllm", 1, "another view")] if number == 3 else []
        assert written(items[scene.item_id], "mllm") == wanted
    assert "2 of 7 items have no description in described" in summary
    assert "2 descriptions in described are vectors" in summary
    assert "1 descriptions are blank" in summary


def test_what_is_told_and_not_taken(tmp_path, scenes):
    files = with_pictures(scenes, layout(scenes))
    train, val = of_split(scenes, "train"), of_split(scenes, "val")
    name = f"TextData/minitrain_google_enc2{LANGUAGE}.caption.txt"
    files[name] = "".join(files[name].splitlines(keepends=True)[:-2])
    files["TextData/minitrain_zh.caption.txt"] = caption_file(train, "zh", Scene.human)
    files["TextData/minival_google_zh2enc.caption.txt"] = caption_file(val, "zh2enc", Scene.english)
    files["TextData/minitrain_google_enc2zh2enc.caption.txt"] = caption_file(train, "enc2zh2enc", Scene.english)
    files["TextData/minival_google_enc2zh.caption.txt"] = caption_file(val, "enc2zh", Scene.translated)
    files["TextData/minival_enc.caption.txt"] = caption_file(val, "enc", Scene.english)
    files["pictures/stranger.png"] = b"?"
    files["other/stranger.png"] = b"?"
    items, summary = opened(write(tmp_path, files))
    english, mt = (sum(len(texts(scene)) for scene in train) for texts in (Scene.english, Scene.translated))
    assert f"{mt - 2} of {english} captions are translated into zh" in summary
    assert f"{english} human captions in zh of items that are trained on: not used" in summary
    held = sum(len(scene.english()) for scene in val)
    assert f"{english + held} captions translated back into English: not used" in summary
    assert f"{held} translations into zh of items that are held out: not used" in summary
    assert "1 media files belong to no id and are not used (stranger.png)" in summary
    for scene in val:
        english_too = [("en", "human", number, text) for number, text in enumerate(scene.english())]
        assert written(items[scene.item_id]) == english_too + expected(scene)


def test_text_is_kept_as_it_is_behind_the_first_blank(tmp_path, scenes):
    files = with_pictures(scenes, layout(scenes))
    name = "TextData/minitrain_enc.caption.txt"
    text = "#1 and a#enc#0, \u2028 \x85 “two”"
    files[name] = re.sub(r"(?m)^(a#b#enc#0) .*$", lambda found: f"{found[1]} {text}", files[name])
    assert opened(write(tmp_path, files))[0]["a#b"].captions[0].text == text


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"TextData/extra_enc2zh.caption.txt": "z#zh#0 x"}, "'zh' stands in a file named 'enc2zh'"),
        ({"TextData/extra_zh.caption.txt": "a#b#enc#0 x"}, "its item a#b is trained on"),
        ({"TextData/extra_zh_enc2zh.caption.txt": "z#zh#0 x"}, "has the marks zh and enc2zh in its name"),
        ({"TextData/extra.caption.txt": "a#b#enc2zh#77 x"}, "translates caption 77 of a#b"),
        ({"TextData/extra.caption.txt": "a#b#enc#0 x"}, "is caption 0 of a#b in en a second time"),
        ({"TextData/extra.caption.txt": "a#b#enc2ko#0 x"}, "line 1: the mark 'enc2ko'"),
        ({"TextData/extra.caption.txt": "\nnothing"}, "line 2: 'nothing' is not ITEM#enc#NUMBER TEXT"),
        ({"TextData/extra.caption.txt": b"z#zh#9 \xb0\xa1\n"}, "extra.caption.txt line 1: byte 0xb0"),
        ({"FeatureData/val_id.txt": "z\nvideo7\nCOCO_val_9\n"}, "has z in the lists of val and test"),
        ({"FeatureData/train_id.txt": "a#b\na#b\n"}, "the id 'a#b' comes twice, in line 1 and line 2"),
        ({"img_id/val_id.txt": "video7\n"}, "two lists for the split val differ"),
        ({"FeatureData/test_id_2016.txt": "z\n"}, "two lists for the split test differ"),
        ({"elsewhere/z.jpg": b"?"}, "has two media for z"),
    ],
)
def test_what_nobody_can_tell_is_refused(tmp_path, scenes, change, got):
    root = write(tmp_path, with_pictures(scenes, layout(scenes)))
    opened(root)
    assert got in wrong(write(root, change), subset=True, allow_missing_media=True)


def test_ids_without_lists_captions_or_media(tmp_path, scenes):
    root = write(tmp_path, with_pictures(scenes, layout(scenes)))
    write(root, {"TextData/extra.caption.txt": "alien#enc#0 x\nalien#enc#1 y\n"})
    got = "captions of ids that are in no list (alien): found 2, expected 0"
    assert got in wrong(root) and got in opened(root, subset=True)[1]
    (root / "TextData/extra.caption.txt").unlink()
    (root / "pictures" / "z.png").unlink()
    assert "media: 1 of 7 items have none" in wrong(root)
    items, _ = opened(root, allow_missing_media=True)
    assert (items["z"].uri, items["z"].media_type) == ("", "image") and written(items["z"]) == expected(scenes[-1])
    write(root, {"FeatureData/train_id.txt": "a#b\n-Ptf_000122_000132\n1000092795\nmute\n"})
    got = "items to train on without a caption (mute): found 1, expected 0"
    assert got in wrong(root, allow_missing_media=True)
    assert got in opened(root, allow_missing_media=True, subset=True)[1]


def test_folders_that_are_no_release(tmp_path):
    assert "has no TextData/NAME.caption.txt" in wrong(tmp_path)
    assert "has no id lists such as train_id.txt" in wrong(write(tmp_path, {"TextData/a.caption.txt": "a#enc#0 b"}))
