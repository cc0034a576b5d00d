"""One picture of what queries found: a row a query, its results from left to right. Sizes are in pixels."""

import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from pipeline.card.sheet import FAINT, GREY, INK, WHITE, Text, one_line, with_texts
from pipeline.errors import EnvironmentTrouble, PipelineError, UsageError
from stages.retrieval.engine import Hit, Index

SIZE = 200, 150  # of a picture
WIDTH, ROW, ABOVE = 210, 212, 36  # of a result and of a row, and in that above the pictures
MAX_QUERIES, MAX_RESULTS = 40, 10


def draw_results(path: Path, finder: Index, results: Sequence[tuple[str, Sequence[Hit]]]) -> None:
    """Write a PNG of queries with their hits.

    Args:
        path: The file.
        finder: Where the pictures come from; one that cannot be read is grey.
        results: Queries with their hits; the first MAX_QUERIES are drawn, with MAX_RESULTS results each.

    Raises:
        EnvironmentTrouble: The file cannot be written.
    """
    results = results[:MAX_QUERIES]
    columns = max(1, *(len(hits[:MAX_RESULTS]) for _, hits in results))
    sheet, texts = Image.new("RGB", (columns * WIDTH, len(results) * ROW), WHITE), list[Text]()
    for top, (query, hits) in zip(range(0, sheet.height, ROW), results, strict=True):
        texts.append((one_line(query), (6, top + 10), 18, INK))
        for left, hit in zip(range(6, sheet.width, WIDTH), hits, strict=False):
            sheet.paste(thumbnail(finder, hit), (left, top + ABOVE))
            name = hit.item_id.rpartition("/")[2]
            label = f"{hit.score:.2f}  {name if len(name) < 24 else name[:22] + '…'}"
            texts.append((label, (left, top + ABOVE + SIZE[1] + 6), 13, FAINT))
    try:
        drawn, complete = with_texts(sheet, texts)
        drawn.save(path, "PNG")
    except OSError as error:
        raise EnvironmentTrouble(f"{path} cannot be written: {error.strerror}") from error
    if not complete:
        print("note: no font has all letters of the queries. Most are in those of the extra search", file=sys.stderr)


def thumbnail(finder: Index, hit: Hit) -> Image.Image:
    """The hit's picture cropped to SIZE, grey where it cannot be read."""
    try:
        return ImageOps.fit(finder.picture(hit.corpus, hit.item_id, max(SIZE)), SIZE)
    except (KeyError, PipelineError):  # KeyError: the corpus no longer has the item
        return Image.new("RGB", SIZE, GREY)


def check_path(path: Path) -> None:
    """Raise UsageError for a path where no picture can be written."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"--picture {path} cannot be written there. Give the name of a file in an existing folder")
