"""One picture of what queries found: a row a query, its results from left to right. Sizes in inches."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from pipeline.errors import EnvironmentTrouble, PipelineError, UsageError
from stages.retrieval.engine import Finder, Hit
from stages.scoring.explain_fonts import Fonts

TILE, HEADING, LABEL = 1.5, 0.34, 0.3
SIDE = 240  # pixels of a thumbnail
MOST_ROWS, MOST_TILES = 40, 10
GREY = "#d0d3d6"


def draw(
    path: Path,
    finder: Finder,
    found: Sequence[tuple[str, Sequence[Hit]]],
    say: Callable[[str], Any],
) -> None:
    """Write a PNG of queries with their hits, MOST_ROWS queries and MOST_TILES results of each at most.

    An item whose picture cannot be read has a grey tile with its name. Raises EnvironmentTrouble where the file cannot
    be written.
    """
    found, fonts = list(found)[:MOST_ROWS], Fonts(say)
    columns = max(1, min(MOST_TILES, max((len(hits) for _, hits in found), default=1)))
    height = len(found) * (TILE + HEADING + LABEL) + 0.1
    figure = plt.figure(figsize=(columns * (TILE + 0.1) + 0.1, height))
    try:
        for number, (query, hits) in enumerate(found):
            top = height - 0.05 - number * (TILE + HEADING + LABEL)
            text, families = fonts.shown(query, f"query {number + 1}")
            figure.text(0.1 / figure.get_figwidth(), (top - 0.22) / height, text, fontfamily=families, fontsize=11)
            for place, hit in enumerate(hits[:columns]):
                left, low = 0.1 + place * (TILE + 0.1), top - HEADING - TILE
                box = (left / figure.get_figwidth(), low / height, TILE / figure.get_figwidth(), TILE / height)
                axes = figure.add_axes(box)
                axes.set_axis_off()
                axes.imshow(thumbnail(finder, hit))
                name, families = fonts.shown(hit.item_id.rpartition("/")[2], f"item {hit.rank}")
                label = f"{hit.score:.2f}  {name if len(name) < 18 else name[:16] + '…'}"
                figure.text(box[0], box[1] - 0.16 / height, label, fontfamily=families, fontsize=7)
        figure.savefig(path, dpi=110, format="png")
    except OSError as error:
        raise EnvironmentTrouble(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        plt.close(figure)


def thumbnail(finder: Finder, hit: Hit) -> Image.Image:
    try:
        return finder.picture((hit.corpus, hit.item_id), SIDE)
    except (KeyError, PipelineError):  # KeyError: of an item that the corpus no longer has
        return Image.new("RGB", (SIDE, SIDE), GREY)


def check(path: Path) -> None:
    """Raises UsageError for a path where no picture can be written."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"--picture {path}: wanted the name of a file in a folder that is there")
