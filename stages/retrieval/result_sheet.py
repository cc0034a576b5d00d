"""One picture of what queries found: a row a query, its results from left to right. Sizes in inches."""

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from pipeline.errors import EnvironmentTrouble, PipelineError, UsageError
from stages.retrieval.engine import Finder, Hit
from stages.scoring.explain_fonts import Fonts

TILE, ROW = 1.5, 2.15
SIDE = 240  # pixels of a thumbnail
MAX_QUERIES, MAX_RESULTS = 40, 10
GREY = "#d0d3d6"


def draw_results(path: Path, finder: Finder, results: Sequence[tuple[str, Sequence[Hit]]]) -> None:
    """Write a PNG of queries with their hits.

    Args:
        path: The file.
        finder: Where the pictures come from; one that cannot be read is grey.
        results: Queries with their hits; the first MAX_QUERIES are drawn, with MAX_RESULTS results each.

    Raises:
        EnvironmentTrouble: The file cannot be written.
    """
    fonts = Fonts(lambda line: print(line, file=sys.stderr, flush=True))
    results = results[:MAX_QUERIES]
    columns = max(1, min(MAX_RESULTS, max(len(hits) for _, hits in results)))
    figure = plt.figure(figsize=(columns * (TILE + 0.1) + 0.1, len(results) * ROW))
    try:
        for row, part in enumerate(figure.subfigures(len(results), 1, squeeze=False)[:, 0]):
            query, hits = results[row]
            text, families = fonts.shown(query, f"query {row + 1}")
            part.text(0.01, 0.9, text, fontfamily=families, fontsize=11)
            part.subplots_adjust(left=0.01, right=0.99, top=0.84, bottom=0.1, wspace=0.06)
            axes = part.subplots(1, columns, squeeze=False)[0]
            for axis in axes:
                axis.set_axis_off()
            for axis, hit in zip(axes, hits, strict=False):
                axis.imshow(thumbnail(finder, hit))
                axis.set_anchor("NW")
                name, families = fonts.shown(hit.item_id.rpartition("/")[2], f"item {hit.rank}")
                label = f"{hit.score:.2f}  {name if len(name) < 18 else name[:16] + '…'}"
                axis.text(0, -0.04, label, transform=axis.transAxes, va="top", fontfamily=families, fontsize=7)
        figure.savefig(path, dpi=110, format="png")
    except OSError as error:
        raise EnvironmentTrouble(f"{path} cannot be written: {error.strerror}") from error
    finally:
        plt.close(figure)


def thumbnail(finder: Finder, hit: Hit) -> Image.Image:
    """The hit's picture, grey where it cannot be read."""
    try:
        return finder.picture(hit.corpus, hit.item_id, SIDE)
    except (KeyError, PipelineError):  # KeyError: the corpus no longer has the item
        return Image.new("RGB", (SIDE, SIDE), GREY)


def check_path(path: Path) -> None:
    """Raise UsageError for a path where no picture can be written."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"--picture {path} cannot be written there. Give the name of a file in an existing folder")
