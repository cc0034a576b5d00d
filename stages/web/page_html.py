"""What the page shows besides pictures, as HTML in which every text of a corpus or a user is escaped."""

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from stages.retrieval.corpus_browser import Item

if TYPE_CHECKING:
    from stages.retrieval.engine import Hit

MOST_ROWS = 200  # of a table
MOST_CAPTION = 90  # characters under a picture


def status(text: str) -> str:
    """A line that is read out when it changes."""
    return f'<p role="status" aria-live="polite">{html.escape(text)}</p>'


def under(hit: "Hit") -> str:
    """What stands under a result's picture: plain text, which the gallery escapes."""
    text = hit.text or hit.item_id
    return f"{hit.rank} · {hit.score:.3f} · {text if len(text) <= MOST_CAPTION else text[: MOST_CAPTION - 1] + '…'}"


def result(hit: "Hit") -> str:
    rows = [
        ("Rank", str(hit.rank)),
        ("Score", f"{hit.score:.4f}"),
        ("Item", hit.item_id),
        ("Corpus", hit.corpus),
        ("Split", hit.split),
        ("Kind", hit.media_type),
        ("Matched", hit.matched),
        ("Nearest description", f"{hit.view}: {hit.text}" if hit.text else "this item has none"),
    ]
    return f"<h3>Result {hit.rank}</h3>{_table((), rows)}"


def descriptions(rows: Sequence[dict[str, Any]]) -> str:
    return _section("Descriptions", ("View", "Text"), [(row["view"], row["text"]) for row in rows])


def item(shown: Item) -> str:
    """All that is known of an item, but where it lies."""
    told = [(name.replace("_", " "), str(value)) for name, value in shown.told.items()]
    captions = [(row["language"], row["origin"], row["text"]) for row in shown.captions]
    translations = [
        (row["target_language"], row["text"], row["source_text"], _scores(row["scores"]), ", ".join(row["flags"]))
        for row in shown.translations
    ]
    return (
        f"<h3>{html.escape(shown.told['item_id'])}</h3>"
        + _table((), told)
        + descriptions(shown.descriptions)
        + _section("Captions", ("Language", "By", "Text"), captions)
        + _section("Translations", ("Language", "Text", "Of", "Scores", "Rules that fired"), translations)
    )


def _scores(scores: dict[str, float | None]) -> str:
    return " · ".join(f"{name} {value:.2f}" for name, value in scores.items() if value is not None)


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"<h4>{title}</h4>{_table(header, rows) if rows else '<p>None.</p>'}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """`dir=auto`: a text from right to left is shown so, whatever stands beside it."""
    head = f"<thead><tr>{_cells('th scope=col', header)}</tr></thead>" if header else ""
    body = "".join(
        f"<tr>{_cells('th scope=row', row[:1])}{_cells('td', row[1:])}</tr>" if not header else
        f"<tr>{_cells('td', row)}</tr>"
        for row in rows[:MOST_ROWS]
    )  # fmt: skip
    more = f"<p>… and {len(rows) - MOST_ROWS:,} more.</p>" if len(rows) > MOST_ROWS else ""
    return f"<table class=told>{head}<tbody>{body}</tbody></table>{more}"


def _cells(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag} dir=auto>{html.escape(text)}</{tag.split()[0]}>" for text in texts)
