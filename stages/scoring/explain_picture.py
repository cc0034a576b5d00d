"""A query as one picture: what was found first, and where the slots of the right item and of the first result looked.

All lengths are inches, from the upper left corner.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display is needed
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from model.processing import square
from pipeline.errors import EnvironmentTrouble
from stages.scoring.explain import FRAMES, PATCHES, Explainer, Explanation, Result, Seen, choose
from stages.scoring.explain_fonts import Fonts
from stages.scoring.explain_text import Page

WIDTH, MARGIN, GAP, DPI = 14.0, 0.3, 0.2, 100
RESULT_WIDTH = (WIDTH - 2 * MARGIN - 4 * GAP) / 5
RESULT_HEIGHT, UNDER_RESULT = 1.7, 0.75
LARGE = 3.4  # a side of what the best slot saw
STRIP, A_ROW = 1.3, 8  # frames of a video: height, how many beside each other
WORDS_WIDTH, OTHERS_WIDTH = 5.6, 4.0
OTHERS, BEST_WORDS, LINE = 6, 4, 0.14  # slots beside the best, words of each, a word's height
HEAT, RIGHT, WORD, FAINT = "inferno", "tab:green", "tab:orange", "0.4"


def write(folder: Path, explainer: Explainer, count: int, say: Callable[[str], Any]) -> list[Path]:
    """A picture a query in `folder`; those of an earlier run are taken away. Raises EnvironmentTrouble."""
    chosen = choose(explainer.found, count)
    if len(chosen) < count:
        say(f"note: --explain {count:,}: the split has {len(chosen):,} queries: all are drawn")
    if explainer.note:
        say(f"note: --explain: {explainer.note}")
    fonts = Fonts(say)
    digits = max(2, len(str(len(chosen))))
    paths = []
    try:
        folder.mkdir(exist_ok=True)
        for old in folder.glob("query-*.png"):
            old.unlink()
        for number, (language, row) in enumerate(chosen, 1):
            found = explainer.explain(language, row)
            language = re.sub(r"[^\w-]", "_", language)
            path = folder / f"query-{number:0{digits}}-{language}-rank-{found.rank}.png"
            temporary = path.with_name(f".{path.name}.tmp")
            compose(found, fonts).savefig(temporary, format="png", dpi=DPI)
            temporary.replace(path)
            paths.append(path)
    except OSError as error:
        raise EnvironmentTrouble(f"{error.filename}: cannot be written: {error.strerror}") from error
    say(f"{len(paths):,} queries explained, a picture each: {folder}")
    return paths


def compose(found: Explanation, fonts: Fonts) -> Figure:
    """The whole picture, as high as what it shows."""
    page = Page(WIDTH, fonts)
    wide = WIDTH - 2 * MARGIN
    first = "found first" if found.rank == 1 else f"at rank {found.rank:,} of {found.gallery:,}"
    page.line(MARGIN, 0.2, f"{found.language} · right item {first}", size=15, bold=True)
    told = f"query {found.caption_id}"
    if any(result.parts for result in found.results):
        share = found.global_weight
        told += f" · score = {share:g} × global similarity + {1 - share:g} × similarity of the best slot"
    page.line(MARGIN, 0.52, told, f"a query in {found.language}", size=9, colour=FAINT, width=wide)
    top = page.wrapped(MARGIN, 0.75, wide, found.text, found.caption_id, size=13, most=4) + 0.1
    if found.note:
        page.line(MARGIN, top, found.note, size=10, colour=FAINT)
        top += 0.3
    for place, result in enumerate(found.results):
        _result(page, MARGIN + place * (RESULT_WIDTH + GAP), top, result, bool(found.seen))
    top += RESULT_HEIGHT + UNDER_RESULT + 0.1
    for seen in found.seen:
        top = _section(page, top, seen) + 0.15
    return page.finished(top + 0.1)


def _result(page: Page, left: float, top: float, result: Result, with_slots: bool) -> None:
    axis = page.axes(left, top, RESULT_WIDTH, RESULT_HEIGHT)
    frames = result.frames
    video = ""
    if isinstance(frames[0], Image.Image):
        axis.imshow(frames[len(frames) // 2])
        video = f" · 1 of {len(frames)} frames" if len(frames) > 1 else ""
    else:
        video = f" · features of {len(frames)} frames"
        axis.imshow(np.stack(frames).T, aspect="auto", cmap="gray")
    axis.set_anchor("NW")
    _bare(axis, RIGHT if result.right else "0.8", 3 if result.right else 1)
    below = top + RESULT_HEIGHT + 0.06
    told = f"{result.rank:,} · {result.score:.3f}" + (" · the right item" if result.right else "")
    page.line(left, below, told, size=11, bold=True, colour=RIGHT if result.right else "black")
    page.line(left, below + 0.22, result.item_id + video, "item" + video, size=8, width=RESULT_WIDTH)
    if with_slots and result.parts:
        both = f"global {result.parts[0]:.3f} · best slot {result.parts[1]:.3f}"
        page.line(left, below + 0.4, both, size=8, colour=FAINT)


def _section(page: Page, top: float, seen: Seen) -> float:
    """What the slots of an item read; where it ends."""
    best, *others = seen.order
    what = "The right item" if seen.result.right else "The first result"
    page.rule(MARGIN, top, WIDTH - 2 * MARGIN)
    title = f"{what}, rank {seen.result.rank:,}: {seen.result.item_id}"
    top += 0.1
    page.line(MARGIN, top, title, f"{what}, rank {seen.result.rank:,}", size=12, bold=True, width=WIDTH - 2 * MARGIN)
    top += 0.28
    page.line(MARGIN, top, _told(seen, best), size=9, colour=FAINT, width=WIDTH - 2 * MARGIN)
    top += 0.26
    left, right = MARGIN, WIDTH - MARGIN - OTHERS_WIDTH
    if seen.kind == FRAMES:
        top = _strip(page, top, seen, best)
        _words(page, left, top, right - 2 * GAP - left, 2.6, seen, best)
        height = 2.6
    else:
        inset = 0.0 if seen.kind == PATCHES else 0.5  # for the figures beside and below bars
        axis = page.axes(left + inset, top + inset / 4, LARGE - inset, LARGE - inset)
        _looked(axis, seen, best, labels=True)
        _words(page, left + LARGE + 2 * GAP, top, WORDS_WIDTH - GAP, LARGE, seen, best)
        height = LARGE
    if seen.kind == PATCHES:
        each = _each(height, len(others) + 1)
        axis = page.axes(right, top, each - 0.1, each - 0.1)
        axis.imshow(seen.result.frames[0])
        axis.set_anchor("NW")
        _bare(axis, "0.8", 1)
        page.line(right + each, top, "the picture", size=8, bold=True)
        _others(page, right, top + each, height - each, seen, others)
    else:
        _others(page, right, top, height, seen, others)
    return top + height


def _told(seen: Seen, best: int) -> str:
    count = seen.media_KP.shape[1]
    unit = "patch" if seen.kind == PATCHES else "frame"
    said = [
        f"slot {best + 1} of {len(seen.fits_K)} fits the query best ({seen.fits_K[best]:.3f})",
        f"largest weight of a {unit} {seen.media_KP[best].max():.1%}, spread evenly {1 / count:.1%}",
    ]
    if seen.kind == PATCHES:
        said.append(f"left out: the picture's summary (CLS), {_rest(seen.media_KP[best]):.1%}")
    if seen.words and _rest(seen.words_KW[best]) > 0.0005:
        said.append(f"marks of beginning and end, {_rest(seen.words_KW[best]):.1%}")
    return " · ".join(said)


def _rest(weights: np.ndarray) -> float:
    return max(0.0, 1 - float(weights.sum()))


def _looked(axis: Axes, seen: Seen, slot: int, labels: bool = False) -> None:
    """A picture under its patches' weights; of frames, and of features, bars."""
    weights_P = seen.media_KP[slot]
    if seen.kind == PATCHES:
        picture = seen.result.frames[0]
        if seen.cropped:
            picture = picture.convert("RGB").crop(tuple(map(round, square(*picture.size))))
        side = round(len(weights_P) ** 0.5)
        extent = (-0.5, picture.width - 0.5, picture.height - 0.5, -0.5)
        axis.imshow(picture.convert("L"), "gray", vmin=0, vmax=255)  # so that all colour is the heat's
        axis.imshow(weights_P.reshape(side, side), HEAT, alpha=0.55, vmin=0, extent=extent, interpolation="nearest")
        _bare(axis, "0.8", 1)
        return
    axis.bar(range(1, len(weights_P) + 1), weights_P, color=WORD)
    axis.axhline(1 / len(weights_P), color=FAINT, linestyle="--", linewidth=1)
    axis.set_ylim(0, max(1.15 * float(weights_P.max()), 1e-6))
    axis.tick_params(labelsize=7)
    if labels:
        axis.set_xlabel("weight by frame (dashed: spread evenly)", fontsize=8, labelpad=1)
    else:
        axis.set_xticks([])
        axis.set_yticks([])


def _strip(page: Page, top: float, seen: Seen, slot: int) -> float:
    """The frames of a video with their weights; where the strip ends."""
    weights_F = seen.media_KP[slot]
    width = (WIDTH - 2 * MARGIN - (A_ROW - 1) * GAP / 2) / A_ROW
    height = min(STRIP, max(width * frame.height / frame.width for frame in seen.result.frames))
    for place, (frame, weight) in enumerate(zip(seen.result.frames, weights_F, strict=True)):
        row, column = divmod(place, A_ROW)
        left, upper = MARGIN + column * (width + GAP / 2), top + row * (height + 0.3)
        axis = page.axes(left, upper, width, height)
        axis.imshow(frame)
        axis.set_anchor("SW")
        _bare(axis, "0.8", 1)
        share = float(weight) / (float(weights_F.max()) or 1.0)
        page.box(left, upper + height + 0.04, share * width, 0.18, 1.0, WORD)
        page.line(left + 0.04, upper + height + 0.05, f"frame {place + 1}: {weight:.1%}", size=9)
    return top + (-(-len(weights_F) // A_ROW)) * (height + 0.3) + 0.1


def _words(page: Page, left: float, top: float, width: float, height: float, seen: Seen, slot: int) -> None:
    if not seen.words:
        page.wrapped(left, top, width, "The item has no description: a learned token stands in.", "", size=10, most=2)
        return
    page.marked(left, top, width, height, seen.words, seen.words_KW[slot], WORD)


def _others(page: Page, left: float, top: float, height: float, seen: Seen, others: Sequence[int]) -> None:
    """The slots that fit less well, small: where they looked, and their words of most weight."""
    shown = others[:OTHERS]
    if not shown:
        return
    each = _each(height, len(shown))
    for place, slot in enumerate(shown):
        upper, side = top + place * each, each - 0.1
        _looked(page.axes(left, upper, side, side), seen, slot)
        told, text = f"slot {slot + 1}: {seen.fits_K[slot]:.3f}", left + side + 0.1
        if place == len(shown) - 1 and len(others) > len(shown):
            told += f" (not shown: {len(others) - len(shown)} that fit less well)"
        page.line(text, upper, told, size=8, bold=True)
        rows = min(BEST_WORDS, int((each - 0.2) / LINE))
        best_W = np.argsort(-seen.words_KW[slot], kind="stable")[:rows]  # none without a description
        for row, word in enumerate(best_W.tolist()):
            line = f"{seen.words_KW[slot][word]:.1%}  {seen.words[word].text}"
            page.line(text, upper + 0.16 + row * LINE, line, f"word {word + 1}", size=7.5, width=2.6)


def _each(height: float, count: int) -> float:
    """Of so many small cells one below the other, the height."""
    return min(1.1, height / min(count, OTHERS + 1))


def _bare(axis: Axes, colour: str, width: float) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(edgecolor=colour, linewidth=width)
