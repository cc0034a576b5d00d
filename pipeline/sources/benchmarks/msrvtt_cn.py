"""MSR-VTT with the Chinese captions of MSR-VTT-CN, and features or clips.

    *videodatainfo*.json, MSRVTT_data.json    {"videos": [{video_id, split}], "sentences": [{video_id, caption}]}
    NAME.caption.txt                          see `caption_files`: English, Chinese (`zh`), translations (`enc2zh`)
    train_list_jsfusion.txt, val_list_jsfusion.txt; or MSRVTT_train.9k.csv, MSRVTT_JSFUSION_test.csv (optional)
    VIDEO.npy, a BigFile, or VIDEO.mp4, in any folder

The split is that of the videos (6,513, 497 and 2,990), or that of JSFusion's two lists where they are there: 9,000 to
train on and 1,000 of split `test`, which that work called its val. Items to train on have English captions and machine
translations, never human Chinese: the protocol forbids to train on it. The sentences of a video are numbered in the
order of their file.
"""

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.caption_files import SUFFIX, Captions, Line, read_captions
from pipeline.sources.benchmarks.files import read_ids, read_layout, read_lines, refusal, splits_of, unique
from pipeline.sources.benchmarks.importer import Importer
from pipeline.sources.items import clean_text

COUNTS = {"train": 6_513, "val": 497, "test": 2_990}  # videos
JSFUSION = {"train": 9_000, "test": 1_000}
ENGLISH = 20  # sentences per video
SPLITS = {"train": "train", "validate": "val", "val": "val", "test": "test"}
INFO = re.compile(r"[\w.-]*videodatainfo[\w.-]*\.json|MSRVTT_data\.json")
CAPTIONS = re.compile(rf"[^.].*{re.escape(SUFFIX)}")
LISTS = re.compile(r"(train|val)_list_jsfusion\.txt|MSRVTT_(train\.9k|JSFUSION_test)\.csv")
LISTED = {"train": "train", "train.9k": "train", "val": "test", "JSFUSION_test": "test"}

Texts = list[tuple[str, str]]  # (video, its split or a sentence)


def read_set(importer: Importer) -> None:
    """Add the set."""
    files = importer.files
    videos, sentences = _read_videos(importer)
    splits = _splits(videos, importer)
    lines = [line for path, _ in files.matching(CAPTIONS) for line in read_captions(path)]
    in_english = {line.item for line in lines if (line.language, line.origin) == ("en", "human")}
    for line in lines:
        if line.origin == "mt" and splits.get(line.item) == "train" and line.item not in in_english:
            raise UsageError(
                f"--input: {line.place} translates caption {line.number} of {line.item}, but English is only in the "
                "videodatainfo, whose sentences have no such numbers. Add the English .caption.txt of the same "
                "release, or take the translations away."
            )
    captions = Captions(splits, importer)
    for line in [*lines, *(line for line in sentences if line.item not in in_english)]:
        if line.item in splits or line.item not in videos:  # else JSFusion's lists left the video out
            captions.add(line)
    captions.check()
    if not in_english:
        importer.count("sentences in English", len(sentences), ENGLISH * len(videos))
    for split in ("val", "test"):
        held_out = [video for video, own in splits.items() if own == split]
        chinese = sum(any(key[0] == "zh" for key in captions.lines.get(video, ())) for video in held_out)
        importer.count(f"videos of {split} with a Chinese caption", chinese, len(held_out))
    importer.add_items(splits, "video", captions.of)


def _read_videos(importer: Importer) -> tuple[dict[str, str], list[Line]]:
    """The split of each video, and the English sentences in the order of the files."""

    def parse(data: Any) -> tuple[Texts, Texts]:
        sentences = [(str(row["video_id"]), " ".join(clean_text(row["caption"]).split())) for row in data["sentences"]]
        return [(str(row["video_id"]), SPLITS[row["split"]]) for row in data["videos"]], sentences

    videos: Texts = []
    lines: list[Line] = []
    numbers = Counter[str]()
    for path, _ in importer.files.matching(INFO):
        expected = "`videos` (video_id, split: train, validate or test) and `sentences` (video_id, caption)"
        own, sentences = read_layout(path, parse, expected)
        videos += own
        for at, (video, text) in enumerate(sentences, start=1):
            lines.append(Line(video, "en", "human", numbers[video], text, False, f"{path} sentence {at:,}"))
            numbers[video] += 1
    if not videos:
        raise importer.absent("videodatainfo JSON file", "Give the set's folder.")
    unique((video for video, _ in videos), f"the videos of the videodatainfo below {importer.root}")
    splits = dict(videos)
    if strangers := [line for line in lines if line.item not in splits]:
        raise UsageError(f"--input: {strangers[0].place} is of {strangers[0].item}, which is in no list of videos.")
    return splits, lines


def _splits(videos: dict[str, str], importer: Importer) -> dict[str, str]:
    """The split of each video: train, val, test, each in the order of the files."""
    files = importer.files.matching(LISTS)
    lists = [(LISTED[match[1] or match[2]], _read_list(path)) for path, match in files]
    listed = {split for split, _ in lists}
    if len(listed) == 1:
        importer.problem(f"JSFusion's lists: there is only the one for {listed.pop()}. Add or drop one.")
    counts, splits = COUNTS, videos
    if lists:
        counts, splits = JSFUSION, splits_of(lists, importer.root)
        importer.note("videos are in neither of JSFusion's lists", len(videos) - len(splits))
    importer.count_splits("videos", splits, counts)
    return dict(sorted(splits.items(), key=lambda pair: list(COUNTS).index(pair[1])))


def _read_list(path: Path) -> list[str]:
    """The videos of a list. In a CSV file each counts once: the 9k file has a row for each sentence."""
    if path.suffix != ".csv":
        return read_ids(path)
    reader = csv.DictReader(read_lines(path))
    if "video_id" not in (reader.fieldnames or ()):
        raise refusal(path, f"columns {', '.join(reader.fieldnames or ()) or 'none'}", "one called video_id")
    return list(dict.fromkeys(row["video_id"].strip() for row in reader))
