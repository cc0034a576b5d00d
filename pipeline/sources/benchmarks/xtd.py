"""XTD: 1,000 pictures of COCO 2014 with a caption in each of eleven languages, to test on alone.

    test_image_names.txt             a picture's name a line
    test_1kcaptions_LANGUAGE.txt     its caption, in the same line

The files may lie in any folder below, as its repository has German and French in `MIC` and Japanese, named `jp`, in
`STAIR`, each with a caption in the order of the one list; a file that is there twice is read where both say the same.
Pictures may have their names of 2014 or of 2017. An item is named as its picture was in 2014, as by `--source mscoco`,
and all of them are split `test`. English, German, French and Japanese were written for the pictures, the others
translated from the English by people: all have number 0.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.checks import BenchmarkSource, Checks, Options, read_lines, unique
from pipeline.sources.benchmarks.files import Files
from pipeline.sources.benchmarks.locating import files_like, shown
from pipeline.sources.items import SourceCaption, SourceItem, clean_text

KIND = "xtd"
IMAGES = 1_000
NAMES = "test_image_names.txt"
LANGUAGES = {  # by the names that the files have
    "en": "en",
    "de": "de",
    "fr": "fr",
    "es": "es",
    "it": "it",
    "ko": "ko",
    "pl": "pl",
    "ru": "ru",
    "tr": "tr",
    "zh": "zh",
    "jp": "ja",
}
CAPTIONS = re.compile(r"test_1kcaptions_(\w+)\.txt(?:\.gz)?")
NAME = re.compile(r"COCO_(train|val)2014_(\d{12})(?:\.jpg)?")


def open_xtd(root: Path, options: Options) -> BenchmarkSource:
    """The set under `root`, see above."""
    files, checks = Files(root), Checks(KIND, options)
    lists = [path for path, _ in files_like(root, re.compile(re.escape(NAMES) + r"(?:\.gz)?"))]
    if not lists:
        raise UsageError(
            f"--source {KIND}: got {root}, which has no {NAMES}, wanted the set's repository and its pictures, "
            "anywhere below it"
        )
    names, path = _same(lists), lists[0]
    numbers = _numbers(path, names)
    checks.count(f"pictures in {NAMES}", len(names), IMAGES)
    captions = _captions(root, path, len(names), checks)
    items = []
    for line, (name, number) in enumerate(numbers.items()):
        uri = files.medium(name, f"{number}.jpg")
        said = tuple(
            SourceCaption(texts[line], language, "human", 0)
            for language, texts in captions.items()
            if line < len(texts) and texts[line]
        )
        items.append(SourceItem(name, uri, "test", KIND, options.defaults.license, said, "" if uri else "image"))
    if trained := sum(name.startswith("COCO_train2014") for name in numbers):
        checks.note(
            f"{trained:,} of {len(items):,} images are of COCO train2014: do not score a model that was trained on them"
        )
    checks.missing_media([item.item_id for item in items if not item.uri], len(items), str(root))
    checks.unused_media(files.unused_media())
    return BenchmarkSource(KIND, root, items, checks.finish())


def _numbers(path: Path, names: list[str]) -> Mapping[str, str]:
    """COCO's number of each picture, as its twelve digits, by the name of its file. Raises UsageError for no name."""
    numbers: list[tuple[str, str]] = []
    for at, line in enumerate(names, start=1):
        found = NAME.fullmatch(line.strip())
        if not found:
            raise UsageError(
                f"--input: {path} line {at:,}: got {line!r}, wanted a name such as COCO_train2014_000000000030.jpg: "
                "fetch the file as it was published"
            )
        numbers.append((f"COCO_{found[1]}2014_{found[2]}.jpg", found[2]))
    unique((number for _, number in numbers), str(path))
    return dict(numbers)


def _captions(root: Path, names: Path, wanted: int, checks: Checks) -> dict[str, list[str]]:
    """The captions of each language, a line a picture, in the order of LANGUAGES; blank ones are told of."""
    paths: dict[str, list[Path]] = {}
    strange: list[str] = []
    for path, found in files_like(root, CAPTIONS):
        if found[1] in LANGUAGES or found[1] in LANGUAGES.values():
            paths.setdefault(LANGUAGES.get(found[1], found[1]), []).append(path)
        else:
            strange.append(path.name)
    if strange:
        checks.note(f"{len(strange):,} files of captions not read, as the set has no such language ({shown(strange)})")
    captions: dict[str, list[str]] = {}
    for language in LANGUAGES.values():
        here = paths.get(language, [])
        lines = [clean_text(line) for line in _same(here)] if here else []
        checks.count(f"captions in {language}", len(lines), IMAGES)
        if here and len(lines) != wanted:
            checks.wrong(
                f"{here[0]}: got {len(lines):,} lines, wanted {wanted:,}, as {names} has: line N of both is the same "
                "picture; fetch both from one release"
            )
        captions[language] = lines
    if blank := sum(not line for lines in captions.values() for line in lines):
        checks.note(f"{blank:,} blank lines, which are no captions")
    return captions


def _same(paths: list[Path]) -> list[str]:
    """The lines of a file that may be there several times. Raises UsageError where two of them differ."""
    lines = read_lines(paths[0])
    for path in paths[1:]:
        if read_lines(path) != lines:
            raise UsageError(
                f"--input: got {paths[0]} and {path}, which differ, wanted one of them, so that it is known which is "
                "meant: take the other out of this folder"
            )
    return lines
