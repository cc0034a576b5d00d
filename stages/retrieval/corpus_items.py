"""The items of corpora: as an index stores them, and page by page as people browse them.

Shards are memory-mapped and sliced, so a page of a corpus of millions costs what a page of a small one does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import Table, complete, manifest_hash
from pipeline.errors import UsageError
from pipeline.hashing import canonical_json, short_hash
from stages.data.media import Frames, item_frames
from stages.data.samples import ALL, Shards, all_views, check_views
from stages.retrieval.index_reader import ItemRecord

CARD = "README.md"
MAX_CARD_BYTES = 500_000
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_IMAGE = re.compile(r"!\[[^\]]*\](\([^)]*\)|\[[^\]]*\])?|<\s*(img|video|iframe|link|script)\b[^>]*>", re.IGNORECASE)
_FACTS = ("item_id", "media_type", "split", "width", "height", "num_frames", "duration_s", "source", "license")
FIELDS = ["item_id", "uri", "sha256", "split", "media_type", "descriptions"]


class Place(NamedTuple):
    """Where an item is: the number of its shard among those of all corpora, and its row in it."""

    shard: int
    row: int


class CorpusItems:
    """The items of a split of some corpora. Media are read when they are asked for.

    Args:
        corpora: Corpus folders with different names.
        split: The split to index; all if not given.
        views: Names of the descriptions to read; all if empty.

    Raises:
        UsageError: A corpus has no table `training`, two folders have the same name, or a view is in no corpus.
    """

    def __init__(self, corpora: Sequence[Path], split: str | None, views: Sequence[str]):
        self.corpora = {path.absolute().name: path for path in corpora}
        if len(self.corpora) < len(corpora):
            names = [path.absolute().name for path in corpora]
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"--data: two corpora are named {twice}, but results name their corpus. Rename one folder")
        self.names = list(self.corpora)
        self.split, self.views = split, tuple(views) or (ALL,)
        self.shards = Shards(corpora)
        if views:
            check_views(self.shards, "--views", views, all_views(self.shards))

    def origin(self) -> dict[str, Any]:
        """What the index records of its corpora, with a hash of their contents."""
        corpora = [
            {"name": name, "path": str(path.absolute()), "training": manifest_hash(path, "training")}
            for name, path in self.corpora.items()
        ]
        return {"corpora": corpora, "split": self.split, "views": list(self.views)}

    def scan(self) -> tuple[np.ndarray, pa.Array]:
        """Read every item once, without its media.

        Returns:
            Places [N,2] int32 (shard, row) and the contents of the items, in order.

        Raises:
            UsageError: The split has no items, or an item occurs twice.
        """
        places, contents = [np.empty((0, 2), np.int32)], [pa.array([], pa.string())]
        ids: dict[str, list[pa.Array]] = {name: [] for name in self.names}
        for number in range(len(self.shards)):
            table, corpus = self.shards.shard(number).select(FIELDS), self._corpus(number)
            mask_N = (
                np.ones(len(table), bool) if self.split is None else pc.equal(table["split"], self.split).to_numpy()
            )
            rows_M = np.flatnonzero(mask_N).astype(np.int32)
            chosen = table.take(pa.array(rows_M))
            places.append(np.stack([np.full_like(rows_M, number), rows_M], axis=1))
            contents.append(pa.array([self._record(corpus, row)["content"] for row in chosen.to_pylist()], pa.string()))
            ids[corpus].extend(chosen["item_id"].chunks)
        for corpus, chunks in ids.items():
            counts = pc.value_counts(pa.chunked_array(chunks, pa.string()))
            repeated = counts.filter(pc.greater(counts.field("counts"), 1))
            if len(repeated):
                item_id = repeated[0]["values"].as_py()
                raise UsageError(f"--data: item {item_id} of {corpus} occurs twice. Run --stage pack again")
        if not sum(map(len, contents)):
            raise UsageError(f"--data: there is no item in split {self.split!r}. Leave --split out to index all")
        return np.concatenate(places), pa.concat_arrays(contents)

    def record(self, place: Place) -> ItemRecord:
        """What the index keeps of an item besides its vectors."""
        row = self.shards.shard(place.shard).slice(place.row, 1).select(FIELDS).to_pylist()[0]
        return self._record(self._corpus(place.shard), row)

    def media(self, place: Place) -> Frames:
        """The pictures of an item, or its precomputed features."""
        return item_frames(self.shards, place.shard, self.shards.row(place.shard, place.row))

    def _corpus(self, shard: int) -> str:
        return self.names[self.shards.corpus_of[shard]]

    def _record(self, corpus: str, row: dict[str, Any]) -> ItemRecord:
        views = [text for text in row["descriptions"] if ALL in self.views or text["view"] in self.views]
        fields = {name: row[name] for name in FIELDS if name != "descriptions"}
        record = {**fields, "corpus": corpus, "texts": [{"view": text["view"], "text": text["text"]} for text in views]}
        return {**record, "content": short_hash(canonical_json(record))}  # type: ignore[typeddict-item]


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
    return _IMAGE.sub("", _FRONT_MATTER.sub("", text))
