"""VATEX as its owners publish it: three JSON files, and I3D features or clips.

    vatex_training_v1.0.json, vatex_validation_v1.0.json, vatex_public_test_english_v1.1.json
                                     [{"videoID": …, "enCap": [ten texts], "chCap": [ten texts]}, …]
    {train,trn,val,test,tst}_{list,id,ids,names}.txt            optional: the split of HGR that papers report on
    VIDEOID.npy, a BigFile, or VIDEOID.mp4, in any folder

Lists for val and test halve the validation videos; the public test is then split `public_test`. Without them,
validation is `val` and the public test `test`. The Chinese captions of training videos are human texts in the target
language, on which the protocol forbids to train: items to train on have only English, the others what they were
published with. Caption J of a language is number J of its list.
"""

import re
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.files import read_ids, read_layout, refusal, splits_of, unique
from pipeline.sources.benchmarks.importer import Importer, first_names
from pipeline.sources.items import clean_text

PARTS = {"training": 25_991, "validation": 3_000, "public_test": 6_000}  # videos
HALF = 1_500  # videos of val and of test, by the lists
CAPTIONS = 10  # per video and language
LANGUAGES = {"enCap": "en", "chCap": "zh"}
SPLITS = ("train", "val", "test", "public_test")
TEXTS = re.compile(r"vatex_(training|validation|public_test)[\w.-]*\.json(?:\.gz)?")
LISTS = re.compile(r"(train|trn|val|test|tst)_(?:list|ids?|names)\.txt")
LISTED = {"train": "train", "trn": "train", "val": "val", "test": "test", "tst": "test"}

Video = dict[str, list[str]]  # the captions by language
Parts = dict[str, dict[str, Video]]  # part → video


def read_set(importer: Importer) -> None:
    """Add the set. Its public test may be missing, or lack Chinese."""
    parts = _read_parts(importer)
    for part, published in PARTS.items():
        videos = parts.get(part, {})
        if videos or part != "public_test":
            importer.count(f"videos of {part}", len(videos), published)
        for language in LANGUAGES.values():
            captions = sum(len(texts.get(language, ())) for texts in videos.values())
            if captions or part != "public_test":
                importer.count(f"captions in {language} of {part}", captions, CAPTIONS * len(videos))
    splits = _splits(parts, importer)
    everything = {video: texts for part in parts.values() for video, texts in part.items()}
    forbidden = 0
    for video, split in splits.items():
        for language in LANGUAGES.values():
            texts = everything[video].get(language, [])
            if split == "train" and language != "en":
                forbidden += len(texts)
                continue
            for number, text in enumerate(texts):
                importer.add_text(video, language, text, number)
    importer.note("human captions in zh of items that are trained on: not used", forbidden)
    importer.add_items(splits, "video")


def _read_parts(importer: Importer) -> Parts:
    """The videos of each part. Files of one part with one language each are put together."""

    def parse(data: Any) -> list[tuple[str, Video]]:
        tags = LANGUAGES.items()
        texts = [{tag: list(map(clean_text, row[key])) for key, tag in tags if row.get(key)} for row in data]
        return [(str(row["videoID"]), captions) for row, captions in zip(data, texts, strict=True)]

    parts: Parts = {part: {} for part in PARTS}
    for path, match in importer.files.matching(TEXTS):
        rows = read_layout(path, parse, 'a list of videos, {"videoID": …, "enCap": […], "chCap": […]}')
        unique([video for video, _ in rows], str(path))
        for video, texts in rows:
            captions = parts[match[1]].setdefault(video, {})
            if repeated := captions.keys() & texts.keys():
                content = f"captions in {min(repeated)} of {video} that another file has too"
                raise refusal(path, content, "them once")
            captions.update(texts)
    if not any(parts.values()):
        raise importer.absent("vatex_training_v1.0.json", "Give the set's folder.")
    splits_of(parts.items(), importer.root)  # refuses a video in two parts
    return parts


def _splits(parts: Parts, importer: Importer) -> dict[str, str]:
    """The split of each video, in the order of SPLITS and of the files."""
    lists = [(LISTED[match[1]], _read_list(path)) for path, match in importer.files.matching(LISTS)]
    halves = {"val", "test"} & {split for split, _ in lists}
    if len(halves) == 1:
        importer.problem("lists: there is one for val or test, but not for both. Add the other, or take both away.")
    listed = splits_of(lists, importer.root)
    usual = {"training": "train", "validation": "val", "public_test": "test"}
    halved = len(halves) == 2
    if halved:
        usual |= {"validation": "", "public_test": "public_test"}
    splits: dict[str, str] = {}
    for part, captioned in parts.items():
        for video in captioned:
            splits[video] = listed.pop(video, usual[part]) if halved else usual[part]
            if splits[video] and (splits[video] == "train") != (part == "training"):
                raise UsageError(
                    f"--input: {importer.root} has {video} of {part} in the list of {splits[video]}. Correct it."
                )
    unlisted = [video for video, split in splits.items() if not split]
    if halved:
        importer.count_splits("videos", splits, {"val": HALF, "test": HALF})
        importer.count(f"videos of validation in no list ({first_names(unlisted)})", len(unlisted), 0)
        importer.count(f"videos in lists that have no captions ({first_names(listed)})", len(listed), 0)
    ordered = sorted(splits.items(), key=lambda pair: SPLITS.index(pair[1] or "train"))
    return {video: split for video, split in ordered if split}


def _read_list(path: Path) -> list[str]:
    """The videos of a list. HGR names files: a folder before, a suffix behind."""
    return [name.rpartition("/")[2].removesuffix(".mp4").removesuffix(".npy") for name in read_ids(path)]
