"""Flickr8k with its English captions, and with the Chinese ones of Flickr8k-CN where they are in the folder.

    Flickr_8k.{train,dev,test}Images.txt        the splits: a picture's name per line
    Flickr8k.token.txt                          English, `NAME.jpg#0<tab>TEXT` per line
    flickr8k{train,val,test}.txt                Flickr8k-CN's lists, of the same splits, without `.jpg`
    dataset_flickr8k.json                       Karpathy's splits, and the English captions
    captions.txt                                the English captions as on Kaggle, a table of `image` and `caption`
    flickr8kenc.caption.txt                     the English captions, `NAME.jpg#enc#0 TEXT` per line
    flickr8kzhc.caption.txt                     Chinese by people, `NAME.jpg#zhc#0 TEXT`
    flickr8kzhb.caption.txt[.v20160815]         the English captions translated by Baidu, `NAME.jpg#zhb#0 TEXT`
    flickr8kzhg.caption.txt[.v20160816]         by Google, `NAME.jpg#zhg#0 TEXT`

Pictures may lie anywhere below the folder. The release has 92 pictures that are in no split: their captions are not
used. One translation is used, of the files in TRANSLATED the first that is there; it has the number of the caption that
it translates, so Flickr8k-CN's English file is preferred where both are there. Items to train on have English captions
and translations, those held out human captions, as `caption_files` has it for all sets. The test captions that people
translated (`flickr8kzhmtest`) are not read: captions in Chinese are those that were written for the picture.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.sources.benchmarks.caption_files import Captions, Line
from pipeline.sources.benchmarks.files import read_ids, read_karpathy, read_lines, refusal, splits_of
from pipeline.sources.benchmarks.importer import Importer
from pipeline.sources.items import SPLIT_NAMES, clean_text
from pipeline.sources.rows import read_fields, read_file
from pipeline.sources.tables import read_table

COUNTS = {"train": 6_000, "val": 1_000, "test": 1_000}
LISTS = re.compile(r"Flickr_8k\.(train|dev|test)Images\.txt|flickr8k(train|val|test)\.txt")
KAGGLE, KARPATHY = "captions.txt", "dataset_flickr8k.json"
ENGLISH = ("flickr8kenc.caption.txt", "Flickr8k.token.txt", KAGGLE, KARPATHY)
WRITTEN = ("flickr8kzhc.caption.txt",)
TRANSLATED = (
    "flickr8kzhb.caption.txt.v20160815",
    "flickr8kzhb.caption.txt",
    "flickr8kzhg.caption.txt.v20160816",
    "flickr8kzhg.caption.txt",
)
# The files of a kind, its language and origin, and the captions of the splits that use it.
KINDS = ((ENGLISH, "en", "human", 40_000), (WRITTEN, "zh", "human", 10_000), (TRANSLATED, "zh", "mt", 30_000))
LINE = re.compile(r"(?P<item>[^#\s]+)#(?:(?:enc|zhc|zhb|zhg)#)?(?P<number>[0-9]{1,3})(?:\s+(?P<text>.*))?")


def read_set(importer: Importer) -> None:
    """Add the set."""
    files = importer.files.matching(LISTS)
    lists = [(SPLIT_NAMES[match[1] or match[2]], _read_list(path)) for path, match in files]
    if not lists and (karpathy := importer.files.text(KARPATHY)):
        lists = [(split, [name]) for name, _, split, _ in read_karpathy(karpathy)]
    english = _first(importer, ENGLISH)
    if not lists or not english:
        advice = "Give the folder with the set's texts and its pictures anywhere below it."
        raise importer.absent("list of pictures" if english else " or ".join(ENGLISH), advice)
    splits = splits_of(sorted(lists, key=lambda of: list(COUNTS).index(of[0])), importer.root)
    importer.count_splits("pictures", splits, COUNTS)
    captions = Captions(splits, importer)
    unlisted = set[str]()
    for names, language, origin, published in KINDS:
        path = _first(importer, names)
        for line in _read_captions(path, language, origin) if path else ():
            if line.item in splits:
                captions.add(line)
            else:
                unlisted.add(line.item)
        if path:
            keys = Counter(key[:2] for lines in captions.lines.values() for key in lines)
            importer.count(f"captions in {path.name} that are used", keys[language, origin], published)
    importer.note("pictures with captions are in no split: not used", len(unlisted))
    captions.check()
    importer.add_items(splits, captions=captions.of)


def _read_list(path: Path) -> list[str]:
    return [name if name.endswith(".jpg") else f"{name}.jpg" for name in read_ids(path)]


def _first(importer: Importer, names: tuple[str, ...]) -> Path | None:
    """The first of these files that is there."""
    return next((path for name in names if (path := importer.files.text(name))), None)


def _read_captions(path: Path, language: str, origin: str) -> Iterator[Line]:
    if path.name in (KAGGLE, KARPATHY):
        numbers = Counter[str]()
        for name, text in _named_captions(path):
            yield Line(name, language, origin, numbers[name], text, False, str(path))
            numbers[name] += 1
        return
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        place = f"{path} line {number:,}"
        match = LINE.fullmatch(line)
        if not match:
            raise refusal(place, repr(line[:60]), "NAME.jpg#NUMBER, or NAME.jpg#zhc#NUMBER, and a caption")
        text = clean_text(match["text"])
        yield Line(match["item"], language, origin, int(match["number"]), text, False, place)


def _named_captions(path: Path) -> Iterator[tuple[str, str]]:
    """Names of pictures with their captions, from Karpathy's file or Kaggle's table."""
    if path.name == KARPATHY:
        yield from ((name, text) for name, _, _, texts in read_karpathy(path) for text in texts)
    else:
        for _, row in read_table(str(path)):
            yield from ((read_file(row) or "", caption.text) for caption in read_fields(row, "en").captions)
