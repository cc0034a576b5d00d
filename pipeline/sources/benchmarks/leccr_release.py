"""The layout in which NRCCR's data came and LECCR's code reads it, of any of the four sets.

    TextData/NAME.caption.txt                 see `caption_files`, with its rules for what is used and what is not
    {FeatureData,img_id,video_id,.}/SPLIT_id.txt        item ids, one per line; MSCOCO's also as LANGUAGE_SPLIT_id.txt
    {img_id,.}/image_ids.txt                  MSCOCO: `ID FILE` per line
    FeatureData/NAME/                         a BigFile, or ITEM.npy
    ANY/                                      ITEM.jpg, ITEM.mp4, or FILE
    ANY/ITEM.txt                              a description by a model; of MSCOCO FILE.txt

An item is in the split of the id list that names it, whatever its caption files are called. `test_id.txt` and
`test_id_2016.txt` are split `test`; another ending, as in `test_id_2017.txt`, is a split of its own. Lists of one
split, of several folders or languages, are put together. Item ids are without .jpg and .mp4.
Descriptions are captions of origin `mllm`, numbered by the order of the folders' names. Refused, because nobody could
tell which is meant: an item in two splits, two media for an item, two texts for a caption.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.caption_files import LANGUAGES, SUFFIX, Captions, read_captions
from pipeline.sources.benchmarks.files import CLIPS, PICTURES, bare, read_ids, read_lines, read_text, refusal, splits_of
from pipeline.sources.benchmarks.importer import Importer
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
    sets = {name for path in paths for name in COUNTS if path.name.lower().startswith(name)}
    published = [COUNTS[name] for name in sets]
    if published and all(counts == published[0] for counts in published):
        importer.count_splits("items", splits, published[0])
    captions = Captions(splits, importer)
    for path in paths:
        for line in read_captions(path):
            captions.add(line)
    captions.check()
    names = _names(root, splits)
    media = importer.files.media(names, PICTURES | CLIPS, "FeatureData")
    described = _descriptions(names, importer)
    usual = "video" if (root / "video_id").is_dir() else "image"
    if media:
        usual = next(iter(media.values())).type
    importer.add_items(splits, usual, lambda item: [*captions.of(item), *described.get(item, ())], media)


def _splits(root: Path) -> dict[str, str]:
    """The split of each item: train, val, test, then others; each in the order of its lists."""
    lists = [
        (_split(match), [*map(bare, read_ids(path))])
        for folder in LIST_FOLDERS
        for path in sorted((root / folder).glob("*_id*.txt"))
        if (match := LIST.fullmatch(path.name))
    ]
    if not lists:
        folders = ", ".join(LIST_FOLDERS[:3])
        raise UsageError(f"--input: {root} has no id lists such as train_id.txt, nor have its {folders}. Add them.")
    order = {"train": 0, "val": 1, "test": 2}
    return splits_of(sorted(lists, key=lambda entry: (order.get(entry[0], 3), entry[0])), root)


def _split(match: re.Match[str]) -> str:
    more = match["more"]
    return f"{match['split']}_{more}" if more and more != "2016" else match["split"]


def _names(root: Path, splits: Mapping[str, str]) -> dict[str, str]:
    """From the names of files without suffix to items: their ids, or what image_ids.txt says."""
    names = {item: item for item in splits}
    path = next((path for place in PLACES if (path := root / place / "image_ids.txt").is_file()), None)
    for number, line in enumerate(read_lines(path) if path else (), start=1):
        item, _, file = line.strip().partition(" ")
        if bare(item) in splits:
            stem = Path(file.strip()).stem
            if not stem or names.setdefault(stem, bare(item)) != bare(item):
                expected = f"ID FILE, with a file of its own for {item}"
                raise refusal(f"{path} line {number:,}", repr(line), expected)
    return names


def _descriptions(names: Mapping[str, str], importer: Importer) -> dict[str, list[SourceCaption]]:
    """The descriptions of each item, numbered by the folders that hold any."""
    described: dict[str, list[SourceCaption]] = {}
    views = 0
    total = len(set(names.values()))
    for folder, files in importer.files.folders:
        if folder.relative_to(importer.root).parts[:1] in (("TextData",), ("FeatureData",)):
            continue
        here: set[str] = set()
        for name in files:
            item = names.get(name[:-4]) if name.endswith(".txt") else None
            if item and (text := clean_text(read_text(folder / name))):
                described.setdefault(item, []).append(SourceCaption(text, "en", "mllm", views))
                here.add(item)
        if here:
            views += 1
            importer.note(f"of {total:,} items have no description in {folder.name}", total - len(here))
    return described
