"""A corpus read page by page: items in its order, and the texts of one of them.

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
MAX_CARD_BYTES = 500_000
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_IMAGE = re.compile(r"!\[[^\]]*\](\([^)]*\)|\[[^\]]*\])?|<\s*(img|video|iframe|link|script)\b[^>]*>", re.IGNORECASE)
_FACTS = ("item_id", "media_type", "split", "width", "height", "num_frames", "duration_s", "source", "license")


@dataclass(frozen=True)
class Item:
    """An item with its texts.

    Attributes:
        facts: Id, kind, split, sizes, source and licence; what is not known is left out.
        descriptions: Rows as their table has them; likewise `captions` and `translations`.
    """

    facts: dict[str, Any]
    descriptions: list[dict[str, Any]]
    captions: list[dict[str, Any]]
    translations: list[dict[str, Any]]


class Browser:
    """The items of a corpus folder, from `items`, or from `training` where it was packed from other corpora.

    Raises:
        UsageError: It has neither.
        EnvironmentTrouble: A shard cannot be read.
    """

    def __init__(self, corpus: Path):
        self.items = Table(corpus, "items" if complete(corpus, "items") else "training")
        others = ("descriptions", "captions", "translations") if self.items.name == "items" else ()
        self.others = {name: Table(corpus, name) for name in others if complete(corpus, name)}

    def __len__(self) -> int:
        return self.items.num_rows

    def page(self, start: int, count: int) -> list[dict[str, Any]]:
        """`item_id`, `split` and `media_type` of rows `start` to `start + count`, fewer at the end."""
        items: list[dict[str, Any]] = []
        before = 0
        for number, entry in enumerate(self.items.manifest["shards"]):
            if before < start + count and start < before + entry["rows"]:
                shard = self.items.shard(number).select(["item_id", "split", "media_type"])
                first = max(start - before, 0)
                items += shard.slice(first, start + count - before - first).to_pylist()
            before += entry["rows"]
        return items

    def item(self, item_id: str) -> Item:
        """An item with its texts. Raises KeyError where it is not there."""
        for number in range(self.items.num_shards):
            row = pc.index(self.items.shard(number)["item_id"], item_id).as_py()
            if row >= 0:
                return self._item(number, row)
        raise KeyError(item_id)

    def _item(self, number: int, row: int) -> Item:
        shard = self.items.shard(number)
        names = [*_FACTS, "captions", "descriptions"]  # never the pixels
        record = shard.select([name for name in names if name in shard.column_names]).slice(row, 1).to_pylist()[0]
        facts = {name: record[name] for name in _FACTS if record.get(name) not in (None, "")}
        if self.items.name == "training":
            return _packed(facts, record)
        texts = {name: _of_item(table.shard(number), record["item_id"]) for name, table in self.others.items()}
        return Item(facts, *(texts.get(name, []) for name in ("descriptions", "captions", "translations")))


def _of_item(shard: pa.Table, item_id: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = shard.filter(pc.equal(shard["item_id"], item_id)).to_pylist()
    return rows


def _packed(facts: dict[str, Any], record: dict[str, Any]) -> Item:
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
    return Item(facts, record["descriptions"], captions, translations)


def read_card(corpus: Path) -> str:
    """The corpus's card in Markdown, empty where there is none.

    Its pictures are left out: they may be anywhere, and would be fetched by whoever reads it.
    """
    path = corpus / CARD
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        text = stream.read(MAX_CARD_BYTES).decode("utf-8", "replace")
    return _IMAGE.sub("", _FRONT_MATTER.sub("", text))
