"""One picture of what queries found: a row a query, its results from left to right. Sizes in inches."""

import functools
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from pipeline.errors import EnvironmentTrouble, PipelineError, UsageError
from stages.retrieval.engine import Hit, Index

TILE, ROW, ABOVE, BELOW = 1.6, 1.75, 0.35, 0.2
SIZE = 240, 180  # pixels of a thumbnail
MAX_QUERIES, MAX_RESULTS = 40, 10
GREY = "#d0d3d6"
FONT_PACKAGES = "manimgx_fonts", "noto_cjk_sans_otc"  # Noto Sans for nearly every script


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
    height = len(results) * ROW
    figure = Figure(figsize=(columns * TILE, height))
    margins = {"top": 1 - ABOVE / height, "bottom": BELOW / height, "hspace": (ABOVE + BELOW) / (ROW - ABOVE - BELOW)}
    sides = {"left": 0.01, "right": 0.99, "wspace": 0.06}
    grid = figure.subplots(len(results), columns, squeeze=False, gridspec_kw={**margins, **sides})
    for row, (query, hits) in enumerate(results):
        grid[row, 0].set_title(" ".join(query.split()), loc="left", fontfamily=_fonts(), fontsize=11, parse_math=False)
        for axis, hit in zip(grid[row], hits, strict=False):
            axis.imshow(thumbnail(finder, hit))
            name = hit.item_id.rpartition("/")[2]
            label = f"{hit.score:.2f}  {name if len(name) < 18 else name[:16] + '…'}"
            axis.text(0, -0.04, label, transform=axis.transAxes, va="top", fontfamily=_fonts(), fontsize=7)
    for axis in grid.flat:
        axis.set_axis_off()
    try:
        with warnings.catch_warnings(record=True) as missing_glyphs:
            warnings.simplefilter("always")
            figure.savefig(path, dpi=110, format="png")
    except OSError as error:
        raise EnvironmentTrouble(f"{path} cannot be written: {error.strerror}") from error
    if missing_glyphs:
        print("note: no font has all letters of the queries. Most are in those of the extra search", file=sys.stderr)


@functools.cache
def _fonts() -> list[str]:
    """Families that draw each letter which those before lack. DejaVu comes with matplotlib."""
    fonts = font_manager.fontManager
    packages = [Path(spec.origin).parent for name in FONT_PACKAGES if (spec := find_spec(name)) and spec.origin]
    for path in sorted(path for package in packages for path in package.glob("*.tt[fc]")):
        fonts.addfont(path)
    return ["DejaVu Sans", *dict.fromkeys(font.name for font in fonts.ttflist if font.name.startswith("Noto Sans"))]


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
