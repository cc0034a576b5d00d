"""Crossmodal-3600: pictures from Open Images with captions that people wrote in 36 languages, only to test on.

    captions.jsonl    an object for each picture: `image/key`, and by language `{"caption": ["…", "…"], …}`
    KEY.jpg           the pictures, anywhere below the folder

Items are named by their keys, and all of them are split `test`. A caption's number is its place in its list. Captions
of two languages with one number do not translate each other: each was written for the picture. Languages have the tags
that the rest of this project uses: Cusco Quechua, `quz` in the file, is `qu`, the other 35 are as in the file.
"""

from typing import Any

from pipeline.sources.benchmarks.files import read_layout, read_lines, unique
from pipeline.sources.benchmarks.importer import Importer
from pipeline.sources.items import clean_text
from pipeline.translation.tags import check_language

CAPTIONS = "captions.jsonl"
KEY = "image/key"
IMAGES, LANGUAGES = 3_600, 36
TOTAL = 261_375  # captions


def read_set(importer: Importer) -> None:
    """Add the set."""
    path = importer.files.text(CAPTIONS)
    if path is None:
        raise importer.absent(CAPTIONS, "Give the folder with the set's captions and its pictures anywhere below it.")
    expected = f"an object with {KEY} and, by language, a list named caption"
    rows = [
        read_layout(path, _parse, f"in line {at:,} {expected}", line) for at, line in enumerate(read_lines(path), 1)
    ]
    unique((key for key, _ in rows), str(path))
    tags = {language: check_language(language, str(path)) for _, captions in rows for language in captions}
    for key, captions in rows:
        for language, texts in captions.items():
            for number, text in enumerate(texts):
                importer.add_text(key, tags[language], text, number)
    importer.count(f"pictures in {path.name}", len(rows), IMAGES)
    importer.count(f"languages in {path.name}", len(tags), LANGUAGES)
    importer.count(f"captions in {path.name}", sum(len(texts) for _, of in rows for texts in of.values()), TOTAL)
    importer.add_items(dict.fromkeys((key for key, _ in rows), "test"))


def _parse(row: Any) -> tuple[str, dict[str, list[str]]]:
    """A picture's key, and its captions by language. Columns with a slash describe the picture."""
    languages = [column for column in row if column != "split" and "/" not in column]
    return str(row[KEY]), {language: list(map(clean_text, row[language]["caption"])) for language in languages}
