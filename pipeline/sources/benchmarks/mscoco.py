"""COCO with its captions in English, Chinese (COCO-CN) and Japanese (STAIR captions), whichever lie in the folder.

    captions_{train,val}{2014,2017}.json            English, from COCO itself
    dataset_coco.json                               Karpathy's splits, and the same captions
    coco-cn_{train,val,test}.txt                    COCO-CN's splits: one image's name per line
    imageid.human-written-caption.txt               COCO-CN, `COCO_train2014_000000000030#0 TEXT` per line
    imageid.manually-translated-caption.txt         the same for its test images, translated by hand
    stair_captions_v1.2_{train,val}.json            Japanese, laid out as COCO's own

Images may lie anywhere below the folder, under their names of 2014 or of 2017: both name the same image by its number.
An item is named as its image was in 2014, or in 2017 where nothing here has the name of 2014. One item has one split:
with COCO-CN's lists, only its images are items, in its splits; else Karpathy's splits count, `restval` being training;
else the file that an image's captions came in. English and Japanese captions are numbered in the order of their files,
COCO-CN's written ones as the file says; those translated by hand come behind, as 10, 11, …
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.sources.benchmarks.files import read_ids, read_karpathy, read_layout, read_lines, refusal, unique
from pipeline.sources.benchmarks.importer import Importer, first_names
from pipeline.sources.items import clean_text

COCO_2014 = {"captions_train2014.json": 82_783, "captions_val2014.json": 40_504}
COCO_2017 = {"captions_train2017.json": 118_287, "captions_val2017.json": 5_000}
STAIR = {"stair_captions_v1.2_train.json": 82_783, "stair_captions_v1.2_val.json": 40_504}
KARPATHY = {"train": 113_287, "val": 5_000, "test": 5_000}
COCO_CN = {"train": (18_342, 18_341), "val": (1_000,), "test": (1_000,)}  # the paper's count, the repository's
WRITTEN, TRANSLATED = "imageid.human-written-caption.txt", "imageid.manually-translated-caption.txt"
FIRST_TRANSLATED = 10
NAME = re.compile(r"((?:COCO_(?:train|val|test)\d{4}_)?(\d{12}))(?:\.jpg)?")

Images = dict[str, tuple[str, str]]  # COCO's number, twelve digits → (name of the image's file, split)


def read_set(importer: Importer) -> None:
    """Add the images of all sets that are there."""
    images: Images = {}
    if not _read_pair(importer, images, COCO_2014, "en"):
        _read_pair(importer, images, COCO_2017, "en")
    if karpathy := importer.files.text("dataset_coco.json"):
        images = _read_karpathy(karpathy, importer)
    _read_pair(importer, images, STAIR, "ja")
    lists = {split: importer.files.text(f"coco-cn_{split}.txt") for split in COCO_CN}
    written = importer.files.text(WRITTEN)
    if written or any(lists.values()):
        images = _read_coco_cn(importer, lists, written)
    if not images:
        listed = ", ".join([*COCO_2014, *COCO_2017, "dataset_coco.json"])
        raise importer.absent(f"{listed} or {WRITTEN}", "Give a folder with at least one of them below it.")
    numbers = {name: number for number, (name, _) in sorted(images.items())}
    names = {
        spelling: name
        for name, number in numbers.items()
        for spelling in (name.removesuffix(".jpg"), number, f"COCO_train2014_{number}", f"COCO_val2014_{number}")
    }
    importer.note("images have no caption", sum(not importer.captions(number) for number in images))
    importer.add_items(
        {name: images[number][1] for name, number in numbers.items()},
        captions=lambda name: importer.captions(numbers[name]),
        media=importer.files.media(names),
    )


def _read_pair(importer: Importer, images: Images, counts: Mapping[str, int], language: str) -> bool:
    """Training and validation files in COCO's layout, if any: where one is there, the other is expected too."""

    def parse(data: Any) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        listed = [(f"{int(row['id']):012}", str(row["file_name"])) for row in data["images"]]
        return listed, [(f"{int(row['image_id']):012}", clean_text(row["caption"])) for row in data["annotations"]]

    paths = {name: importer.files.text(name) for name in counts}
    if not any(paths.values()):
        return False
    for name, path in paths.items():
        expected = "lists `images` (id, file_name) and `annotations` (image_id, caption)"
        listed, captions = read_layout(path, parse, expected) if path else ([], [])
        importer.count(f"images in {name}", len(listed), counts[name])
        unique((number for number, _ in listed), f"{path}, images")
        for number, file in listed:
            before, split = images.get(number, (file, "train" if "train" in name else "val"))
            images[number] = (file if before.startswith(number) else before), split  # the name of 2014, if any
        for number, text in captions:
            importer.add_text(number, language, text)
        if strangers := {number for number, _ in captions} - dict(listed).keys():
            importer.problem(f"{path} has captions of images that it does not list ({first_names(sorted(strangers))}).")
    return True


def _read_karpathy(path: Path, importer: Importer) -> Images:
    """Karpathy's images and splits. His sentences are COCO's, and are used for images that have no English yet."""
    listed = read_karpathy(path, "cocoid")
    for number, _, _, sentences in listed:
        if not importer.texts[number]["en"]:
            for text in sentences:
                importer.add_text(number, "en", text)
    importer.count_splits(f"images in {path.name}", {number: split for number, _, split, _ in listed}, KARPATHY)
    return {number: (name, split) for number, name, split, _ in listed}


def _read_coco_cn(importer: Importer, lists: Mapping[str, Path | None], written: Path | None) -> Images:
    """Only COCO-CN's images, in its splits, and its captions."""
    images: Images = {}
    for split, path in lists.items():
        names = read_ids(path) if path else []
        importer.count(f"images in coco-cn_{split}.txt", len(names), *COCO_CN[split])
        for name in names:
            number, file = _parse_name(name, path)
            if number in images:
                raise refusal(str(path), f"the image {name} a second time", "each image once, in one split")
            images[number] = file, split
    if written is None:
        importer.problem(f"{WRITTEN} is missing: put COCO-CN's captions next to its splits.")
    for path, first in ((written, 0), (importer.files.text(TRANSLATED), FIRST_TRANSLATED)):
        lines = [line.split(maxsplit=1) for line in (read_lines(path) if path else ()) if line.strip()]
        unique((parts[0] for parts in lines), str(path))
        for key, *text in lines:
            name, _, caption = key.partition("#")
            if not caption.isdecimal():
                raise refusal(str(path), f"the id {key!r}", "IMAGE#NUMBER and a caption in each line")
            importer.add_text(_parse_name(name, path)[0], "zh", clean_text("".join(text)), first + int(caption))
    return images


def _parse_name(name: str, path: Path | None) -> tuple[str, str]:
    """COCO's number of an image, and the name of its file."""
    match = NAME.fullmatch(name)
    if not match:
        raise refusal(str(path), f"the image {name!r}", "names such as COCO_train2014_000000000030")
    return match[2], f"{match[1]}.jpg"
