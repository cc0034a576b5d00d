"""The texts of one training item, of one corpus or of several that have its content: captions, translations,
descriptions."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.engine.stage import Rows
from pipeline.packing.filters import Filters
from pipeline.translation.given import GIVEN_ORIGIN, translated_id

MLLM = "mllm"  # the origin of a caption that is a description, written by a model of others
REFUSAL = "refusal"  # the flag of a description in which the model declined, see captioning.clean


@dataclasses.dataclass(frozen=True)
class Source:
    """An item in one corpus. `prefix` goes before its ids: "" where there is one corpus, else "NAME/"."""

    prefix: str
    item: Mapping[str, Any]
    rows: Mapping[str, Rows]  # by table, of this item

    @property
    def item_id(self) -> str:
        return f"{self.prefix}{self.item['item_id']}"


def captions(sources: Sequence[Source], filters: Filters) -> Rows:
    """Captions in the order of the table, then the translations that no filter drops, in theirs. A text that another
    corpus gave before, in the same language, does not come again.

    Captions of origin `mllm` are descriptions. One of origin `mt` gives way to the row of `translations` that has its
    number and language: that one is measured, and may be dropped.
    """
    own = [(number, row) for number, source in enumerate(sources) for row in _written(source)]
    translated = [(number, row) for number, source in enumerate(sources) for row in _translated(source, filters)]
    return _once([*own, *translated], "language")


def descriptions(sources: Sequence[Source]) -> Rows:
    """Views and texts but those in which the model declined, then those that came as captions, as views `given-0`, …;
    what another corpus gave before does not come again."""
    return _once([(number, row) for number, source in enumerate(sources) for row in _described(source)], "view")


def _described(source: Source) -> Iterator[dict[str, Any]]:
    for row in source.rows.get("descriptions", ()):
        if REFUSAL not in row["flags"]:
            yield {"view": row["view"], "text": row["text"]}
    for row in source.rows.get("captions", ()):
        if row["origin"] == MLLM:
            number = row["caption_id"].rpartition("#")[2]
            # Views are of English; those in other languages must not pass for them, nor clash with their numbers.
            english = row["language"].split("-")[0] == "en"
            view = f"given-{number}" if english else f"given-{row['language']}-{number}"
            yield {"view": view, "text": row["text"]}


def _written(source: Source) -> Iterator[dict[str, Any]]:
    measured = {
        translated_id(row["caption_id"], row["item_id"], row["target_language"])
        for row in source.rows.get("translations", ())
        if row["source_table"] == "captions"
    }
    for row in source.rows.get("captions", ()):
        if row["origin"] == MLLM or (row["origin"] == GIVEN_ORIGIN and row["caption_id"] in measured):
            continue
        yield {
            "caption_id": f"{source.prefix}{row['caption_id']}",
            "language": row["language"],
            "text": row["text"],
            "origin": row["origin"],
            "quality": 1.0 if row["origin"] == "human" else 0.0,  # of others nobody measured it
        }


def _translated(source: Source, filters: Filters) -> Iterator[dict[str, Any]]:
    refused = {
        f"{row['item_id']}#{row['view']}" for row in source.rows.get("descriptions", ()) if REFUSAL in row["flags"]
    }
    for row in source.rows.get("translations", ()):
        if (row["source_table"] == "descriptions" and row["caption_id"] in refused) or filters.against(row):
            continue
        yield {
            "caption_id": f"{source.prefix}{row['caption_id']}>{row['target_language']}",
            "language": row["target_language"],
            "text": row["text"],
            "origin": "mt",
            "quality": row["scores"]["quality"] or 0.0,
        }


def _once(rows: Sequence[tuple[int, dict[str, Any]]], key: str) -> Rows:
    """The rows, less those that a row of another source says before them. Within a source, nothing is taken out."""
    said: dict[tuple[str, str], int] = {}
    return [row for number, row in rows if said.setdefault((row[key], row["text"]), number) == number]
