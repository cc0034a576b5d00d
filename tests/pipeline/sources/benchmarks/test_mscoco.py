"""COCO, COCO-CN and STAIR captions: what their layouts leave open."""

import functools
import json

import pytest

from tests.pipeline.sources.benchmarks import layouts
from tests.pipeline.sources.helpers import items_and_summary, jpeg, numbered, refusal, write
from tests.worked_examples import each_example

opened = functools.partial(items_and_summary, "mscoco", subset=True)
wrong = functools.partial(refusal, "mscoco", subset=True)


@pytest.fixture
def coco(tmp_path):
    return layouts.coco(tmp_path / "coco").folder


@pytest.fixture
def coco_cn(tmp_path):
    return layouts.coco_cn(tmp_path / "cn").folder


def annotations(listed, captions):
    images = [{"id": number, "file_name": f"{number:012}.jpg"} for number in listed]
    return json.dumps({"images": images, "annotations": [{"image_id": n, "caption": f"Of {n}.\n"} for n in captions]})


def test_without_karpathy_splits_are_those_of_the_files(coco):
    (coco / "dataset_coco.json").unlink()
    items, _ = opened(coco)
    assert {item.split for name, item in items.items() if "train2014" in name} == {"train"}
    assert {item.split for name, item in items.items() if "val2014" in name} == {"val"}


def test_images_of_2017_are_those_of_2014(coco_cn, tmp_path):
    folder = write(
        tmp_path / "coco17",
        {
            "annotations/captions_train2017.json": annotations((101, 102, 113), (101, 113, 113)),
            "annotations/captions_val2017.json": annotations((110,), (110,)),
            "train2017/000000000113.jpg": jpeg(1),
        },
    )
    items, _ = opened(folder, allow_missing_media=True)
    assert items["000000000102.jpg"].split == "train" and items["000000000110.jpg"].split == "val"
    (coco_cn / "coco-cn").rename(folder / "coco-cn")
    items, summary = opened(folder, allow_missing_media=True)
    item = items["COCO_val2014_000000000113.jpg"]
    assert item.uri.endswith("train2017/000000000113.jpg") and item.split == "val"
    assert numbered(item, "en") == {0: "Of 113.", 1: "Of 113."} and list(numbered(item, "zh")) == [0, 1]
    assert summary.count("000000000102") == 0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"annotations/captions_val2014.json": "[]"}, "another layout"),
        ({"annotations/captions_val2014.json": annotations((74, 74), ())}, "images: the id '000000000074' comes twice"),
        ({"annotations/captions_val2014.json": annotations((74,), (74, 75, 76))}, "images that it does not list"),
        ({"more/captions_val2014.json": "{}"}, "differ. Take one of them away"),
    ],
)
def test_broken_annotations(coco, files, message):
    assert message in wrong(write(coco, files))


@each_example("broken_coco_cn", "name, content, message")
def test_broken_coco_cn(coco_cn, name, content, message):
    assert message in wrong(write(coco_cn, {f"coco-cn/{name}": content}))
