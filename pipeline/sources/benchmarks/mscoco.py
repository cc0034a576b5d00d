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
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.sources.benchmarks.importer import Importer
from pipeline.sources.benchmarks.reading import read_ids, read_layout, read_lines, refusal, unique
from pipeline.sources.items import SPLIT_NAMES, SourceCaption, clean_text

COCO = {
    "captions_train2014.json": 82_783,
    "captions_val2014.json": 40_504,
    "captions_train2017.json": 118_287,
    "captions_val2017.json": 5_000,
}
STAIR = {"stair_captions_v1.2_train.json": 82_783, "stair_captions_v1.2_val.json": 40_504}
KARPATHY = {"train": 113_287, "val": 5_000, "test": 5_000}
COCO_CN = {"train": (18_342, 18_341), "val": (1_000,), "test": (1_000,)}  # the paper's count, the repository's
WRITTEN, TRANSLATED = "imageid.human-written-caption.txt", "imageid.manually-translated-caption.txt"
FIRST_TRANSLATED = 10
NAME = re.compile(r"(COCO_(?:train|val|test)\d{4}_)?(\d{12})")


@dataclass
class _Image:
    """What the files say of one image. `name` is a file's name; `captions` by (language, number)."""

    name: str
    split: str
    captions: dict[tuple[str, int], str] = field(default_factory=dict)

    def add(self, language: str, text: str) -> None:
        """The next caption of a language whose files give no numbers."""
        self.captions[language, sum(of == language for of, _ in self.captions)] = text


Images = dict[int, _Image]  # by COCO's number


def read_set(importer: Importer) -> None:
    """Add the images of all sets that are there."""
    files = importer.files
    images: Images = {}
    _read_coco(importer, images)
    karpathy = files.text("dataset_coco.json")
    if karpathy:
        _read_karpathy(karpathy, importer, images)
    _read_pair(importer, images, STAIR, "ja")
    images = _read_coco_cn(importer, images)
    if not images:
        listed = ", ".join([*COCO, "dataset_coco.json"])
        raise importer.absent(f"{listed} or {WRITTEN}", "Give a folder with at least one of them below it.")
    for number, image in sorted(images.items()):
        of_2014 = [f"COCO_{part}2014_{number:012}.jpg" for part in ("train", "val")]
        captions = [SourceCaption(text, language, "human", at) for (language, at), text in image.captions.items()]
        importer.add(image.name, image.split, captions, files.medium(image.name, f"{number:012}.jpg", *of_2014))
    importer.note("images have no caption", sum(not item.captions for item in importer.items))


def _read_coco(importer: Importer, images: Images) -> None:
    """COCO's own captions. 2017 has those of 2014 in other files: where both are there, 2014 is read."""
    of_year = {year: {name: count for name, count in COCO.items() if year in name} for year in ("2014", "2017")}
    years = [year for year, names in of_year.items() if any(map(importer.files.text, names))]
    if years:
        _read_pair(importer, images, of_year[years[0]], "en")
    if years[1:]:
        importer.note("captions of 2017 not read: those of 2014 are here, too")


def _read_pair(importer: Importer, images: Images, names: dict[str, int], language: str) -> None:
    """Two files in COCO's layout, training and validation: where one is there, the other is expected too."""
    paths = {name: importer.files.text(name) for name in names}
    if any(paths.values()):
        for name, path in paths.items():
            split = "train" if "train" in name else "val"
            count = _read_captions(path, importer, images, language, split) if path else 0
            importer.count(f"images in {name}", count, names[name])


def _read_captions(path: Path, importer: Importer, images: Images, language: str, split: str) -> int:
    """Add the captions of a file in COCO's layout. Returns the number of its images."""

    def parse(data: Any) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
        listed = [(int(row["id"]), str(row["file_name"])) for row in data["images"]]
        return listed, [(int(row["image_id"]), clean_text(row["caption"])) for row in data["annotations"]]

    expected = "lists `images` (id, file_name) and `annotations` (image_id, caption)"
    listed, captions = read_layout(path, parse, expected)
    unique((str(number) for number, _ in listed), f"{path}, images")
    names = dict(listed)
    for number, name in names.items():
        image = images.setdefault(number, _Image(name, split))
        if image.name.startswith(f"{number:012}"):
            image.name = name  # of 2014, where it has one
    strangers = Counter(number for number, _ in captions if number not in names)
    if strangers:
        importer.problem(
            f"{path} has {strangers.total():,} captions of images that it does not list (image_id "
            f"{next(iter(strangers))}, …). Fetch the file again."
        )
    for number, text in captions:
        if text and number in names:
            images[number].add(language, text)
    return len(names)


def _read_karpathy(path: Path, importer: Importer, images: Images) -> None:
    """Karpathy's splits. His sentences are COCO's, and are used for images that have no English yet."""

    def parse(data: Any) -> list[tuple[int, str, str, list[str]]]:
        return [
            (
                int(row["cocoid"]),
                str(row["filename"]),
                SPLIT_NAMES.get(row["split"], row["split"]),
                [text for sentence in row["sentences"] if (text := clean_text(sentence["raw"]))],
            )
            for row in data["images"]
        ]

    listed = read_layout(path, parse, "a list `images` (cocoid, filename, split, sentences)")
    unique((str(number) for number, *_ in listed), f"{path}, images")
    for number, name, split, sentences in listed:
        image = images.setdefault(number, _Image(name, split))
        image.name, image.split = name, split
        if not any(language == "en" for language, _ in image.captions):
            for text in sentences:
                image.add("en", text)
    importer.count_splits(f"images in {path.name}", {name: split for _, name, split, _ in listed}, KARPATHY)
    others = images.keys() - {number for number, *_ in listed}
    importer.note(f"images that {path.name} does not list are left out", len(others))
    for number in others:
        del images[number]


def _read_coco_cn(importer: Importer, images: Images) -> Images:
    """Only COCO-CN's images, in its splits and with its captions; all images as they are where it is not there."""
    files = importer.files
    lists = {split: files.text(f"coco-cn_{split}.txt") for split in COCO_CN}
    written = files.text(WRITTEN)
    if not written and not any(lists.values()):
        return images
    chosen: Images = {}
    names: list[str] = []
    for split, path in lists.items():
        listed = read_ids(path) if path else []
        importer.count(f"images in coco-cn_{split}.txt", len(listed), *COCO_CN[split])
        names += listed
        for name in listed:
            number, file_name = _parse_name(name, path)
            captions = images[number].captions if number in images else {}
            chosen[number] = _Image(file_name, split, captions)
    unique(names, "coco-cn_train.txt, coco-cn_val.txt and coco-cn_test.txt, one after the other")
    importer.note("images that are not in COCO-CN are left out", len(images.keys() - chosen.keys()))
    if written is None:
        importer.problem(f"{WRITTEN} is missing: put COCO-CN's captions next to its splits.")
    strangers = 0
    for path, first in ((written, 0), (files.text(TRANSLATED), FIRST_TRANSLATED)):
        for number, at, text in _read_chinese(path) if path else ():
            if number not in chosen:
                strangers += 1
            elif text:
                chosen[number].captions["zh", first + at] = text
    importer.note("Chinese captions left out, of images that no coco-cn_*.txt lists", strangers)
    return chosen


def _read_chinese(path: Path) -> Iterator[tuple[int, int, str]]:
    """(COCO's number, the caption's number, the caption) of each line."""
    lines = [(at, line.split(maxsplit=1)) for at, line in enumerate(read_lines(path), start=1) if line.strip()]
    unique((parts[0] for _, parts in lines), str(path))
    for at, (key, *text) in lines:
        name, mark, number = key.partition("#")
        if not mark or not number.isdecimal():
            raise refusal(f"{path} line {at:,}", f"the id {key!r}", "IMAGE#NUMBER and a caption")
        yield _parse_name(name, path)[0], int(number), clean_text(text[0] if text else "")


def _parse_name(name: str, path: Path | None) -> tuple[int, str]:
    """COCO's number of an image, and the name of its file."""
    match = NAME.fullmatch(name.removesuffix(".jpg"))
    if not match:
        raise refusal(str(path), f"the image {name!r}", "names such as COCO_train2014_000000000030")
    return int(match[2]), f"{match[0]}.jpg"
