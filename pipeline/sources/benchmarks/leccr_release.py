"""The layout in which NRCCR's data came and LECCR's code reads it, of any of the four sets.

    TextData/NAME.caption.txt                 see `caption_files`, with its rules for what is used and what is not
    {FeatureData,img_id,video_id,.}/SPLIT_id.txt        item ids, one per line; MSCOCO's also as LANGUAGE_SPLIT_id.txt
    {img_id,.}/image_ids.txt                  MSCOCO: `ID FILE` per line
    FeatureData/NAME/                         a BigFile, or ITEM.npy
    ANY/                                      ITEM.jpg, ITEM.mp4, or FILE
    ANY/ITEM.txt                              a description by a model; of MSCOCO FILE.txt; ITEM.npy has vectors

An item is in the split of the id list that names it, whatever its caption files are called. `test_id.txt` and
`test_id_2016.txt` are split `test`; another ending, as in `test_id_2017.txt`, is a split of its own. Lists of one
split in several folders have to agree; lists of several languages are put together. Item ids are without .jpg and .mp4.
Descriptions are captions of origin `mllm`, numbered by the order of the folders' names. Refused, because nobody could
tell which is meant: an item in two splits, two media for an item, two texts for a caption.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.bigfile import bare
from pipeline.sources.benchmarks.caption_files import LANGUAGES, SUFFIX, Captions, read_captions
from pipeline.sources.benchmarks.files import ARRAY
from pipeline.sources.benchmarks.importer import Importer, first_names
from pipeline.sources.benchmarks.reading import join_lists, read_ids, read_lines, read_text, splits_of
from pipeline.sources.items import SourceCaption, clean_text

LIST = re.compile(rf"(?:(?P<language>{'|'.join(LANGUAGES)})_)?(?P<split>train|val|test)_id(?:_(?P<more>\w+))?\.txt")
LIST_FOLDERS = ("FeatureData", "img_id", "video_id", ".")
PLACES = ("img_id", "FeatureData", "TextData", ".")
# Items by split, of the sets whose names begin like this.
COUNTS = {
    "multi30k": {"train": 29_000, "val": 1_014, "test": 1_000},
    "flickr30k": {"train": 29_000, "val": 1_014, "test": 1_000},
    "vatex": {"train": 25_991, "val": 1_500, "test": 1_500},
    "msrvtt": {"train": 6_513, "val": 497, "test": 2_990},
}


def read_set(importer: Importer) -> None:
    """Add the set in the folder that holds TextData."""
    root = importer.root
    texts = root / "TextData" if (root / "TextData").is_dir() else root
    paths = sorted(path for path in texts.iterdir() if path.name.endswith(SUFFIX) and not path.name.startswith("."))
    if not paths:
        raise importer.absent(f"TextData/NAME{SUFFIX}", "Give the folder that holds TextData.")
    splits = _splits(root)
    importer.count_splits("items", splits, _published(paths))
    captions = Captions(splits, importer)
    for path in paths:
        for line in read_captions(path):
            captions.add(line)
    captions.check()
    names = _names(root, splits)
    media = importer.files.media(names, "video", arrays_below="FeatureData")
    described = _descriptions(names, importer)
    usual = "video" if (root / "video_id").is_dir() else "image"
    if media.types:
        usual = next(iter(media.types.values()))
    for item, split in splits.items():
        texts_of_item = [*captions.of(item), *described.get(item, ())]
        importer.add(item, split, texts_of_item, media.uris.get(item, ""), media.types.get(item, usual))


def _splits(root: Path) -> dict[str, str]:
    """The split of each item: train, val, test, then others; each in the order of its lists."""
    paths = [path for folder in LIST_FOLDERS for path in sorted((root / folder).glob("*_id*.txt"))]
    lists = join_lists(
        (
            f"{_split(match)} {match['language'] or ''}".strip(),
            path,
            [*map(bare, read_ids(path))],
        )
        for path in paths
        if (match := LIST.fullmatch(path.name))
    )
    if not lists:
        folders = ", ".join(LIST_FOLDERS[:3])
        raise UsageError(f"--input: {root} has no id lists such as train_id.txt, nor have its {folders}. Add them.")
    order = {"train": 0, "val": 1, "test": 2}
    by_split = [(name.partition(" ")[0], ids) for name, ids in sorted(lists.items())]
    return splits_of(sorted(by_split, key=lambda entry: order.get(entry[0], 3)), root)


def _split(match: re.Match[str]) -> str:
    more = match["more"]
    return f"{match['split']}_{more}" if more and more != "2016" else match["split"]


def _published(paths: list[Path]) -> dict[str, int]:
    """The counts of the set that all caption files name; none where they name several, or one without counts."""
    named = {name for path in paths for name in COUNTS if path.name.lower().startswith(name)}
    counts = {tuple(COUNTS[name].items()) for name in named}
    return dict(counts.pop()) if len(counts) == 1 else {}


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
            raise UsageError(f"--input: {path} line {number:,}: {line!r} is not `ID FILE`. Mend the line.")
        if files.setdefault(stem, bare(item)) != bare(item):
            raise UsageError(
                f"--input: {path} line {number:,} has {file} for {item}, and a line before for {files[stem]}. Mend the "
                "file."
            )
    clash = next((stem for stem, item in files.items() if names.get(stem, item) != item), None)
    if clash is not None:
        raise UsageError(f"--input: {path} has the file name {clash}, which is another item's id. Mend the file.")
    return names | files


def _descriptions(names: Mapping[str, str], importer: Importer) -> dict[str, list[SourceCaption]]:
    """The descriptions of each item, numbered by the folders that hold any."""
    described: dict[str, list[SourceCaption]] = {}
    blank = views = 0
    total = len(set(names.values()))
    for folder, files_here in importer.files.folders:
        if folder.relative_to(importer.root).parts[:1] in (("TextData",), ("FeatureData",)):
            continue
        texts = [name for name in files_here if name.endswith(".txt") and name[:-4] in names]
        vectors = [name for name in files_here if name.endswith(ARRAY) and name[:-4] in names]
        vectors_named = (
            f"descriptions in {folder.name} are vectors ({first_names(vectors, 1)}) and not used: give texts"
        )
        importer.note(vectors_named, len(vectors))
        if not texts:
            continue
        here: set[str] = set()
        for name in texts:
            item, text = names[name[:-4]], clean_text(read_text(folder / name))
            if item in here:
                raise UsageError(f"--input: {folder} has two descriptions of {item}. Take one away.")
            here.add(item)
            if text:
                described.setdefault(item, []).append(SourceCaption(text, "en", "mllm", views))
            blank += not text
        views += 1
        importer.note(f"of {total:,} items have no description in {folder.name}", total - len(here))
    importer.note("descriptions are blank: not used", blank)
    return described
