"""MSR-VTT with the Chinese captions of MSR-VTT-CN, and features or clips.

    *videodatainfo*.json, MSRVTT_data.json    {"videos": [{video_id, split}], "sentences": [{video_id, caption}]}
    NAME.caption.txt                          see `caption_files`: English, Chinese (`zh`), translations (`enc2zh`)
    msrvtt*cn*.json, also zh or chinese       Chinese: {"sentences": …} as above, or {VIDEO: [texts]}
    train_list_jsfusion.txt, val_list_jsfusion.txt; or MSRVTT_train.9k.csv, MSRVTT_JSFUSION_test.csv (optional)
    VIDEO.npy, a BigFile, or VIDEO.mp4, in any folder

The split is that of the videos (6,513, 497 and 2,990), or that of JSFusion's two lists where they are there: 9,000 to
train on and 1,000 of split `test`, which that work called its val. Items to train on have English captions and machine
translations, never human Chinese: the protocol forbids to train on it. The sentences of a video are numbered in the
order of their file.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.caption_files import SUFFIX, Captions, Line, read_captions
from pipeline.sources.benchmarks.importer import Importer, first_names
from pipeline.sources.benchmarks.reading import (
    join_lists,
    read_ids,
    read_layout,
    read_lines,
    refusal,
    splits_of,
    text_in,
    texts_in,
)
from pipeline.sources.items import split_named

COUNTS = {"train": 6_513, "val": 497, "test": 2_990}  # videos
JSFUSION = {"train": 9_000, "test": 1_000}
ENGLISH = 20  # sentences per video
SPLITS = ("train", "val", "test")
INFO = re.compile(r"[\w.-]*videodatainfo[\w.-]*\.json|MSRVTT_data\.json")
CAPTIONS = re.compile(rf"[^.].*{re.escape(SUFFIX)}")
CHINESE = re.compile(r"msr-?vtt(?!.*videodatainfo).*(?:cn|zh|chinese).*\.json", re.IGNORECASE)
LISTS = re.compile(r"(train|val)_list_jsfusion\.txt|MSRVTT_(train\.9k|JSFUSION_test)\.csv")
LISTED = {"train": "train", "train.9k": "train", "val": "test", "JSFUSION_test": "test"}

Sentences = list[tuple[str, str]]  # video, text


def read_set(importer: Importer) -> None:
    """Add the set."""
    files = importer.files
    videos, sentences = _read_videos(importer)
    splits = _splits(videos, importer)
    lines = [line for path, _ in files.matching(CAPTIONS) for line in read_captions(path)]
    lines += [line for path, _ in files.matching(CHINESE) for line in _read_chinese(path)]
    in_english = {line.item for line in lines if (line.language, line.origin) == ("en", "human")}
    _refuse_orphans(lines, splits, in_english)
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
    importer.add_videos(splits, captions.of)


def _read_videos(importer: Importer) -> tuple[dict[str, str], list[Line]]:
    """The split of each video, and the English sentences in the order of the files."""

    def parse(data: Any) -> tuple[list[tuple[str, str]], Sentences]:
        videos = []
        for row in data["videos"]:
            split = split_named(row["split"], "")
            split = {"validate": "val"}.get(split, split)
            if split not in SPLITS:
                raise ValueError(f"the split {row['split']!r}")
            videos.append((text_in(row["video_id"]), split))
        return videos, _parse_sentences(data.get("sentences", []))

    splits: dict[str, str] = {}
    lines: list[Line] = []
    paths = [path for path, _ in importer.files.matching(INFO)]
    if not paths:
        raise importer.absent("videodatainfo JSON file", "Give the set's folder.")
    for path in paths:
        expected = "`videos` (video_id, split: train, validate or test) and `sentences` (video_id, caption)"
        videos, sentences = read_layout(path, parse, expected)
        for video, split in videos:
            if video in splits:
                raise refusal(path, f"{video} a second time", "each video once, in one file")
            splits[video] = split
        lines += _number(path, sentences, "en")
    strangers = [line for line in lines if line.item not in splits]
    if strangers:
        raise UsageError(
            f"--input: {strangers[0].place} is of {strangers[0].item}, which is in no list of videos "
            f"({len(strangers):,} such sentences). Fetch the file again."
        )
    return splits, lines


def _read_chinese(path: Path) -> Iterator[Line]:
    def parse(data: Any) -> Sentences:
        if "sentences" in data:
            return _parse_sentences(data["sentences"])
        return [(video, text) for video, texts in data.items() for text in texts_in(texts)]

    yield from _number(path, read_layout(path, parse, '{"sentences": […]}, or {"video0": ["…"]}'), "zh")


def _parse_sentences(rows: Any) -> Sentences:
    if not isinstance(rows, list):
        raise TypeError("`sentences` is not a list")
    return [(text_in(row["video_id"]), text_in(row["caption"])) for row in rows]


def _number(path: Path, sentences: Sentences, language: str) -> Iterator[Line]:
    """Sentences numbered by video."""
    numbers: dict[str, int] = {}
    for place, (video, text) in enumerate(sentences, start=1):
        numbers[video] = numbers.get(video, -1) + 1
        text = " ".join(text.split())
        yield Line(video, language, "human", numbers[video], text, False, f"{path} sentence {place:,}")


def _splits(videos: dict[str, str], importer: Importer) -> dict[str, str]:
    """The split of each video, in the order of SPLITS and of the files."""
    lists = join_lists(
        (LISTED[match[1] or match[2]], path, _read_list(path)) for path, match in importer.files.matching(LISTS)
    )
    if len(lists) == 1:
        importer.problem(f"JSFusion's lists: there is only the one for {next(iter(lists))}. Add or drop one.")
    counts, splits = COUNTS, videos
    if lists:
        counts, splits = JSFUSION, splits_of(lists.items(), importer.root)
        if strangers := splits.keys() - videos.keys():
            raise UsageError(
                f"--input: {importer.root} has {first_names(sorted(strangers))} in its lists, but not in the "
                "videodatainfo. Fetch both from one release."
            )
        importer.note("the split is that of JSFusion's lists")
        importer.note("videos are in neither of JSFusion's lists", len(videos) - len(splits))
    importer.count_splits("videos", splits, counts)
    return dict(sorted(splits.items(), key=lambda pair: SPLITS.index(pair[1])))


def _read_list(path: Path) -> list[str]:
    """The videos of a list. In a CSV file each counts once: the 9k file has a row for each sentence."""
    if path.suffix != ".csv":
        return read_ids(path)
    reader = csv.DictReader(read_lines(path))
    if "video_id" not in (reader.fieldnames or ()):
        raise refusal(path, f"columns {', '.join(reader.fieldnames or ()) or 'none'}", "one called video_id")
    return list(dict.fromkeys(row["video_id"].strip() for row in reader))


def _refuse_orphans(lines: list[Line], splits: dict[str, str], in_english: set[str]) -> None:
    """Raises UsageError for translations whose English is only in the JSON file, whose sentences have other numbers."""
    orphans = [
        line
        for line in lines
        if line.origin == "mt" and splits.get(line.item) == "train" and line.item not in in_english
    ]
    if orphans:
        raise UsageError(
            f"--input: {orphans[0].place} translates caption {orphans[0].number} of {orphans[0].item} "
            f"({len(orphans):,} such translations), but English is only in the videodatainfo, whose sentences have no "
            "such numbers. Add the English .caption.txt of the same release, or take the translations away."
        )
