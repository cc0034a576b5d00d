"""VATEX as its owners publish it: three JSON files, and I3D features or clips.

    vatex_training_v1.0.json, vatex_validation_v1.0.json, vatex_public_test_english_v1.1.json
                                     [{"videoID": …, "enCap": [ten texts], "chCap": [ten texts]}, …]
    {train,trn,val,test,tst}_{list,id,ids,names}.{txt,npy}      optional: the split of HGR that papers report on
    VIDEOID.npy, a BigFile, or VIDEOID.mp4, in any folder

Lists for val and test halve the validation videos; the public test is then split `public_test`. Without them,
validation is `val` and the public test `test`. The Chinese captions of training videos are human texts in the target
language, on which the protocol forbids to train: items to train on have only English, the others what they were
published with. Caption J of a language is number J of its list.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.files import Files
from pipeline.sources.benchmarks.importer import Importer, first_names
from pipeline.sources.benchmarks.reading import (
    join_lists,
    read_ids,
    read_layout,
    refusal,
    splits_of,
    text_in,
    texts_in,
    unique,
)
from pipeline.sources.items import SourceCaption

PARTS = {"training": 25_991, "validation": 3_000, "public_test": 6_000}  # videos
HALF = 1_500  # videos of val and of test, by the lists
CAPTIONS = 10  # per video and language
LANGUAGES = {"enCap": "en", "chCap": "zh"}
SPLITS = ("train", "val", "test", "public_test")
TEXTS = re.compile(r"vatex_(training|validation|public_test)[\w.-]*\.json(?:\.gz)?")
LISTS = re.compile(r"(train|trn|val|test|tst)_(?:list|ids?|names)\.(?:txt|npy)")
LISTED = {"train": "train", "trn": "train", "val": "val", "test": "test", "tst": "test"}

Video = dict[str, list[str]]  # the captions by language
Parts = dict[str, dict[str, Video]]  # part → video


def read_set(importer: Importer) -> None:
    """Add the set. Its public test may be missing."""
    parts = _read_parts(importer.files)
    if not parts:
        raise importer.absent("vatex_training_v1.0.json", "Give the set's folder.")
    for part, published in PARTS.items():
        if part in parts or part != "public_test":
            importer.count(f"videos of {part}", len(parts.get(part, ())), published)
    splits = _splits(parts, importer)
    videos = {video: texts for part in parts.values() for video, texts in part.items()}
    importer.add_videos(splits, lambda video: _captions(videos[video], splits[video]))
    _check_captions(parts, importer)
    forbidden = sum(len(videos[video].get("zh", ())) for video, split in splits.items() if split == "train")
    importer.note("human captions in zh of items that are trained on: not used", forbidden)


def _captions(texts: Video, split: str) -> Iterator[SourceCaption]:
    for language in ("en",) if split == "train" else LANGUAGES.values():
        for number, text in enumerate(texts.get(language, ())):
            if text:
                yield SourceCaption(text, language, "human", number)


def _read_parts(files: Files) -> Parts:
    """The videos of each part. Files of one part with one language each are put together."""

    def parse(data: Any) -> list[tuple[str, Video]]:
        if not isinstance(data, list):
            raise TypeError("not a list")
        return [
            (
                text_in(row["videoID"]),
                {language: texts_in(row[key]) for key, language in LANGUAGES.items() if row.get(key) is not None},
            )
            for row in data
        ]

    unordered: Parts = {}
    for path, match in files.matching(TEXTS):
        part = unordered.setdefault(match[1], {})
        rows = read_layout(path, parse, 'a list of videos, {"videoID": …, "enCap": […], "chCap": […]}')
        unique([video for video, _ in rows], str(path))
        for video, texts in rows:
            captions = part.setdefault(video, {})
            if repeated := captions.keys() & texts.keys():
                raise refusal(path, f"captions in {min(repeated)} of {video} that another file has too", "them once")
            captions.update(texts)
    parts = {part: unordered[part] for part in PARTS if part in unordered}
    splits_of(parts.items(), files.root)  # refuses a video in two parts
    return parts


def _splits(parts: Parts, importer: Importer) -> dict[str, str]:
    """The split of each video, in the order of SPLITS and of the files."""
    lists = join_lists((LISTED[match[1]], path, _read_list(path)) for path, match in importer.files.matching(LISTS))
    halved = "val" in lists and "test" in lists
    if ("val" in lists) != ("test" in lists):
        present, absent = ("val", "test") if "val" in lists else ("test", "val")
        importer.problem(f"lists: there is one for {present} but none for {absent}. Add it, or take the other away.")
    listed = splits_of(lists.items(), importer.root)
    usual = {"training": "train", "validation": "val", "public_test": "test"}
    if halved:
        usual |= {"validation": "", "public_test": "public_test"}
    splits: dict[str, str] = {}
    unlisted: list[str] = []
    for part, captioned in parts.items():
        for video in captioned:
            split = listed.pop(video, usual[part]) if halved else usual[part]
            if split in ("train", "val", "test") and (split == "train") != (part == "training"):
                raise UsageError(
                    f"--input: {importer.root} has {video} of {part} in the list of {split}. Mend the list."
                )
            if split:
                splits[video] = split
            else:
                unlisted.append(video)
    if halved:
        importer.count_splits("videos", splits, {"val": HALF, "test": HALF})
        importer.count(f"videos of validation in no list ({first_names(unlisted)})", len(unlisted), 0)
        importer.count(f"videos in lists that have no captions ({first_names(listed)})", len(listed), 0)
    return dict(sorted(splits.items(), key=lambda pair: SPLITS.index(pair[1])))


def _read_list(path: Path) -> list[str]:
    """The videos of a list. HGR names files: a folder before, a suffix behind."""
    names = _read_array(path) if path.suffix == ".npy" else read_ids(path)
    return [name.rpartition("/")[2].removesuffix(".mp4").removesuffix(".npy") for name in names]


def _read_array(path: Path) -> list[str]:
    """An array of strings; one of objects would have to be unpickled, and is refused."""
    expected = "an array of texts, or a .txt file"
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise refusal(path, f"an array that cannot be read as it is ({error})", expected) from error
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise refusal(path, f"an array of {array.dtype} with {array.ndim} dimensions", expected)
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in array.tolist()]


def _check_captions(parts: Parts, importer: Importer) -> None:
    for part, videos in parts.items():
        for language in LANGUAGES.values():
            if part == "public_test" and language != "en" and not any(language in texts for texts in videos.values()):
                importer.note(f"{part} has no captions in {language}")
                continue
            captions = sum(len(texts.get(language, ())) for texts in videos.values())
            importer.count(f"captions in {language} of {part}", captions, CAPTIONS * len(videos))
    texts = [text for part in parts.values() for video in part.values() for own in video.values() for text in own]
    importer.note("captions are blank: not used", sum(not text for text in texts))
