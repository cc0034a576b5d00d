"""The items of corpora as an index wants them: where each is, a hash of its content, its media and its texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import manifest_hash
from pipeline.errors import UsageError
from pipeline.hashing import canonical_json, short_hash
from stages.data.media import Frames, item_frames
from stages.data.samples import ALL, Shards, all_views, check_views
from stages.retrieval.index_reader import ItemRecord

FIELDS = ["item_id", "uri", "sha256", "split", "media_type", "descriptions"]


class Place(NamedTuple):
    """Where an item is: the number of its shard among those of all corpora, and its row in it."""

    shard: int
    row: int


class CorpusItems:
    """The items of a split of some corpora. Media are read when they are asked for.

    Args:
        corpora: Corpus folders. Their names tell the corpora apart.
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
            raise UsageError(f"--data: two corpora are named {twice}, and results go by the name. Rename one folder")
        self.names = list(self.corpora)
        self.split, self.views = split, tuple(views) or (ALL,)
        self.shards = Shards(corpora)
        if views:
            check_views(self.shards, "--views", views, all_views(self.shards))

    def origin(self) -> dict[str, Any]:
        """What the index notes about its corpora, with a hash of their contents."""
        corpora = [
            {"name": name, "path": str(path.absolute()), "training": manifest_hash(path, "training")}
            for name, path in self.corpora.items()
        ]
        return {"corpora": corpora, "split": self.split, "views": list(self.views)}

    def scan(self) -> tuple[np.ndarray, pa.Array]:
        """Look at every item once, without its media.

        Returns:
            Places [N,2] int32 (shard, row) and the contents of the items, in order.

        Raises:
            UsageError: The split has no items, or an item is there twice.
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
                raise UsageError(f"--data: item {item_id} of {corpus} is there twice. Run --stage pack again")
        if not sum(map(len, contents)):
            raise UsageError(f"--data: there is no item in split {self.split!r}. Leave --split out to index all")
        return np.concatenate(places), pa.concat_arrays(contents)

    def record(self, place: Place) -> ItemRecord:
        """What the index keeps of an item besides its vectors."""
        row = self.shards.shard(place.shard).slice(place.row, 1).select(FIELDS).to_pylist()[0]
        return self._record(self._corpus(place.shard), row)

    def media(self, place: Place) -> Frames:
        """The pictures of an item, or the features computed from it."""
        return item_frames(self.shards, place.shard, self.shards.row(place.shard, place.row))

    def _corpus(self, shard: int) -> str:
        return self.names[self.shards.corpus_of[shard]]

    def _record(self, corpus: str, row: dict[str, Any]) -> ItemRecord:
        views = [text for text in row["descriptions"] if ALL in self.views or text["view"] in self.views]
        fields = {name: row[name] for name in FIELDS if name != "descriptions"}
        record = {**fields, "corpus": corpus, "texts": [{"view": text["view"], "text": text["text"]} for text in views]}
        return {**record, "content": short_hash(canonical_json(record))}  # type: ignore[typeddict-item]
