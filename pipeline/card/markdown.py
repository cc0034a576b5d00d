"""Markdown for cards: text that cannot break out of its cell, and tables of counts."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.corpus.counting import Counts

SHOWN_VALUES = 20
JOINERS = "\u200c\u200d"  # not printable by themselves; emoji, Persian and the scripts of India are written with them


def plain(text: str, limit: int | None = None) -> str:
    """Text as Markdown shows it literally, on one line: it cannot open a tag, a cell, a link or a heading."""
    text = " ".join("".join(c if c.isprintable() or c.isspace() or c in JOINERS else "\ufffd" for c in text).split())
    if limit and len(text) > limit:
        text = f"{text[: limit - 1].rstrip()}…"
    # Within a word an underscore is literal as it stands, and file names stay readable.
    return re.sub(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^#", r"\\\g<0>", html.escape(text, quote=False))


def public(text: str) -> str:
    """The text with `…/` for the folders of absolute paths, and for all of a URL but its last part.

    >>> public("/home/me/my photos/a.jpg: there is no such file")
    '…/a.jpg: there is no such file'
    """
    text = re.sub(r"[A-Za-z][\w+.-]*://[^\s'\"?#]*?([^\s'\"/?#]*)/?([?#][^\s'\"]*)?(?=[\s'\"]|$)", r"…/\1", text)
    return re.sub(r"(?<![^\s'\"(\[=])~?/([^:'\"]*/)?(?=\S)", "…/", text)


def grid(header: Sequence[str], rows: Iterable[Sequence[Any]], limit: int | None = None) -> str:
    """A Markdown table, empty columns left out; cells are escaped and cut to `limit` characters."""
    columns = [column for column in zip(header, *rows, strict=True) if any(cell != "" for cell in column[1:])]
    if not columns:
        return "None."
    marks = ["---:" if isinstance(column[1], int) else "---" for column in columns]
    cells = [[f"{cell:,}" if isinstance(cell, int) else plain(cell, limit) for cell in column] for column in columns]
    head, *rest = zip(*cells, strict=True)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, marks, *rest))


def some(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def ranked(counts: Counts) -> list[tuple]:
    """The commonest rows, each with its count at the end; the others are one row."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rows: list[tuple] = [(*key, count) for key, count in ordered[:SHOWN_VALUES]]
    if rest := ordered[SHOWN_VALUES:]:
        rows.append((f"({len(rest):,} others)", *[""] * (len(rest[0][0]) - 1), sum(count for _, count in rest)))
    return rows


def matrix(counts: Counts, totals: Counts, head: str = "view") -> str:
    """Counts of (view, value) as a table of views by values, each with its share of the view's total.

    `head` names what stands where views do.
    """
    columns = sorted({column for _, column in counts})
    shares = ([(counts[view, column], total) for column in columns] for (view,), total in totals.items())
    cells = ([f"{count:,} ({count / total:.1%})" if count else "0" for count, total in row] for row in shares)
    return grid([head, *columns], ([view, *row] for (view,), row in zip(totals, cells, strict=True)))
