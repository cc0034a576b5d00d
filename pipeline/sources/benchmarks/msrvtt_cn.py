"""MSR-VTT with the Chinese captions of MSR-VTT-CN, and features or clips.

    *videodatainfo*.json, MSRVTT_data.json    {"videos": [{video_id, split}], "sentences": [{video_id, caption}]}
    NAME.caption.txt                          see `caption_files`: English, Chinese (`zh`), translations (`enc2zh`)
    msrvtt*cn*.json, also zh or chinese       Chinese: {"sentences": …} as above, or {VIDEO: [texts]}
    train_list_jsfusion.txt, val_list_jsfusion.txt; or MSRVTT_train.9k.csv, MSRVTT_JSFUSION_test.csv (optional)
    VIDEO.npy, a BigFile, or VIDEO.mp4, in any folder

The split is that of the videos (6,513, 497 and 2,990), or where JSFusion's two lists are there, theirs: 9,000 to train
on and 1,000 of split `test`, which that work called its val. Items to train on have English captions and machine
translations, never human Chinese: the protocol forbids to train on it. The sentences of a video are numbered in the
order in which its file has them.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.media.images import VIDEO_SUFFIXES
from pipeline.sources.benchmarks.caption_files import SUFFIX, Captions, Line, lines_of
from pipeline.sources.benchmarks.checks import BenchmarkSource, Checks, Options, read_json, read_lines, unique
from pipeline.sources.benchmarks.leccr_release import finish
from pipeline.sources.benchmarks.locating import files_like, find_media, shown
from pipeline.sources.items import split_named

KIND = "msrvtt_cn"
COUNTS = {"train": 6_513, "val": 497, "test": 2_990}  # videos
JSFUSION = {"train": 9_000, "test": 1_000}
ENGLISH = 20  # sentences a video
ORDER = ("train", "val", "test")
INFO = re.compile(r"[\w.-]*videodatainfo[\w.-]*\.json|MSRVTT_data\.json")
CHINESE = re.compile(r"msr-?vtt(?!.*videodatainfo).*(?:cn|zh|chinese).*\.json", re.IGNORECASE)
LISTS = re.compile(r"(train|val)_list_jsfusion\.txt|MSRVTT_(train\.9k|JSFUSION_test)\.csv")
LISTED = {"train": "train", "train.9k": "train", "val": "test", "JSFUSION_test": "test"}


def open_msrvtt_cn(root: Path, options: Options) -> BenchmarkSource:
    """The set below `root`."""
    checks = Checks(KIND, options)
    infos = [path for path, _ in files_like(root, INFO)]
    if not infos:
        raise UsageError(f"--source {KIND}: got {root}, wanted a videodatainfo JSON file in it: give the set's folder")
    of_videos, sentences = _videos(infos)
    splits = _splits(root, of_videos, checks)
    captions = Captions(splits, checks)
    lines = [line for path, _ in files_like(root, re.compile(rf"[^.].*{re.escape(SUFFIX)}")) for line in lines_of(path)]
    lines += [line for path, _ in files_like(root, CHINESE) for line in _chinese(path)]
    given = {line.item for line in lines if (line.language, line.origin) == ("en", "human")}
    for line in [*lines, *(line for line in sentences if line.item not in given)]:
        if line.item in splits or line.item not in of_videos:  # else JSFusion's lists left the video out
            captions.add(line)
    _check_translated(lines, splits, given)
    captions.check()
    if not given:
        checks.count("sentences in English", len(sentences), ENGLISH * len(of_videos))
    for split in ("val", "test"):
        videos = [video for video, its in splits.items() if its == split]
        chinese = sum(any(key[0] == "zh" for key in captions.texts.get(video, ())) for video in videos)
        if videos:
            checks.count(f"videos of {split} with a Chinese caption", chinese, len(videos))
    media = find_media(root, {video: video for video in splits}, "video", suffixes=VIDEO_SUFFIXES)
    media.types = dict.fromkeys(splits, "video")
    return finish(KIND, root, options, checks, captions, media, {})


def _videos(paths: list[Path]) -> tuple[dict[str, str], list[Line]]:
    """By video its split, and the English sentences, numbered by video in the order of the files."""
    splits: dict[str, str] = {}
    places: dict[str, Path] = {}
    sentences: list[Line] = []
    for path in paths:
        info = read_json(path)
        videos = info.get("videos") if isinstance(info, dict) else None
        if not isinstance(videos, list):
            raise _bad(path, "no list of videos", '{"videos": […], "sentences": […]}')
        for row in videos:
            video = row.get("video_id") if isinstance(row, dict) else None
            split = split_named(str(row.get("split", "")), "") if isinstance(row, dict) else ""
            split = {"validate": "val"}.get(split, split)
            if not isinstance(video, str) or split not in ORDER:
                raise _bad(path, f"the video {str(row)[:80]}", "a video_id, and a split train, validate or test")
            if video in places:
                raise _bad(path, f"{video}, which {places[video].name} has too", "each video once: keep one file")
            places[video], splits[video] = path, split
        sentences += _sentences(path, info.get("sentences", []), "en")
    strangers = [line for line in sentences if line.item not in splits]
    if strangers:
        raise UsageError(
            f"--input: {strangers[0].place}: got a sentence of {strangers[0].item}, which is in no list of videos "
            f"({len(strangers):,} such sentences), wanted videos that are there: fetch the file again"
        )
    return splits, sentences


def _sentences(path: Path, rows: Any, language: str) -> Iterator[Line]:
    if not isinstance(rows, list):
        raise _bad(path, "sentences that are no list", "a list")
    numbers: dict[str, int] = {}
    for place, row in enumerate(rows, start=1):
        video, text = (row.get("video_id"), row.get("caption")) if isinstance(row, dict) else (None, None)
        if not isinstance(video, str) or not isinstance(text, str):
            raise _bad(path, f"the sentence {str(row)[:80]}", "a video_id and a caption")
        number = numbers[video] = numbers.get(video, -1) + 1
        yield Line(video, language, "human", number, " ".join(text.split()), False, f"{path} sentence {place:,}")


def _chinese(path: Path) -> Iterator[Line]:
    found = read_json(path)
    if isinstance(found, dict) and "sentences" in found:
        yield from _sentences(path, found["sentences"], "zh")
    elif isinstance(found, dict) and all(isinstance(texts, list) for texts in found.values()):
        rows = [{"video_id": video, "caption": text} for video, texts in found.items() for text in texts]
        yield from _sentences(path, rows, "zh")
    else:
        raise _bad(path, f"{type(found).__name__}", '{"sentences": […]}, or {"video0": ["…"]}')


def _splits(root: Path, of_videos: dict[str, str], checks: Checks) -> dict[str, str]:
    """By video its split, train, val, test, in the files' order."""
    lists: dict[str, list[str]] = {}
    for path, match in files_like(root, LISTS):
        videos = _column(path) if path.suffix == ".csv" else [line.strip() for line in read_lines(path) if line.strip()]
        unique(videos, str(path))
        split = LISTED[match[1] or match[2]]
        if set(lists.setdefault(split, videos)) != set(videos):
            raise _bad(path, f"a second list for {split} that differs from the first", "one: take the other away")
    if not lists:
        counts, splits = COUNTS, of_videos
    else:
        if len(lists) == 1:
            checks.wrong(f"JSFusion's lists: got the one for {next(iter(lists))} alone, wanted both: add or drop one")
        counts = JSFUSION
        splits = {video: split for split, videos in lists.items() for video in videos}
        both = [video for video in lists.get("test", ()) if video in set(lists.get("train", ()))]
        if both:
            raise UsageError(f"--input: {root}: got {both[0]} in both of JSFusion's lists, wanted it in one: mend them")
        strangers = [video for video in splits if video not in of_videos]
        if strangers:
            raise UsageError(f"--input: {root}: got {shown(strangers)} in lists, wanted videos of the videodatainfo")
        left = len(of_videos) - len(splits)
        checks.note("the split is that of JSFusion's lists" + (f", {left:,} videos are in neither" if left else ""))
    for split, count in counts.items():
        checks.count(f"videos of {split}", sum(its == split for its in splits.values()), count)
    return dict(sorted(splits.items(), key=lambda pair: ORDER.index(pair[1])))


def _column(path: Path) -> list[str]:
    reader = csv.DictReader(read_lines(path))
    if "video_id" not in (reader.fieldnames or ()):
        raise _bad(path, f"columns {', '.join(reader.fieldnames or ()) or 'none'}", "one called video_id")
    return list(dict.fromkeys(row["video_id"].strip() for row in reader))  # the 9k file has a row a sentence


def _check_translated(lines: list[Line], splits: dict[str, str], given: set[str]) -> None:
    """Raises UsageError for translations whose English is in the JSON file alone."""
    lost = [
        line for line in lines if line.origin == "mt" and splits.get(line.item) == "train" and line.item not in given
    ]
    if lost:
        raise UsageError(
            f"--input: {lost[0].place}: got a translation of caption {lost[0].number} of {lost[0].item}, and English "
            "only in the videodatainfo, whose sentences have no such numbers, wanted the English .caption.txt of the "
            f"same release beside it ({len(lost):,} such translations): add it, or take the translations away"
        )


def _bad(path: Path, got: str, wanted: str) -> UsageError:
    return UsageError(f"--input: {path}: got {got}, wanted {wanted}: fetch the file again")
