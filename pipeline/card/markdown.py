"""Markdown for cards: text that cannot break out of its cell, and tables of counts."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.corpus.counting import Counts

MAX_VALUES = 20  # of a column of free text that are listed
JOINERS = "\u200c\u200d"  # not printable, but emoji, Persian and Indian scripts are written with them


class Markdown(str):
    """Text that is Markdown already and is not escaped again."""

    __slots__ = ()


def escape(text: str, limit: int | None = None) -> str:
    """Text that Markdown shows literally, on one line: it cannot open a tag, a cell, a link or a heading."""
    text = " ".join("".join(c if c.isprintable() or c.isspace() or c in JOINERS else "\ufffd" for c in text).split())
    if limit and len(text) > limit:
        text = f"{text[: limit - 1].rstrip()}…"
    # An underscore within a word is literal anyway, and file names stay readable.
    return re.sub(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^#", r"\\\g<0>", html.escape(text, quote=False))


def public(text: str) -> str:
    """The text with `…/` in place of the folders of absolute paths, and of all of a URL but its last part.

    >>> public("/home/me/my photos/a.jpg: there is no such file")
    '…/a.jpg: there is no such file'
    """
    text = re.sub(r"[A-Za-z][\w+.-]*://[^\s'\"?#]*?([^\s'\"/?#]*)/?([?#][^\s'\"]*)?(?=[\s'\"]|$)", r"…/\1", text)
    return re.sub(r"(?<![^\s'\"(\[=])~?/([^:'\"]*/)?(?=\S)", "…/", text)


def show(value: Any, limit: int | None = None) -> str:
    """A value as a card shows it: escaped unless it is Markdown, numbers with thousands separators."""
    if isinstance(value, Markdown):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape(f"{value:g}" if isinstance(value, float) else str(value), limit)


def grid(header: Sequence[str], rows: Iterable[Sequence[Any]], limit: int | None = None) -> Markdown:
    """A Markdown table without its empty columns; cells are cut to `limit` characters."""
    table = [column for column in zip(header, *rows, strict=True) if any(cell != "" for cell in column[1:])]
    if not table:
        return Markdown("None.")
    marks = ["---:" if isinstance(column[1], int) else "---" for column in table]
    head, *body = zip(*([show(cell, limit) for cell in column] for column in table), strict=True)
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in (head, marks, *body)))


def count_table(header: Sequence[str], counts: Counts, *more: Mapping[Any, Any], ordered: bool = False) -> Markdown:
    """Counts as a table: the parts of a key, its count, and what `more` have for the key.

    Rows are sorted by key, or, where the counts are `ordered`, stay in their order.
    """
    keys = list(counts) if ordered else sorted(counts)
    return grid(header, [[*key, counts[key], *(values.get(key, "") for values in more)] for key in keys])


def ranking(header: Sequence[str], counts: Counts, blank: str = "") -> Markdown:
    """The commonest keys with their counts, and one row for the others. `blank` stands for empty texts."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rows: list[list[Any]] = [[*(part or blank for part in key), count] for key, count in ranked[:MAX_VALUES]]
    if others := ranked[MAX_VALUES:]:
        blanks = [""] * (len(header) - 2)
        rows.append([f"({len(others):,} others)", *blanks, sum(count for _, count in others)])
    return grid(header, rows)


def matrix(head: str, counts: Counts, totals: Mapping[Any, int]) -> Markdown:
    """Counts of (row, column) as a table, each with its share of the row's total."""
    names = sorted({column for _, column in counts})
    rows = []
    for (row,), total in totals.items():
        rows.append([row, *(f"{counts[row, name]:,} ({counts[row, name] / total:.1%})" for name in names)])
    return grid([head, *names], rows)


def nested(head: str, rows: Mapping[str, Mapping[str, float | None]]) -> Markdown:
    """Numbers by row and column as a table; None, a rule without a threshold, is "off"."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = []
    for row, numbers in sorted(rows.items()):
        values = [numbers.get(name, "") for name in names]
        cells.append([row, *("off" if value is None else value for value in values)])
    return grid([head, *names], cells)


def pairs_grid(pairs: Iterable[Mapping[str, Any]]) -> Markdown:
    """Translated pairs with their quality and flags."""
    rows = [
        [row["source_text"], row["text"].strip() or "(empty)", f"{row['quality']:.3f}", row["flags"]] for row in pairs
    ]
    return grid(["source", "translation", "quality", "flags"], rows, 200)


def legend(counts: Counts, meanings: Mapping[str, str]) -> Markdown:
    """What the last parts of the keys mean: `**cut**: it reached the token limit; …`."""
    present = {key[-1] for key in counts}
    return Markdown("; ".join(f"**{name}**: {meaning}" for name, meaning in meanings.items() if name in present))


def plural(count: int, noun: str) -> str:
    """A count with its noun: `1 item`, `2,000 items`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
