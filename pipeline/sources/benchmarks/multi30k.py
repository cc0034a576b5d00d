"""Multi30K as its repository lays it out, with the pictures of Flickr30K beside it.

    task1/raw/SPLIT.LANGUAGE.gz           one caption a line; line N of every language is the same picture
    task1/image_splits/SPLIT.txt          its name, in line N
    task2/raw/SPLIT.NUMBER.LANGUAGE.gz    five independent captions a picture, in en and de

Items are named as their pictures are. Task 1's caption is number 0 of its language, so that the number says what is
whose translation. Task 2's are numbers 1 to 5, or 0 to 4 where task 1 does not have the picture; one that says what is
there already, as task 2's English does of task 1's caption, is left out, and its number with it. `test_2016_flickr` is
split `test`, every later test set a split of its own name: an evaluation on `test` is the published one.
"""

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.checks import BenchmarkSource, Checks, Options, read_lines, unique
from pipeline.sources.benchmarks.files import Files
from pipeline.sources.items import SourceCaption, SourceItem, clean_text

KIND = "multi30k"
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


def open_multi30k(root: Path, options: Options) -> BenchmarkSource:
    """The set under `root`: the repository, its data folder, or a folder that has either beside the pictures."""
    folder, files, checks = _text_folder(root), Files(root), Checks(KIND, options)
    reader = _Reader(folder, checks)
    items: list[SourceItem] = []
    missing: list[str] = []
    for split in IMAGES:
        texts = reader.split(split)
        paths = {name: files.medium(name) for name in texts}
        if split not in MAIN and texts and not any(paths.values()) and not options.allow_missing_media:
            checks.note(f"{split} left out: none of its {len(texts):,} pictures is here")
            continue
        missing += [name for name, path in paths.items() if not path]
        items += [
            SourceItem(
                name,
                path,
                MAIN.get(split, split),
                KIND,
                options.defaults.license,
                tuple(_captions(texts[name])),
                "" if path else "image",
            )
            for name, path in paths.items()
        ]
    unique([item.item_id for item in items], f"the lists of pictures in {folder}, one after the other")
    if reader.doubled:
        checks.note(f"{reader.doubled:,} captions left out that say what another one of their picture says")
    if reader.blank:
        checks.note(f"{reader.blank:,} blank lines, which are no captions")
    checks.missing_media(missing, len(items), str(root))
    checks.unused_media(files.unused_media())
    return BenchmarkSource(KIND, root, items, checks.finish())


def _text_folder(root: Path) -> Path:
    """The folder that holds `task1` and `task2`: `root`, or one or two levels below it."""
    below = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    for folder in (root, root / "data", *below, *(path / "data" for path in below)):
        if (folder / "task1" / "raw").is_dir() or (folder / "task2" / "raw").is_dir():
            return folder
    raise UsageError(
        f"--source {KIND}: got {root}, which has no task1/raw, wanted the repository multi30k/dataset or its data "
        "folder, with the pictures of Flickr30K anywhere below it"
    )


def _captions(texts: dict[str, dict[int, str]]) -> Iterator[SourceCaption]:
    for language in LANGUAGES:
        for number, text in sorted(texts.get(language, {}).items()):
            yield SourceCaption(text, language, "human", number)


class _Reader:
    """Reads split by split what the two tasks have of it. Counts what it leaves out."""

    def __init__(self, folder: Path, checks: Checks):
        self._folder, self._checks = folder, checks
        self.doubled = self.blank = 0

    def split(self, split: str) -> Texts:
        """The captions of a split's pictures, in the order of its list; empty where neither task has it."""
        texts: Texts = {}
        first = self._names("task1", [f"{split}.txt"])
        if first:
            self._checks.count(f"pictures, {split}", len(first), IMAGES[split])
        self._task1(split, first, texts)
        if split in TASK2 and (self._folder / "task2" / "raw").is_dir():
            own = f"{TASK2[split]}_images.txt", f"{TASK2[split]}.txt", f"{split}.txt"
            self._task2(split, self._names("task2", own) or first, texts)
        if split in MAIN and not texts:
            self._checks.count(f"pictures, {split}", 0, IMAGES[split])
        return texts

    def _names(self, task: str, names: tuple[str, ...] | list[str]) -> list[str]:
        """The names of a split's pictures. A list may give the caption behind it: `NAME.jpg#12`."""
        for name in names:
            if path := _packed(self._folder / task / "image_splits" / name):
                lines = [line.strip() for line in read_lines(path)]
                unique(lines, str(path))
                return [line.partition("#")[0] for line in lines]
        return []

    def _task1(self, split: str, names: list[str], texts: Texts) -> None:
        for language in LANGUAGES:
            path = _packed(self._folder / "task1" / "raw" / f"{split}.{language}")
            if path is None:
                if split in MAIN and names:  # later test sets are not in every language
                    self._checks.count(f"captions in {language}, {split}", 0, IMAGES[split])
                continue
            lines = self._lines(path, f"captions in {language}, {split}", IMAGES[split], names)
            seen: dict[str, int] = {}
            for name, text in zip(names, lines, strict=False):
                number = seen[name] = seen.get(name, -1) + 1  # one picture of test_2017_mscoco may come with several
                self._add(texts, name, language, number, text)

    def _task2(self, split: str, names: list[str], texts: Texts) -> None:
        start = 1 if texts else 0
        raw = self._folder / "task2" / "raw"
        if not any(raw.glob(f"{TASK2[split]}.*")):
            self._checks.note(f"task 2 has no {split} here")
            return
        for language in TASK2_LANGUAGES:
            for number in TASK2_NUMBERS:
                what = f"captions in {language}, {split}, task 2 number {number}"
                path = _packed(raw / f"{TASK2[split]}.{number}.{language}")
                if path is None:
                    self._checks.count(what, 0, IMAGES[split])
                    continue
                lines = self._lines(path, what, IMAGES[split], names)
                for name, text in zip(names, lines, strict=False):
                    self._add(texts, name, language, number - 1 + start, text)

    def _lines(self, path: Path, what: str, wanted: int, names: list[str]) -> list[str]:
        lines = read_lines(path)
        self._checks.count(what, len(lines), wanted)
        if len(lines) != len(names):
            self._checks.wrong(
                f"{path}: got {len(lines):,} lines, wanted {len(names):,}, as the list of its pictures has: line N of "
                "both is the same picture; fetch both from one release"
            )
        return lines

    def _add(self, texts: Texts, name: str, language: str, number: int, text: str) -> None:
        text = clean_text(text)
        of_language = texts.setdefault(name, {}).setdefault(language, {})
        if not text:
            self.blank += 1
        elif text in of_language.values():
            self.doubled += 1
        else:
            of_language[number] = text


def _packed(path: Path) -> Path | None:
    """The file, or the same packed; None where there is neither."""
    return next((found for found in (path, path.with_name(f"{path.name}.gz")) if found.is_file()), None)
