"""The items of corpora: as an index stores them, and page by page as people browse them.

Shards are memory-mapped and sliced, so a page of a corpus of millions costs what a page of a small one does.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import Table, complete, manifest_hash, vectors_of
from pipeline.errors import UsageError
from stages.data.samples import ALL, PARTS, Shards, all_views, check_views, human_captions, no_such_split
from stages.retrieval.encoders import PartRows, Space
from stages.retrieval.index_reader import RECORD
from stages.retrieval.index_writer import Block

CARD = "README.md"
MAX_CARD_BYTES = 500_000
_HIDDEN = re.compile(r"\A---\n.*?\n---\n|<!--.*?-->", re.DOTALL)  # front matter and comments
_IMAGE = re.compile(r"!\[[^\]]*\](\([^)]*\)|\[[^\]]*\])?|<\s*(img|video|iframe|link|script)\b[^>]*>", re.IGNORECASE)
_FACTS = ("item_id", "media_type", "split", "width", "height", "num_frames", "duration_s", "source", "license")
FIELDS = ["item_id", "uri", "sha256", "split", "media_type", "captions", "descriptions"]


class CorpusItems:
    """The items of a split of some corpora, whose tables `training` and `vectors` belong together.

    Args:
        corpora: Corpus folders with different names.
        split: The split to index; all if not given.
        views: Names of the descriptions to keep; all if empty.
        captions: Whether human captions are searched too.

    Raises:
        UsageError: A corpus has no table `training`, two folders have the same name, or there is no such split or view.
    """

    def __init__(self, corpora: Sequence[Path], split: str | None, views: Sequence[str], captions: bool = True):
        self.corpora = {path.absolute().name: path for path in corpora}
        if len(self.corpora) < len(corpora):
            names = [path.absolute().name for path in corpora]
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"--data: two corpora are named {twice}, but results name their corpus. Rename one folder")
        self.split, self.views, self.captions = split, tuple(views) or (ALL,), captions
        shards = Shards(corpora)
        if views:
            check_views(shards, "--views", views, all_views(shards))
        if split is not None and not any(split in shards.shard(n)["split"].to_pylist() for n in range(len(shards))):
            raise no_such_split(shards, split)

    def origin(self) -> dict[str, Any]:
        """What the index records of its corpora, with a hash of their contents."""
        corpora = [
            {"name": name, "path": str(path.absolute()), "training": manifest_hash(path, "training")}
            for name, path in self.corpora.items()
        ]
        return {"corpora": corpora, "split": self.split, "views": list(self.views), "captions": self.captions}

    def blocks(self, space: Space) -> Iterator[Block]:
        """The items with the rows that this space makes of their vectors, shard by shard."""
        for name, path in self.corpora.items():
            training, vectors = Table(path, "training"), Table(path, "vectors")
            for number in range(training.num_shards):
                yield self._block(name, training.shard(number).select(FIELDS), vectors.shard(number), space)

    def _block(self, corpus: str, items: pa.Table, vectors: pa.Table, space: Space) -> Block:
        if self.split is not None:
            items = items.filter(pc.equal(items["split"], self.split))
        own = vectors.filter(pc.equal(vectors["part"], "item"))
        items = items.filter(pc.is_in(items["item_id"], value_set=own["item_id"]))  # media of others cannot be read
        descriptions = items["descriptions"].to_pylist()
        texts = [[text for text in of if ALL in self.views or text["view"] in self.views] for of in descriptions]
        for of, written in zip(texts, items["captions"].to_pylist(), strict=True):
            of += [{"view": "caption", "text": text} for text in human_captions(written)] if self.captions else []
        records = items.drop_columns(["captions", "descriptions"]).append_column(
            "corpus", pa.array([corpus] * len(items), pa.string())
        )
        records = records.append_column("texts", pa.array(texts, RECORD.field("texts").type))
        if ALL not in self.views:
            kept = pc.is_in(vectors["view"], value_set=pa.array(self.views, pa.string()))
            vectors = vectors.filter(pc.or_(kept, pc.not_equal(vectors["part"], "view")))
        if not self.captions:
            vectors = vectors.filter(pc.not_equal(vectors["part"], "caption"))
        item, slots, views, captions, frames = (_part_rows(vectors, part, items["item_id"]) for part in PARTS)
        media_RE, counts_N = space.rows(item.vectors_RE, slots, views, captions)
        of_texts_R = np.concatenate([views.items_R, captions.items_R])  # in each item descriptions, then captions
        text_RE = np.concatenate([views.vectors_RE, captions.vectors_RE])[np.argsort(of_texts_R, kind="stable")]
        counts = {"text": np.array(list(map(len, texts)), np.int32), "media": counts_N}
        counts["frame"] = np.bincount(frames.items_R, minlength=len(items)).astype(np.int32)
        return Block(records, counts, {"media": media_RE, "text": text_RE, "frame": frames.vectors_RE})


def _part_rows(vectors: pa.Table, part: str, item_ids: pa.ChunkedArray) -> PartRows:
    """The vectors of a part, of these items in their order."""
    rows = vectors.filter(pc.equal(vectors["part"], part))
    numbers = pc.index_in(rows["item_id"], value_set=item_ids)
    rows = rows.filter(pc.is_valid(numbers))
    return PartRows(vectors_of(rows), pc.drop_null(numbers).to_numpy(), rows["view"].to_pylist())


@dataclass(frozen=True)
class Item:
    """An item with its texts.

    Attributes:
        facts: Id, kind, split, sizes, source and licence, as far as they are known.
        descriptions: Rows as their table has them; likewise `captions` and `translations`.
    """

    facts: dict[str, Any]
    descriptions: list[dict[str, Any]]
    captions: list[dict[str, Any]]
    translations: list[dict[str, Any]]


class Browser:
    """The items of a corpus folder, from `items`, or from `training` if it was packed from other corpora.

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
        """An item with its texts. Raises KeyError if it does not exist."""
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
            return Item(facts, record["descriptions"], record["captions"], [])  # among which the translations are
        texts = {name: _of_item(table.shard(number), record["item_id"]) for name, table in self.others.items()}
        return Item(facts, *(texts.get(name, []) for name in ("descriptions", "captions", "translations")))


def _of_item(shard: pa.Table, item_id: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = shard.filter(pc.equal(shard["item_id"], item_id)).to_pylist()
    return rows


def read_card(corpus: Path) -> str:
    """The corpus's card in Markdown; empty if there is none.

    Its pictures are left out: they may be anywhere, and would be fetched by whoever reads it.
    """
    path = corpus / CARD
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        text = stream.read(MAX_CARD_BYTES).decode("utf-8", "replace")
    return _IMAGE.sub("", _HIDDEN.sub("", text))
