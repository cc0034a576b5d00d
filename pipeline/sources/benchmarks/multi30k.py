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

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.sources.benchmarks.importer import Importer
from pipeline.sources.benchmarks.reading import read_lines, unique
from pipeline.sources.items import SourceCaption, clean_text

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
TASK2 = {"train": "train", "val": "val", "test_2016_flickr": "test_2016"}  # as task 2 names them
TASK2_LANGUAGES = ("en", "de")
TASK2_NUMBERS = (1, 2, 3, 4, 5)

Texts = dict[str, dict[str, dict[int, str]]]  # picture → language → number → caption


def read_set(importer: Importer) -> None:
    """Add the set: the repository, its data folder, or a folder that has either of them and the pictures."""
    folder = _text_folder(importer)
    reader = _Reader(folder, importer)
    for split in IMAGES:
        texts = reader.split(split)
        paths = {name: importer.files.medium(name) for name in texts}
        if split not in MAIN and texts and not any(paths.values()) and not importer.options.allow_missing_media:
            importer.note(f"{split} left out: none of its {len(texts):,} pictures is here")
            continue
        for name, path in paths.items():
            importer.add(name, MAIN.get(split, split), _captions(texts[name]), path)
    unique([item.item_id for item in importer.items], f"the lists of pictures in {folder}, one after the other")
    importer.note("captions left out that repeat another one of their picture", reader.repeated)
    importer.note("blank lines, which are not captions", reader.blank)


def _text_folder(importer: Importer) -> Path:
    """The folder that holds `task1` and `task2`: the root, or one or two levels below it."""
    root = importer.root
    below = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    for folder in (root, root / "data", *below, *(path / "data" for path in below)):
        if (folder / "task1" / "raw").is_dir() or (folder / "task2" / "raw").is_dir():
            return folder
    advice = "Give the repository multi30k/dataset or its data folder, with the pictures of Flickr30K below it."
    raise importer.absent("task1/raw", advice)


def _captions(texts: dict[str, dict[int, str]]) -> Iterator[SourceCaption]:
    for language in LANGUAGES:
        for number, text in sorted(texts.get(language, {}).items()):
            yield SourceCaption(text, language, "human", number)


class _Reader:
    """Reads the texts of both tasks split by split. Counts what it leaves out."""

    def __init__(self, folder: Path, importer: Importer):
        self._folder, self._importer = folder, importer
        self.repeated = self.blank = 0

    def split(self, split: str) -> Texts:
        """The captions of a split's pictures, in the order of its list; empty where neither task has it."""
        texts: Texts = {}
        names = self._names("task1", [f"{split}.txt"])
        if names:
            self._importer.count(f"pictures, {split}", len(names), IMAGES[split])
        self._task1(split, names, texts)
        if split in TASK2 and (self._folder / "task2" / "raw").is_dir():
            lists = [f"{TASK2[split]}_images.txt", f"{TASK2[split]}.txt", f"{split}.txt"]
            self._task2(split, self._names("task2", lists) or names, texts)
        if split in MAIN and not texts:
            self._importer.count(f"pictures, {split}", 0, IMAGES[split])
        return texts

    def _names(self, task: str, lists: Sequence[str]) -> list[str]:
        """The names of a split's pictures, from the first list there is.

        A name may have a caption's number behind it: `NAME.jpg#12`.
        """
        for name in lists:
            if path := _packed(self._folder / task / "image_splits" / name):
                lines = [line.strip() for line in read_lines(path)]
                unique(lines, str(path))
                return [line.partition("#")[0] for line in lines]
        return []

    def _task1(self, split: str, names: list[str], texts: Texts) -> None:
        for language in LANGUAGES:
            what = f"captions in {language}, {split}"
            path = _packed(self._folder / "task1" / "raw" / f"{split}.{language}")
            if path is None:
                if split in MAIN and names:  # later test sets are not in every language
                    self._importer.count(what, 0, IMAGES[split])
                continue
            numbers: dict[str, int] = {}
            for name, text in zip(names, self._lines(path, what, split, names), strict=False):
                numbers[name] = numbers.get(name, -1) + 1  # a picture of test_2017_mscoco may be there several times
                self._add(texts, name, language, numbers[name], text)

    def _task2(self, split: str, names: list[str], texts: Texts) -> None:
        start, raw = (1 if texts else 0), self._folder / "task2" / "raw"
        if not any(raw.glob(f"{TASK2[split]}.*")):
            self._importer.note(f"task 2 has no {split} here")
            return
        for language in TASK2_LANGUAGES:
            for number in TASK2_NUMBERS:
                what = f"captions in {language}, {split}, task 2 number {number}"
                path = _packed(raw / f"{TASK2[split]}.{number}.{language}")
                if path is None:
                    self._importer.count(what, 0, IMAGES[split])
                    continue
                for name, text in zip(names, self._lines(path, what, split, names), strict=False):
                    self._add(texts, name, language, number - 1 + start, text)

    def _lines(self, path: Path, what: str, split: str, names: list[str]) -> list[str]:
        lines = read_lines(path)
        self._importer.count(what, len(lines), IMAGES[split])
        if len(lines) != len(names):
            self._importer.problem(
                f"{path} has {len(lines):,} lines, but the list of its pictures has {len(names):,}. Line N of both is "
                "the same picture: fetch both from one release."
            )
        return lines

    def _add(self, texts: Texts, name: str, language: str, number: int, text: str) -> None:
        text = clean_text(text)
        captions = texts.setdefault(name, {}).setdefault(language, {})
        if not text:
            self.blank += 1
        elif text in captions.values():
            self.repeated += 1
        else:
            captions[number] = text


def _packed(path: Path) -> Path | None:
    """The file or the same file packed; None where there is neither."""
    return next((file for file in (path, path.with_name(f"{path.name}.gz")) if file.is_file()), None)
