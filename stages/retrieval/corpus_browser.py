"""A corpus read page by page: items in its order, and what was written about one of them.

Shards are memory-mapped and sliced, so a page of a corpus of millions costs what a page of a small one does.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import Table, complete

CARD = "README.md"
MOST_CARD_BYTES = 500_000
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_IMAGE = re.compile(r"!\[[^\]]*\](\([^)]*\)|\[[^\]]*\])?|<\s*(img|video|iframe|link|script)\b[^>]*>", re.IGNORECASE)
_TOLD = ("item_id", "media_type", "split", "width", "height", "num_frames", "duration_s", "source", "license")


@dataclass(frozen=True)
class Item:
    """An item with its texts, rows as their tables have them."""

    told: dict[str, Any]
    descriptions: list[dict[str, Any]]
    captions: list[dict[str, Any]]
    translations: list[dict[str, Any]]


class Browser:
    """The items of a corpus folder, from `items`, or from `training` where it was packed from other corpora.

    Raises UsageError where it has neither, EnvironmentTrouble where a shard cannot be read.
    """

    def __init__(self, corpus: Path):
        self.items = Table(corpus, "items" if complete(corpus, "items") else "training")
        others = ("descriptions", "captions", "translations") if self.items.name == "items" else ()
        self.others = {name: Table(corpus, name) for name in others if complete(corpus, name)}

    def __len__(self) -> int:
        return self.items.num_rows

    def page(self, start: int, count: int) -> list[dict[str, Any]]:
        """`item_id`, `split` and `media_type` of rows `start` to `start + count`, fewer at the end."""
        found: list[dict[str, Any]] = []
        for number, before, rows in self._shards():
            if before < start + count and start < before + rows:
                shard = self.items.shard(number).select(["item_id", "split", "media_type"])
                first = max(start - before, 0)
                found += shard.slice(first, start + count - before - first).to_pylist()
        return found

    def item(self, row: int) -> Item:
        """Raises IndexError for a row that is not there."""
        for number, before, rows in self._shards():
            if before <= row < before + rows:
                return self._item(number, row - before)
        raise IndexError(f"got row {row}, the corpus has {len(self)}")

    def named(self, item_id: str) -> Item:
        """Raises KeyError for an item that is not there."""
        for number in range(self.items.num_shards):
            row = pc.index(self.items.shard(number)["item_id"], item_id).as_py()
            if row >= 0:
                return self._item(number, row)
        raise KeyError(item_id)

    def _shards(self) -> list[tuple[int, int, int]]:
        """Of each shard its number, the rows before it, and its own."""
        found, before = [], 0
        for number, entry in enumerate(self.items.manifest["shards"]):
            found.append((number, before, entry["rows"]))
            before += entry["rows"]
        return found

    def _item(self, number: int, row: int) -> Item:
        shard = self.items.shard(number)
        wanted = [*_TOLD, "captions", "descriptions"]  # never the pixels
        record = shard.select([name for name in wanted if name in shard.column_names]).slice(row, 1).to_pylist()[0]
        told = {name: record[name] for name in _TOLD if record.get(name) not in (None, "")}
        if self.items.name == "training":
            return _packed(told, record)
        texts = {name: _of_item(table.shard(number), record["item_id"]) for name, table in self.others.items()}
        return Item(told, *(texts.get(name, []) for name in ("descriptions", "captions", "translations")))


def _of_item(shard: pa.Table, item_id: str) -> list[dict[str, Any]]:
    return shard.filter(pc.equal(shard["item_id"], item_id)).to_pylist()


def _packed(told: dict[str, Any], record: dict[str, Any]) -> Item:
    """Of a row of `training`, whose translations are captions like others, with a quality."""
    by_id = {caption["caption_id"]: caption["text"] for caption in record["captions"]}
    captions = [caption for caption in record["captions"] if caption["origin"] != "mt"]
    translations = [
        {
            "target_language": caption["language"],
            "text": caption["text"],
            "source_text": by_id.get(caption["caption_id"].rpartition(">")[0], ""),
            "scores": {"quality": caption["quality"]},
            "flags": [],
        }
        for caption in record["captions"]
        if caption["origin"] == "mt"
    ]
    return Item(told, record["descriptions"], captions, translations)


def card(corpus: Path) -> str:
    """The corpus's card in Markdown, empty where there is none. Its pictures are left out, whoever wrote it: they may
    lie anywhere, and be fetched by whom reads it."""
    path = corpus / CARD
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        text = stream.read(MOST_CARD_BYTES).decode("utf-8", "replace")
    return _IMAGE.sub("", _FRONT_MATTER.sub("", text))
