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

from pipeline.sources.benchmarks.files import read_lines, refusal, unique
from pipeline.sources.benchmarks.importer import Importer

IMAGES = 1_000
NAMES = "test_image_names.txt"
PICTURE = re.compile(r"(COCO_(?:train|val)2014_(\d{12}))(?:\.jpg)?")
LANGUAGES = ("en", "de", "fr", "es", "it", "ko", "pl", "ru", "tr", "zh", "ja")
FILE_NAMES = {"ja": "jp"}  # where a file's name has another tag


def read_set(importer: Importer) -> None:
    """Add the set."""
    path = importer.files.text(NAMES)
    if path is None:
        raise importer.absent(NAMES, "Give the folder with the set's repository and its pictures, anywhere below it.")
    items: dict[str, str] = {}  # COCO's number, twelve digits → item id
    lines = [line.strip() for line in read_lines(path)]
    for at, line in enumerate(lines, start=1):
        match = PICTURE.fullmatch(line)
        if not match:
            raise refusal(f"{path} line {at:,}", f"the name {line!r}", "one like COCO_train2014_000000000030.jpg")
        items[match[2]] = f"{match[1]}.jpg"
    unique((PICTURE.fullmatch(line)[2] for line in lines), str(path))  # type: ignore[index]
    importer.count(f"pictures in {NAMES}", len(items), IMAGES)
    for language in LANGUAGES:
        captions = importer.files.text(f"test_1kcaptions_{FILE_NAMES.get(language, language)}.txt")
        texts = read_lines(captions) if captions else []
        importer.count(f"captions in {language}", len(texts), IMAGES)
        if captions:
            importer.add_lines(captions, texts, list(items.values()), language, 0)
    names = {name: item for number, item in items.items() for name in (item.removesuffix(".jpg"), number)}
    importer.add_items(dict.fromkeys(items.values(), "test"), media=importer.files.media(names))
    importer.note(
        f"of {len(items):,} images are of COCO train2014: do not score a model that was trained on them",
        sum(item.startswith("COCO_train2014") for item in items.values()),
    )
