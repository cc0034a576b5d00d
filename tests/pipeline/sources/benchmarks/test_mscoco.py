"""COCO, COCO-CN and STAIR captions: small folders laid out as their owners do, with traps."""

import functools
import json

import pytest

from pipeline.errors import UsageError
from pipeline.sources.benchmarks import mscoco
from tests.pipeline.sources.helpers import jpeg, numbered, open_set, write

opened = functools.partial(open_set, "mscoco")

TRAIN, VAL = (30, 42, 77), (74, 99)


def name(number, part=None):
    return f"COCO_{part or ('train' if number in TRAIN else 'val')}2014_{number:012}.jpg"


def layout(numbers, naming=name, says="caption {} of {}", each=2, listed=None):
    return json.dumps(
        {
            "images": [{"id": number, "file_name": naming(number)} for number in listed or numbers],
            "annotations": [
                {"image_id": number, "id": 10 * number + at, "caption": says.format(at, number) + "\n"}
                for at in range(each)
                for number in reversed(numbers)
            ],
        }
    )


@pytest.fixture
def coco(tmp_path, monkeypatch):
    """COCO 2014 with its pictures, one of them nobody's."""
    monkeypatch.setattr(mscoco, "COCO", dict(zip(mscoco.COCO, (3, 2, 4, 1), strict=True)))
    monkeypatch.setattr(mscoco, "STAIR", dict(zip(mscoco.STAIR, (3, 2), strict=True)))
    monkeypatch.setattr(mscoco, "KARPATHY", {"train": 3, "val": 1, "test": 1})
    monkeypatch.setattr(mscoco, "COCO_CN", {"train": (2, 1), "val": (1,), "test": (1,)})
    files = {"annotations/captions_train2014.json": layout(TRAIN), "annotations/captions_val2014.json": layout(VAL)}
    files |= {f"{name(number)[5:-17]}/{name(number)}": jpeg(number) for number in (*TRAIN, *VAL)}
    return write(tmp_path / "coco", {**files, "val2014/COCO_val2014_000000000001.jpg": jpeg(1)})


def with_karpathy(folder):
    splits = {30: "train", 42: "restval", 77: "test", 74: "val", 99: "train"}
    images = [
        {
            "cocoid": number,
            "filename": name(number),
            "filepath": "x",
            "split": split,
            "sentences": [{"raw": f"sentence of {number}", "tokens": []}],
        }
        for number, split in splits.items()
    ]
    return write(folder, {"dataset_coco.json": json.dumps({"images": images, "dataset": "coco"})})


def with_coco_cn(folder):
    written = [f"{name(n)[:-4]}#{at}\t写 {n} {at}" for n, at in ((30, 0), (74, 0), (74, 1), (77, 0), (99, 0))]
    return write(
        folder,
        {
            "coco-cn-version1805v1.1/coco-cn_train.txt": f"{name(30)[:-4]}\n{name(99)[:-4]}",
            "coco-cn-version1805v1.1/coco-cn_val.txt": f"{name(77)[:-4]}\n",
            "coco-cn-version1805v1.1/coco-cn_test.txt": f"{name(74)[:-4]}\n",
            f"coco-cn-version1805v1.1/{mscoco.WRITTEN}": "\n".join(written),
            f"coco-cn-version1805v1.1/{mscoco.TRANSLATED}": f"{name(74)[:-4]}#0 译 一\n{name(74)[:-4]}#4 译 五\n",
        },
    )


def items_of(source):
    return {item.item_id: item for item in source.items()}


def test_coco_as_it_is(coco):
    source = opened(coco)
    items = items_of(source)
    assert {item_id: item.split for item_id, item in items.items()} == {
        **{name(number): "train" for number in TRAIN},
        **{name(number): "val" for number in VAL},
    }
    assert items[name(42)].uri.endswith(f"train2014/{name(42)}")
    assert numbered(items[name(42)], "en") == {0: "caption 0 of 42", 1: "caption 1 of 42"}
    assert "1 media files belong to no id and are not used (COCO_val2014_000000000001.jpg)" in source.summary


def test_karpathys_splits_and_japanese(coco):
    with_karpathy(coco)
    says = "説明 {} {}"
    parts = {"train": TRAIN, "val": VAL}
    stair = {f"stair_captions_v1.2_{part}.json": layout(numbers, says=says) for part, numbers in parts.items()}
    write(coco / "stair_captions_v1.2", stair)
    items = items_of(opened(coco))
    splits = {number: items[name(number)].split for number in (*TRAIN, *VAL)}
    assert splits == {30: "train", 42: "train", 77: "test", 74: "val", 99: "train"}
    assert numbered(items[name(77)], "en") == {0: "caption 0 of 77", 1: "caption 1 of 77"}  # COCO's, not doubled
    assert numbered(items[name(77)], "ja") == {0: "説明 0 77", 1: "説明 1 77"}


def test_coco_cn_takes_its_own_images_in_its_own_splits(coco):
    source = opened(with_coco_cn(with_karpathy(coco)))
    items = items_of(source)
    assert {item.item_id: item.split for item in items.values()} == {
        name(30): "train",
        name(99): "train",
        name(77): "val",
        name(74): "test",
    }
    assert numbered(items[name(74)], "zh") == {0: "写 74 0", 1: "写 74 1", 10: "译 一", 14: "译 五"}
    assert numbered(items[name(74)], "en") == {0: "caption 0 of 74", 1: "caption 1 of 74"}
    assert "1 images that are not in COCO-CN are left out" in source.summary


def test_images_of_2017_are_those_of_2014(coco, tmp_path):
    folder = with_coco_cn(tmp_path / "coco17")
    naming = "{:012}.jpg".format
    parts = {"train": (30, 42, 74, 99), "val": (77,)}
    write(folder, {f"annotations/captions_{part}2017.json": layout(parts[part], naming) for part in parts})
    write(folder / "train2017", {naming(number): jpeg(number) for number in (30, 42, 74, 77, 99)})
    items = items_of(opened(folder))
    assert items[name(74)].uri.endswith("train2017/000000000074.jpg")
    assert numbered(items[name(74)], "en") == {0: "caption 0 of 74", 1: "caption 1 of 74"}
    write(coco, {"annotations/captions_val2017.json": layout((77,), naming)})
    assert "captions of 2017 not read" in opened(coco).summary
    (folder / "coco-cn-version1805v1.1").rename(tmp_path / "away")
    assert items_of(opened(folder))[naming(42)].split == "train"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"annotations/captions_val2014.json": "[]"}, "another layout .*lists `images`"),
        ({"annotations/captions_val2014.json": layout((74, 74))}, "images: the id '74' comes twice"),
        (
            {"annotations/captions_val2014.json": layout(VAL, listed=VAL[:1])},
            "2 captions of images",
        ),
        ({"more/captions_val2014.json": layout(VAL)}, "has captions_val2014.json more than once"),
    ],
)
def test_broken_annotations(coco, files, message):
    with pytest.raises(UsageError, match=message):
        opened(write(coco, files), subset=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({mscoco.WRITTEN: f"{name(30)[:-4]} 没有号"}, "line 1 has the id 'COCO_train2014_000000000030'"),
        ({mscoco.WRITTEN: "cat#0 猫"}, "has the image 'cat'"),
        ({mscoco.WRITTEN: f"{name(30)[:-4]}#0 一\n{name(30)[:-4]}#0 二"}, "comes twice, in line 1 and line 2"),
        ({"coco-cn_val.txt": name(30)[:-4]}, "the id .* comes twice"),
        ({"coco-cn_val.txt": ""}, r"images in coco-cn_val.txt: found 0, expected 1"),
    ],
)
def test_broken_coco_cn(coco, change, message):
    folder = with_coco_cn(coco)
    write(folder / "coco-cn-version1805v1.1", change)
    with pytest.raises(UsageError, match=message):
        opened(folder)


def test_a_folder_without_any_of_the_sets(tmp_path):
    with pytest.raises(UsageError, match=r"has no captions_train2014.json"):
        opened(write(tmp_path / "none", {"a.jpg": jpeg(1)}))
