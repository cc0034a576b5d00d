"""XTD: 1,000 pictures of COCO 2014 with a caption in each of eleven languages, only to test on.

    test_image_names.txt             one picture's name per line
    test_1kcaptions_LANGUAGE.txt     its caption, in the same line

The files may lie in any folder below, as its repository has German and French in `MIC` and Japanese, named `jp`, in
`STAIR`, each with a caption in the order of the one list; a file may be there twice if both copies are the same.
Pictures may have their names of 2014 or of 2017. An item is named as its picture was in 2014, as by `--source mscoco`,
and all of them are split `test`. English, German, French and Japanese were written for the pictures, the others
translated from the English by people: all have number 0.
"""

import re
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.importer import Importer, first_names
from pipeline.sources.benchmarks.reading import read_lines, refusal, unique
from pipeline.sources.items import SourceCaption, clean_text

IMAGES = 1_000
NAMES = re.compile(r"test_image_names\.txt(?:\.gz)?")
CAPTIONS = re.compile(r"test_1kcaptions_(\w+)\.txt(?:\.gz)?")
PICTURE = re.compile(r"COCO_(train|val)2014_(\d{12})(?:\.jpg)?")
LANGUAGES = ("en", "de", "fr", "es", "it", "ko", "pl", "ru", "tr", "zh", "ja")
FILE_NAMES = {"jp": "ja"}  # where a file's name has another tag


def read_set(importer: Importer) -> None:
    """Add the set."""
    files = importer.files
    lists = [path for path, _ in files.matching(NAMES)]
    if not lists:
        advice = "Give the folder with the set's repository and its pictures, anywhere below it."
        raise importer.absent("test_image_names.txt", advice)
    pictures = _pictures(lists[0], _same_lines(lists))
    importer.count(f"pictures in {lists[0].name}", len(pictures), IMAGES)
    captions = _captions(importer, lists[0], len(pictures))
    for line, (name, number) in enumerate(pictures.items()):
        texts = {language: lines[line] for language, lines in captions.items() if line < len(lines)}
        written = [SourceCaption(text, language, "human", 0) for language, text in texts.items() if text]
        importer.add(name, "test", written, files.medium(name, f"{number}.jpg"))
    importer.note(
        f"of {len(pictures):,} images are of COCO train2014: do not score a model that was trained on them",
        sum(name.startswith("COCO_train2014") for name in pictures),
    )


def _pictures(path: Path, lines: list[str]) -> dict[str, str]:
    """COCO's number of each picture, twelve digits, by the name of its file."""
    pictures: list[tuple[str, str]] = []
    for at, line in enumerate(lines, start=1):
        match = PICTURE.fullmatch(line.strip())
        if not match:
            expected = "a name such as COCO_train2014_000000000030.jpg"
            raise refusal(f"{path} line {at:,}", f"the name {line!r}", expected)
        pictures.append((f"COCO_{match[1]}2014_{match[2]}.jpg", match[2]))
    unique((number for _, number in pictures), str(path))
    return dict(pictures)


def _captions(importer: Importer, names: Path, pictures: int) -> dict[str, list[str]]:
    """The lines of each language, one per picture, blank ones too."""
    paths: dict[str, list[Path]] = {}
    for path, match in importer.files.matching(CAPTIONS):
        paths.setdefault(FILE_NAMES.get(match[1], match[1]), []).append(path)
    strange = sorted(path.name for language in paths.keys() - set(LANGUAGES) for path in paths[language])
    importer.note(f"files of captions not read, of languages that the set lacks ({first_names(strange)})", len(strange))
    captions: dict[str, list[str]] = {}
    for language in LANGUAGES:
        copies = paths.get(language, [])
        lines = [clean_text(line) for line in _same_lines(copies)] if copies else []
        importer.count(f"captions in {language}", len(lines), IMAGES)
        if copies and len(lines) != pictures:
            importer.problem(
                f"{copies[0]} has {len(lines):,} lines, but {names} has {pictures:,}. Line N of both is the same "
                "picture: fetch both from one release."
            )
        captions[language] = lines
    blank = sum(not line for lines in captions.values() for line in lines)
    importer.note("blank lines, which are not captions", blank)
    return captions


def _same_lines(paths: list[Path]) -> list[str]:
    """The lines of a file that may be there several times. Raises UsageError where two copies differ."""
    lines = read_lines(paths[0])
    for path in paths[1:]:
        if read_lines(path) != lines:
            raise UsageError(
                f"--input: {paths[0]} and {path} differ, and nobody can tell which is meant. Take one of them out of "
                "this folder."
            )
    return lines
