"""One picture of what queries found: a row a query, its results from left to right. Sizes in inches."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib import font_manager, ft2font
from matplotlib.figure import Figure
from PIL import Image

from pipeline.errors import EnvironmentTrouble, PipelineError, UsageError
from stages.retrieval.engine import Finder, Hit

TILE, ROW, ABOVE, BELOW = 1.6, 2.15, 0.35, 0.2
SIDE = 240  # pixels of a thumbnail
MAX_QUERIES, MAX_RESULTS = 40, 10
GREY = "#d0d3d6"
FONTS = (  # those that are installed draw each letter that the ones before lack; DejaVu comes with matplotlib
    *("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR"),
    *("WenQuanYi Micro Hei", "IPAexGothic", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans", "Microsoft YaHei"),
    *("Noto Sans", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai"),
)


def draw_results(path: Path, finder: Finder, results: Sequence[tuple[str, Sequence[Hit]]]) -> None:
    """Write a PNG of queries with their hits.

    Args:
        path: The file.
        finder: Where the pictures come from; one that cannot be read is grey.
        results: Queries with their hits; the first MAX_QUERIES are drawn, with MAX_RESULTS results each.

    Raises:
        EnvironmentTrouble: The file cannot be written.
    """
    results = results[:MAX_QUERIES]
    if any(not printable(query, "") for query, _ in results):
        print("note: no font has all letters of the queries. Install one, such as Noto Sans CJK", file=sys.stderr)
    columns = max(1, *(len(hits[:MAX_RESULTS]) for _, hits in results))
    height = len(results) * ROW
    figure = Figure(figsize=(columns * TILE, height))
    margins = {"top": 1 - ABOVE / height, "bottom": BELOW / height, "hspace": (ABOVE + BELOW) / (ROW - ABOVE - BELOW)}
    sides = {"left": 0.01, "right": 0.99, "wspace": 0.06}
    grid = figure.subplots(len(results), columns, squeeze=False, gridspec_kw={**margins, **sides})
    for row, (query, hits) in enumerate(results):
        title = printable(query, f"query {row + 1}")
        grid[row, 0].set_title(title, loc="left", fontfamily=_fonts()[0], fontsize=11)
        for axis, hit in zip(grid[row], hits, strict=False):
            axis.imshow(thumbnail(finder, hit))
            axis.set_anchor("NW")
            name = printable(hit.item_id.rpartition("/")[2], f"item {hit.rank}")
            label = f"{hit.score:.2f}  {name if len(name) < 18 else name[:16] + '…'}"
            axis.text(0, -0.04, label, transform=axis.transAxes, va="top", fontfamily=_fonts()[0], fontsize=7)
    for axis in grid.flat:
        axis.set_axis_off()
    try:
        figure.savefig(path, dpi=110, format="png")
    except OSError as error:
        raise EnvironmentTrouble(f"{path} cannot be written: {error.strerror}") from error


def printable(text: str, instead: str) -> str:
    """The text on one line, or `instead` where no installed font has its letters; lost signs are left out."""
    text = " ".join(text.split())
    missing = set(text) - _fonts()[1] - {" "}
    if any(character.isalpha() for character in missing):
        return instead
    return "".join(character for character in text if character not in missing)


@functools.cache
def _fonts() -> tuple[list[str], frozenset[str]]:
    """The fonts of FONTS that are installed, and the characters that they have between them."""
    paths = {font.name: font.fname for font in font_manager.fontManager.ttflist}
    names = [name for name in FONTS if name in paths]
    return names, frozenset(chr(code) for name in names for code in ft2font.FT2Font(paths[name]).get_charmap())


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
