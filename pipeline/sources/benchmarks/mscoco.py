"""COCO with its captions in English, Chinese (COCO-CN) and Japanese (STAIR captions), whichever lie in the folder.

    captions_{train,val}{2014,2017}.json            English, from COCO itself
    dataset_coco.json                               Karpathy's splits, and the same captions
    coco-cn_{train,val,test}.txt                    COCO-CN's splits: an image's name a line
    imageid.human-written-caption.txt               COCO-CN, `COCO_train2014_000000000030#0 TEXT` a line
    imageid.manually-translated-caption.txt         the same for its test images, translated by hand
    stair_captions_v1.2_{train,val}.json            Japanese, laid out as COCO's own

Images may lie anywhere below the folder, under their names of 2014 or of 2017: both name the same image by its number.
An item is named as its image was in 2014, or in 2017 where nothing here says the name of 2014. One item has one split:
with COCO-CN's lists its images alone are the items, in its splits; else Karpathy's count, `restval` being training;
else the file that an image's captions came in. English and Japanese captions are numbered as their files give them,
COCO-CN's written ones too; those translated by hand come behind, as 10, 11, …
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.checks import BenchmarkSource, Checks, Options, read_json, read_lines, unique
from pipeline.sources.benchmarks.files import Files
from pipeline.sources.items import SPLIT_NAMES, SourceCaption, SourceItem, clean_text

KIND = "mscoco"
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
T = TypeVar("T")
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


def open_mscoco(root: Path, options: Options) -> BenchmarkSource:
    """The sets under `root`, see above."""
    files, checks = Files(root), Checks(KIND, options)
    images: Images = {}
    karpathy = files.text("dataset_coco.json")
    _read_coco(files, checks, images)
    if karpathy:
        _read_karpathy(karpathy, checks, images)
    _read_pair(files, checks, images, STAIR, "ja")
    images = _read_coco_cn(files, checks, images)
    if not images:
        raise UsageError(
            f"--source {KIND}: got {root}, which has none of {', '.join([*COCO, 'dataset_coco.json', WRITTEN])}, "
            "wanted one of them at least, anywhere below it"
        )
    items = [_item(number, images[number], files, options) for number in sorted(images)]
    if silent := sum(not item.captions for item in items):
        checks.note(f"{silent:,} images have no caption")
    checks.missing_media([item.item_id for item in items if not item.uri], len(items), str(root))
    checks.unused_media(files.unused_media())
    return BenchmarkSource(KIND, root, items, checks.finish())


def _item(number: int, image: _Image, files: Files, options: Options) -> SourceItem:
    of_2014 = [f"COCO_{part}2014_{number:012}.jpg" for part in ("train", "val")]
    path = files.medium(image.name, f"{number:012}.jpg", *of_2014)
    captions = tuple(SourceCaption(text, language, "human", at) for (language, at), text in image.captions.items())
    license = options.defaults.license
    return SourceItem(image.name, path, image.split, KIND, license, captions, "" if path else "image")


def _read_coco(files: Files, checks: Checks, images: Images) -> None:
    """COCO's own captions. Those of 2017 are those of 2014 in other files: where both are there, 2014 is read."""
    of_year = {year: {name: count for name, count in COCO.items() if year in name} for year in ("2014", "2017")}
    there = [year for year, names in of_year.items() if any(map(files.text, names))]
    for year in there[:1]:
        _read_pair(files, checks, images, of_year[year], "en")
    if there[1:]:
        checks.note("captions of 2017 not read: those of 2014 are here, too")


def _read_pair(files: Files, checks: Checks, images: Images, names: dict[str, int], language: str) -> None:
    """Two files in COCO's layout, training and validation: where one is there, the other is wanted too."""
    paths = {name: files.text(name) for name in names}
    if not any(paths.values()):
        return
    for name, path in paths.items():
        numbers: list[int] = []
        if path:
            numbers = [*_read_captions(path, checks, images, language, "train" if "train" in name else "val")]
        checks.count(f"images in {name}", len(numbers), names[name])


def _read_captions(path: Path, checks: Checks, images: Images, language: str, split: str) -> Iterable[int]:
    """Adds what a file in COCO's layout says; returns the numbers of its images."""

    def rows(data: Any) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
        listed = [(int(row["id"]), str(row["file_name"])) for row in data["images"]]
        return listed, [(int(row["image_id"]), clean_text(row["caption"])) for row in data["annotations"]]

    listed, captions = _shaped(path, rows, "lists `images` (id, file_name) and `annotations` (image_id, caption)")
    unique((str(number) for number, _ in listed), f"{path}, images")
    here = dict(listed)
    for number, name in here.items():
        image = images.setdefault(number, _Image(name, split))
        if image.name.startswith(f"{number:012}"):
            image.name = name  # of 2014, where it is one
    strangers = Counter(number for number, _ in captions if number not in here)
    if strangers:
        checks.wrong(
            f"{path}: got {strangers.total():,} captions of images that it does not list (image_id "
            f"{next(iter(strangers))}, …), wanted each of a listed one: fetch the file again"
        )
    for number, text in captions:
        if text and number in here:
            images[number].add(language, text)
    return here


def _read_karpathy(path: Path, checks: Checks, images: Images) -> None:
    """Karpathy's splits; his sentences are COCO's, and are taken for images that have no English yet."""

    def rows(data: Any) -> list[tuple[int, str, str, list[str]]]:
        return [
            (
                int(row["cocoid"]),
                str(row["filename"]),
                str(row["split"]),
                [text for sentence in row["sentences"] if (text := clean_text(sentence["raw"]))],
            )
            for row in data["images"]
        ]

    read = _shaped(path, rows, "a list `images` (cocoid, filename, split, sentences)")
    unique((str(number) for number, *_ in read), f"{path}, images")
    counts: Counter[str] = Counter()
    for number, name, split, sentences in read:
        split = SPLIT_NAMES.get(split, split)
        counts[split] += 1
        image = images.setdefault(number, _Image(name, split))
        image.name, image.split = name, split
        if not any(language == "en" for language, _ in image.captions):
            for text in sentences:
                image.add("en", text)
    for split, wanted in KARPATHY.items():
        checks.count(f"images in {path.name}, {split}", counts[split], wanted)
    listed = {number for number, *_ in read}
    if others := [number for number in images if number not in listed]:
        checks.note(f"{len(others):,} images that {path.name} does not list are left out")
        for number in others:
            del images[number]


def _read_coco_cn(files: Files, checks: Checks, images: Images) -> Images:
    """COCO-CN's images alone, in its splits and with its captions; all images as they are where it is not there."""
    lists = {split: files.text(f"coco-cn_{split}.txt") for split in COCO_CN}
    written = files.text(WRITTEN)
    if not written and not any(lists.values()):
        return images
    chosen: Images = {}
    names: list[str] = []
    for split, wanted in COCO_CN.items():
        path = lists[split]
        listed = [line.strip() for line in read_lines(path) if line.strip()] if path else []
        checks.count(f"images in coco-cn_{split}.txt", len(listed), *wanted)
        names += listed
        for name in listed:
            number, file_name = _number(name, path)
            known = images.get(number)
            chosen[number] = _Image(file_name, split, known.captions if known else {})
    unique(names, "coco-cn_train.txt, coco-cn_val.txt and coco-cn_test.txt, one after the other")
    if others := len(images.keys() - chosen.keys()):
        checks.note(f"{others:,} images that are not in COCO-CN are left out")
    if written is None:
        checks.wrong(f"{WRITTEN}: got none, wanted COCO-CN's captions beside its splits: put the file there")
    strangers = 0
    for path, first in ((written, 0), (files.text(TRANSLATED), FIRST_TRANSLATED)):
        for number, at, text in _chinese(path) if path else ():
            if number not in chosen:
                strangers += 1
            elif text:
                chosen[number].captions["zh", first + at] = text
    if strangers:
        checks.note(f"{strangers:,} Chinese captions left out, of images that no coco-cn_*.txt lists")
    return chosen


def _chinese(path: Path) -> Iterator[tuple[int, int, str]]:
    """(COCO's number, the caption's number, the caption) of each line. Raises UsageError for an id that comes twice."""
    lines = [(at, line.split(maxsplit=1)) for at, line in enumerate(read_lines(path), start=1) if line.strip()]
    unique((parts[0] for _, parts in lines), str(path))
    for at, (key, *text) in lines:
        name, mark, number = key.partition("#")
        if not mark or not number.isdecimal():
            raise UsageError(f"--input: {path} line {at:,}: got {key!r}, wanted IMAGE#NUMBER and a caption")
        yield _number(name, path)[0], int(number), clean_text(text[0] if text else "")


def _number(name: str, path: Path | None) -> tuple[int, str]:
    """COCO's number of an image, and the name of its file."""
    found = NAME.fullmatch(name.removesuffix(".jpg"))
    if not found:
        raise UsageError(f"--input: {path}: got the image {name!r}, wanted a name such as COCO_train2014_000000000030")
    return int(found[2]), f"{found[0]}.jpg"


def _shaped(path: Path, rows: Callable[[Any], T], wanted: str) -> T:
    """What a JSON file holds, as `rows` takes it apart. Raises UsageError for one of another shape."""
    data = read_json(path)
    try:
        return rows(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"--input: {path}: got another layout ({type(error).__name__}: {error}), wanted {wanted}: fetch the file "
            "as it was published"
        ) from error
