"""Multi30K as its repository lays it out, with the pictures of Flickr30K.

    task1/raw/SPLIT.LANGUAGE.gz           one caption per line; line N of every language is the same picture
    task1/image_splits/SPLIT.txt          its name, in line N
    task2/raw/SPLIT.NUMBER.LANGUAGE.gz    five independent captions per picture, in en and de

Items have the names of their pictures. Task 1's caption is number 0 of its language, so that the number says which
caption a translation belongs to. Task 2's are numbers 1 to 5, or 0 to 4 where task 1 does not have the picture; one
with the same text as another of its picture, as task 2's English has that of task 1, is left out with its number.
`test_2016_flickr` is split `test`, every later test set a split of its own name: an evaluation on `test` is the
published one.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.sources.benchmarks.files import bare, read_lines, unique
from pipeline.sources.benchmarks.importer import Importer

IMAGES = {
    "train": 29_000,
    "val": 1_014,
    "test_2016_flickr": 1_000,
    "test_2017_flickr": 1_000,
    "test_2017_mscoco": 461,
    "test_2018_flickr": 1_071,
}
MAIN = {"train": "train", "val": "val", "test_2016_flickr": "test"}
LANGUAGES = ("en", "de", "fr", "cs")
RAW = (("task1", "raw"), ("task2", "raw"))  # the ends of the folders with texts
TASK2 = {"train": "train", "val": "val", "test_2016_flickr": "test_2016"}  # our name → task 2's name
TASK2_LANGUAGES = ("en", "de")
TASK2_NUMBERS = (1, 2, 3, 4, 5)


def read_set(importer: Importer) -> None:
    """Add the set: the repository, or any folder that holds it, and the pictures."""
    folder = next((path.parents[1] for path, _ in importer.files.folders if path.parts[-2:] in RAW), None)
    if folder is None:
        advice = "Give the repository multi30k/dataset or its data folder, with the pictures of Flickr30K below it."
        raise importer.absent("task1/raw", advice)
    pictures = {split: _read_split(importer, folder, split) for split in IMAGES}
    names = [name for listed in pictures.values() for name in listed]
    unique(names, f"the lists of pictures in {folder}, one after the other")
    media = importer.files.media({bare(name): name for name in names})
    splits: dict[str, str] = {}
    for split, listed in pictures.items():
        if split in MAIN or importer.options.allow_missing_media or any(name in media for name in listed):
            splits |= dict.fromkeys(listed, MAIN.get(split, split))
        else:
            importer.note(f"pictures of {split} are not here: the split is left out", len(listed))
    importer.add_items(splits, media=media)


def _read_split(importer: Importer, folder: Path, split: str) -> list[str]:
    """Read a split's captions. Returns the names of its pictures, none where neither task has it."""
    names = _names(folder / "task1" / "image_splits" / f"{split}.txt")
    for language in LANGUAGES:
        required = split in MAIN and bool(names)  # later test sets are not in every language
        _read_texts(importer, folder / "task1" / "raw" / f"{split}.{language}", split, names, required)
    raw, first = folder / "task2" / "raw", int(bool(names))
    if split in TASK2 and any(raw.glob(f"{TASK2[split]}.*")):
        second = _names(folder / "task2" / "image_splits" / f"{TASK2[split]}_images.txt") or names
        for language in TASK2_LANGUAGES:
            for number in TASK2_NUMBERS:
                path = raw / f"{TASK2[split]}.{number}.{language}"
                _read_texts(importer, path, split, second, True, number - 1 + first)
        names = list(dict.fromkeys((*names, *second)))
    if split in MAIN or names:
        importer.count(f"pictures, {split}", len(names), IMAGES[split])
    return [name for name in dict.fromkeys(names) if name in importer.texts]


def _names(path: Path) -> list[str]:
    """The names of a split's pictures. A name may have a caption's number behind it: `NAME.jpg#12`."""
    lines = [line.strip() for line in _read_packed(path) or ()]
    unique(lines, str(path))
    return [line.partition("#")[0] for line in lines]


def _read_texts(
    importer: Importer, path: Path, split: str, names: Sequence[str], required: bool, number: int | None = None
) -> None:
    """Add the captions of a file, a line each for the pictures `names`."""
    lines = _read_packed(path)
    if lines is None and not required:
        return
    importer.count(f"captions in {path.parts[-3]}/raw/{path.name}", len(lines or ()), IMAGES[split])
    if lines is not None:
        importer.add_lines(path, lines, names, path.suffix[1:], number)


def _read_packed(path: Path) -> list[str] | None:
    """The lines of the file, or of the same file packed; None where there is neither."""
    packed = path.with_name(f"{path.name}.gz")
    return next((read_lines(file) for file in (path, packed) if file.is_file()), None)
