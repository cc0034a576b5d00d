"""VATEX as its owners publish it: three JSON files, and I3D features or clips.

    vatex_training_v1.0.json, vatex_validation_v1.0.json, vatex_public_test_english_v1.1.json
                                     [{"videoID": …, "enCap": [ten texts], "chCap": [ten texts]}, …]
    {train,trn,val,test,tst}_{list,id,ids,names}.{txt,npy}      optional: the split of HGR that the field reports on
    VIDEOID.npy, a BigFile, or VIDEOID.mp4, in any folder

With lists for val and test, which halve the validation videos, these decide; the public test is then split
`public_test`. Without, validation is `val` and the public test `test`. The Chinese captions of training videos are
human texts in the target language, on which the protocol forbids to train: items to train on have English alone, the
others what they were published with. Caption J of a language is number J of its list.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.media.images import VIDEO_SUFFIXES
from pipeline.sources.benchmarks.checks import BenchmarkSource, Checks, Options, read_json, read_lines, unique
from pipeline.sources.benchmarks.locating import files_like, find_media, shown
from pipeline.sources.items import SourceCaption, SourceItem, clean_text

KIND = "vatex"
PARTS = {"training": 25_991, "validation": 3_000, "public_test": 6_000}  # videos
HALF = 1_500  # videos of val and of test, by the lists
CAPTIONS = 10  # a video and language
LANGUAGES = {"enCap": "en", "chCap": "zh"}
TEXTS = re.compile(r"vatex_(training|validation|public_test)[\w.-]*\.json(?:\.gz)?")
LISTS = re.compile(r"(train|trn|val|test|tst)_(?:list|ids?|names)\.(?:txt|npy)")
LISTED = {"train": "train", "trn": "train", "val": "val", "test": "test", "tst": "test"}

Video = dict[str, list[str]]  # by language its captions


def open_vatex(root: Path, options: Options) -> BenchmarkSource:
    """The set below `root`. Its public test may be left out."""
    checks = Checks(KIND, options)
    parts = _parts(root)
    if not parts:
        raise UsageError(f"--source {KIND}: got {root}, wanted vatex_training_v1.0.json in it: give the set's folder")
    for part, count in PARTS.items():
        if part in parts or part != "public_test":
            checks.count(f"videos of {part}", len(parts.get(part, ())), count)
    splits = _splits(root, parts, checks)
    media = find_media(root, {video: video for video in splits}, "video", suffixes=VIDEO_SUFFIXES)
    captions = {video: texts for part in parts.values() for video, texts in part.items()}
    items = [
        SourceItem(
            video,
            media.uris.get(video, ""),
            split,
            KIND,
            options.defaults.license,
            tuple(_captions(captions[video], split)),
            "video",
        )
        for video, split in splits.items()
    ]
    _check_captions(parts, checks)
    forbidden = sum(len(captions[video].get("zh", ())) for video, split in splits.items() if split == "train")
    if forbidden:
        checks.note(f"{forbidden:,} human captions in zh of items that are trained on: not used")
    checks.missing_media([video for video in splits if video not in media.uris], len(splits), str(root))
    checks.unused_media(media.unused)
    return BenchmarkSource(KIND, root, items, checks.finish())


def _captions(texts: Video, split: str) -> Iterator[SourceCaption]:
    for language in ("en",) if split == "train" else LANGUAGES.values():
        for number, text in enumerate(texts.get(language, ())):
            if text:
                yield SourceCaption(text, language, "human", number)


def _parts(root: Path) -> dict[str, dict[str, Video]]:
    """By part, in the order of PARTS, its videos. Files of one part with a language each are put together."""
    found: dict[str, dict[str, Video]] = {}
    for path, match in files_like(root, TEXTS):
        part = found.setdefault(match[1], {})
        rows = read_json(path)
        if not isinstance(rows, list):
            raise _bad(path, f"{type(rows).__name__}", "a list of videos")
        read = [_video(path, number, row) for number, row in enumerate(rows, start=1)]
        unique([video for video, _ in read], str(path))
        for video, texts in read:
            known = part.setdefault(video, {})
            doubled = known.keys() & texts.keys()
            if doubled:
                raise _bad(path, f"captions in {min(doubled)} of {video} that another file has too", "one file of them")
            known.update(texts)
    parts = {part: found[part] for part in PARTS if part in found}
    places: dict[str, str] = {}
    for name, videos in parts.items():
        for video in videos:
            if places.setdefault(video, name) != name:
                raise UsageError(
                    f"--input: {root}: got {video} in {places[video]} and in {name}, wanted it in one of them: fetch "
                    "the set again"
                )
    return parts


def _video(path: Path, number: int, row: Any) -> tuple[str, Video]:
    video = row.get("videoID") if isinstance(row, dict) else None
    if not isinstance(video, str) or not video:
        raise _bad(path, f"no videoID in video {number:,}", '{"videoID": …, "enCap": […], "chCap": […]}')
    texts: Video = {}
    for key, language in LANGUAGES.items():
        given = row.get(key)
        if given is None:
            continue
        if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
            raise _bad(path, f"{key} of {video} that is no list of texts", "a list of texts")
        texts[language] = [clean_text(text) for text in given]
    return video, texts


def _splits(root: Path, parts: dict[str, dict[str, Video]], checks: Checks) -> dict[str, str]:
    """By video its split: train, val, test, public_test; in the order of the files."""
    lists = _lists(root)
    halved = "val" in lists and "test" in lists
    if ("val" in lists) != ("test" in lists):
        there, wanted = ("val", "test") if "val" in lists else ("test", "val")
        checks.wrong(f"lists: got one for {there} and none for {wanted}, wanted both or none: add or take away one")
    listed: dict[str, str] = {}
    for split, videos in lists.items():
        for video in videos:
            if listed.setdefault(video, split) != split:
                raise UsageError(
                    f"--input: {root}: got {video} in the lists of {listed[video]} and {split}, wanted one"
                )
    usual = {"training": "train", "validation": "" if halved else "val", "public_test": "test"}
    if halved:
        usual["public_test"] = "public_test"
    splits: dict[str, str] = {}
    unlisted: list[str] = []
    for part, captioned in parts.items():
        allowed = {"train"} if part == "training" else {"val", "test"}
        for video in captioned:
            split = listed.get(video, usual[part]) if halved else usual[part]
            if split in ("train", "val", "test") and split not in allowed:
                raise UsageError(f"--input: {root}: got {video} of {part} in the list of {split}, wanted another list")
            if split:
                splits[video] = split
            else:
                unlisted.append(video)
    if halved:
        for split in ("val", "test"):
            checks.count(f"videos of {split}, by its list", sum(its == split for its in splits.values()), HALF)
        checks.count(f"videos of validation in no list ({shown(unlisted)})", len(unlisted), 0)
    strangers = [video for video in listed if not any(video in videos for videos in parts.values())]
    checks.count(f"videos in lists that have no captions ({shown(strangers)})", len(strangers), 0)
    order = ("train", "val", "test", "public_test")
    return dict(sorted(splits.items(), key=lambda pair: order.index(pair[1])))


def _lists(root: Path) -> dict[str, list[str]]:
    """By split its list of videos. Raises UsageError for two of one split that differ."""
    lists: dict[str, list[str]] = {}
    for path, match in files_like(root, LISTS):
        names = _names_in(path) if path.suffix == ".npy" else [line.strip() for line in read_lines(path)]
        # HGR names files: a folder before, a suffix behind.
        videos = [name.rpartition("/")[2].removesuffix(".mp4").removesuffix(".npy") for name in names if name]
        unique(videos, str(path))
        split = LISTED[match[1]]
        if set(lists.setdefault(split, videos)) != set(videos):
            raise _bad(path, f"a second list for {split} that differs from the first", "one: take the other away")
    return lists


def _names_in(path: Path) -> list[str]:
    """An array of strings; one of objects would have to be unpickled, and is refused."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _bad(
            path, f"an array that cannot be read as it is ({error})", "an array of texts, or a .txt file"
        ) from error
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise _bad(path, f"an array of {array.dtype} with {array.ndim} dimensions", "an array of texts, or a .txt file")
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in array.tolist()]


def _check_captions(parts: dict[str, dict[str, Video]], checks: Checks) -> None:
    for part, videos in parts.items():
        for language in LANGUAGES.values():
            if part == "public_test" and language != "en" and not any(language in texts for texts in videos.values()):
                checks.note(f"{part} has no captions in {language}")
                continue
            captions = sum(len(texts.get(language, ())) for texts in videos.values())
            checks.count(f"captions in {language} of {part}", captions, CAPTIONS * len(videos))
    blank = sum(
        not text for part in parts.values() for texts in part.values() for its in texts.values() for text in its
    )
    if blank:
        checks.note(f"{blank:,} captions are blank: not used")


def _bad(path: Path, got: str, wanted: str) -> UsageError:
    return UsageError(f"--input: {path}: got {got}, wanted {wanted}: fetch the file again")
