"""The layout in which NRCCR's data came and LECCR's code reads it, of any of the four sets.

    TextData/NAME.caption.txt                 see `caption_files`, with its rules for what is used and what is not
    {FeatureData,img_id,video_id,.}/SPLIT_id.txt        item ids, one a line; MSCOCO's also as LANGUAGE_SPLIT_id.txt
    {img_id,.}/image_ids.txt                  MSCOCO: `ID FILE` a line
    FeatureData/NAME/                         a BigFile, or ITEM.npy
    ANY/                                      ITEM.jpg, ITEM.mp4, or FILE
    ANY/ITEM.txt                              a description by a model; of MSCOCO FILE.txt; ITEM.npy has vectors

An item is in the split of the id list that names it, whatever the files of its captions are called. `test_id.txt` and
`test_id_2016.txt` are split `test`; another ending, as in `test_id_2017.txt`, is a split of its own. Lists of one
split in several folders have to agree; lists of several languages are put together. Item ids are without .jpg and .mp4.
Descriptions are captions of origin `mllm`, one a folder, by the folders' names. Refused, for nobody could tell which is
meant: an item in two splits, two media for an item, two texts for a caption.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.bigfile import bare
from pipeline.sources.benchmarks.caption_files import SUFFIX, Captions
from pipeline.sources.benchmarks.checks import BenchmarkSource, Checks, Options, read_lines, read_text, unique
from pipeline.sources.benchmarks.files import folders_below
from pipeline.sources.benchmarks.locating import ARRAY, Media, find_media, shown
from pipeline.sources.items import SourceCaption, SourceItem, clean_text

KIND = "leccr_release"
LIST = re.compile(r"(?:(?P<language>de|fr|cs|zh|ja)_)?(?P<split>train|val|test)_id(?:_(?P<more>\w+))?\.txt")
LIST_FOLDERS = ("FeatureData", "img_id", "video_id", ".")
PLACES = ("img_id", "FeatureData", "TextData", ".")
# Items by split, of the sets whose names begin so.
COUNTS = {
    "multi30k": {"train": 29_000, "val": 1_014, "test": 1_000},
    "flickr30k": {"train": 29_000, "val": 1_014, "test": 1_000},
    "vatex": {"train": 25_991, "val": 1_500, "test": 1_500},
    "msrvtt": {"train": 6_513, "val": 497, "test": 2_990},
}


def open_leccr_release(root: Path, options: Options) -> BenchmarkSource:
    """The set in the folder that holds TextData."""
    texts = root / "TextData" if (root / "TextData").is_dir() else root
    paths = sorted(path for path in texts.iterdir() if path.name.endswith(SUFFIX) and not path.name.startswith("."))
    if not paths:
        raise UsageError(f"--source {KIND}: got {root}, wanted the folder that holds TextData/NAME{SUFFIX}: give that")
    checks = Checks(KIND, options)
    splits = _splits(root)
    for split, count in _published(paths).items():
        checks.count(f"items of {split}", sum(1 for its in splits.values() if its == split), count)
    captions = Captions(splits, checks)
    captions.read(paths)
    captions.check()
    names = _names(root, splits)
    media = find_media(root, names, "video", arrays_below="FeatureData")
    described = _descriptions(root, names, checks)
    return finish(KIND, root, options, checks, captions, media, described)


def finish(
    kind: str,
    root: Path,
    options: Options,
    checks: Checks,
    captions: Captions,
    media: Media,
    described: Mapping[str, list[SourceCaption]],
) -> BenchmarkSource:
    """Items of texts and media that were found, in the order of the lists, once all checks have passed."""
    splits = captions.splits
    checks.missing_media([item for item in splits if item not in media.uris], len(splits), str(root))
    checks.unused_media(media.unused)
    usual = _usual_type(root, media)
    items = [
        SourceItem(
            item,
            media.uris.get(item, ""),
            split,
            kind,
            options.defaults.license,
            (*captions.of(item), *described.get(item, ())),
            media.types.get(item, usual),
        )
        for item, split in splits.items()
    ]
    return BenchmarkSource(kind, root, items, checks.finish())


def _usual_type(root: Path, media: Media) -> str:
    """The type of items whose media are not there: that of the others, or else what the lists' folder is called."""
    if media.types:
        return next(iter(media.types.values()))
    return "video" if (root / "video_id").is_dir() else "image"


def _splits(root: Path) -> dict[str, str]:
    """By item id its split: train, val, test, then others; each in the order of its lists."""
    lists: dict[tuple[str, str], tuple[Path, list[str]]] = {}
    for folder in LIST_FOLDERS:
        for path in sorted((root / folder).glob("*_id*.txt")):
            found = LIST.fullmatch(path.name)
            if not found:
                continue
            more = found["more"] if found["more"] not in (None, "2016") else ""
            split = f"{found['split']}_{more}" if more else found["split"]
            ids = [bare(line.strip()) for line in read_lines(path) if line.strip()]
            unique(ids, str(path))
            first, known = lists.setdefault((split, found["language"] or ""), (path, ids))
            if known != ids and set(known) != set(ids):
                raise UsageError(
                    f"--input: got two lists for the split {split} that differ, {first} and {path}, wanted one: take "
                    "the other away"
                )
    if not lists:
        folders = ", ".join(LIST_FOLDERS[:3])
        raise UsageError(f"--input: got {root}, wanted id lists such as train_id.txt in it or in its {folders}")
    order = {"train": 0, "val": 1, "test": 2}
    splits: dict[str, str] = {}
    for (split, _), (path, ids) in sorted(lists.items(), key=lambda one: (order.get(one[0][0], 3), *one[0])):
        for item in ids:
            if splits.setdefault(item, split) != split:
                raise UsageError(
                    f"--input: {path}: got {item} in {split} and in {splits[item]} too, wanted it in one split: mend "
                    "the lists; where they are of two languages, keep those of one and import them one by one"
                )
    return splits


def _published(paths: list[Path]) -> dict[str, int]:
    """The counts of the set that all caption files name; none where they name several, or one without counts."""
    named = {name for path in paths for name in COUNTS if path.name.lower().startswith(name)}
    wanted = {tuple(COUNTS[name].items()) for name in named}
    return dict(wanted.pop()) if len(wanted) == 1 else {}


def _names(root: Path, splits: Mapping[str, str]) -> dict[str, str]:
    """From the names of files without suffix to items: their ids, or what image_ids.txt says."""
    names = {item: item for item in splits}
    path = next((path for place in PLACES if (path := root / place / "image_ids.txt").is_file()), None)
    if path is None:
        return names
    files: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        item, _, file = line.strip().partition(" ")
        stem = file.strip().rpartition("/")[2].rpartition(".")[0]
        if not line.strip() or bare(item) not in splits:
            continue
        if not stem:
            raise UsageError(f"--input: {path} line {number:,}: got {line!r}, wanted `ID FILE`: mend the line")
        if files.setdefault(stem, bare(item)) != bare(item):
            raise UsageError(
                f"--input: {path} line {number:,}: got {file} for {item}, and for {files[stem]} before, wanted one of "
                "the two: mend the file"
            )
    clash = next((stem for stem, item in files.items() if names.get(stem, item) != item), None)
    if clash is not None:
        raise UsageError(f"--input: {path}: got the file name {clash}, which is another item's id, wanted others")
    return names | files


def _descriptions(root: Path, names: Mapping[str, str], checks: Checks) -> dict[str, list[SourceCaption]]:
    """By item its descriptions, numbered by the folders that hold any."""
    described: dict[str, list[SourceCaption]] = {}
    blank, views = 0, 0
    for folder, files in folders_below(root):
        if folder.relative_to(root).parts[:1] in (("TextData",), ("FeatureData",)):
            continue
        stems = {suffix: [name for name in files if name.endswith(suffix)] for suffix in (".txt", ARRAY)}
        texts = [name for name in stems[".txt"] if name[:-4] in names]
        vectors = [name for name in stems[ARRAY] if name[:-4] in names]
        if vectors:
            checks.note(
                f"{len(vectors):,} descriptions in {folder.name} are vectors ({shown(vectors, 1)}) and not used: texts "
                "are wanted"
            )
        if not texts:
            continue
        seen: set[str] = set()
        for name in texts:
            item, text = names[name[:-4]], clean_text(read_text(folder / name))
            if item in seen:
                raise UsageError(f"--input: {folder}: got two descriptions of {item}, wanted one: take one away")
            seen.add(item)
            if text:
                described.setdefault(item, []).append(SourceCaption(text, "en", "mllm", views))
            blank += not text
        views += 1
        missing = len(set(names.values())) - len(seen)
        if missing:
            checks.note(f"{missing:,} of {len(set(names.values())):,} items have no description in {folder.name}")
    if blank:
        checks.note(f"{blank:,} descriptions are blank: not used")
    return described
