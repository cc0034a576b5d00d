"""The search engine behind program, page and service: queries in any language, or pictures, to the items of an index.

Q queries · C candidates · E width of the space
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from pipeline.corpus.table import complete, manifest_hash
from pipeline.errors import EnvironmentTrouble, MediaError, UsageError
from pipeline.media.images import frames as sampled_frames
from stages.data.media import item_frames
from stages.data.samples import Shards
from stages.retrieval.encoders import Space, open_space
from stages.retrieval.index_reader import OtherOrigin, VectorIndex

MOST_CHARACTERS = 2_000  # of a query
MOST_RESULTS = 1_000
FUSED = 4  # times as many candidates as results are looked at where two scores are mixed, at least LEAST_FUSED
LEAST_FUSED = 100
QUERY_PIXELS = 1024 * 1024  # that a picture query is shrunk to


@dataclass(frozen=True)
class Hit:
    """One result. `view`, `text`: the description nearest to the query, empty where the item has none."""

    rank: int
    score: float
    item_id: str
    corpus: str
    uri: str
    split: str
    media_type: str  # "image" or "video"
    view: str
    text: str
    matched: str  # what of the item the query matched, in words


def open_finder(index: Path, checkpoint: str | None = None, data: Sequence[Path] = ()) -> "Finder":
    """The engine of an index folder. `checkpoint`, `data`: where its model and corpora are by now, if not where they
    were. Raises UsageError where any of them is missing, or is not what the index was made from.
    """
    told = VectorIndex.open(index).origin["space"]
    space = open_space(checkpoint or told["name"])
    if space.told["fingerprint"] != told["fingerprint"]:
        raise UsageError(
            f"--index {index}: was made with {told['name']} {told['fingerprint']}, got {space.told['name']} "
            f"{space.told['fingerprint']}: give the checkpoint that it was made with, or make the index again"
        )
    return Finder(VectorIndex.open(index, expect={"space": {"fingerprint": told["fingerprint"]}}), space, data)


def corpora_of(known: Sequence[dict[str, str]], data: Sequence[Path], index: Path) -> dict[str, Path]:
    """By name, where the corpora of an index are. Raises UsageError for one that is not there, or has changed."""
    wrong = f", nor in {' or '.join(map(str, data))}" if data else ""
    there = {manifest_hash(path, "training"): path for path in data if complete(path, "training")}
    found = {}
    for corpus in known:
        path = there.get(corpus["training"], Path(corpus["path"]))
        if not complete(path, "training"):
            raise UsageError(
                f"--index {index}: its corpus {corpus['name']} is not at {path}{wrong}: give --data FOLDER, where it "
                "is now"
            )
        if manifest_hash(path, "training") != corpus["training"]:
            raise UsageError(
                f"--index {index}: the corpus {path} has changed since it was indexed: run index.py again, "
                "which encodes what is new"
            )
        found[corpus["name"]] = path
    return found


@dataclass(frozen=True)
class Opened:
    """What queries are answered from: one generation of the index, and the corpora that it was made from."""

    index: VectorIndex
    corpora: dict[str, Path]
    shards: dict[str, Shards]
    filters: "dict[str, Filter]"


class Filter(NamedTuple):
    """A field of the items that are there: its values, and of every number which of them it has, -1 for one removed."""

    values: list[str]
    value_N: np.ndarray

    @classmethod
    def of(cls, index: VectorIndex, name: str) -> "Filter":
        column = index.column(name).dictionary_encode().combine_chunks()
        value_N = np.where(index.present(), column.indices.to_numpy(zero_copy_only=False), -1)
        return cls(column.dictionary.to_pylist(), value_N)

    @property
    def there(self) -> list[str]:
        """Values that an item has, in order."""
        return sorted(self.values[value] for value in np.unique(self.value_N) if value >= 0)

    def equals(self, value: str) -> np.ndarray:
        """[N] bool."""
        return self.value_N == (self.values.index(value) if value in self.values else -2)


class Finder:
    """Thread-safe. `data`: where corpora are by now, if not where the index says."""

    def __init__(self, index: VectorIndex, space: Space, data: Sequence[Path] = ()):
        self.space, self._data = space, data
        self._now = self._opened(index)
        self._refreshing, self._encoding = Lock(), Lock()

    def _opened(self, index: VectorIndex) -> Opened:
        corpora = corpora_of(index.origin["corpora"], self._data, index.folder)
        filters = {name: Filter.of(index, name) for name in ("corpus", "split", "media_type")}
        return Opened(index, corpora, {name: Shards([path]) for name, path in corpora.items()}, filters)

    @property
    def corpora(self) -> dict[str, Path]:
        """By name, the folders that the index was made from."""
        return self._now.corpora

    @property
    def splits(self) -> list[str]:
        return self._now.filters["split"].there

    @property
    def languages(self) -> str:
        return self.space.languages

    @property
    def tags(self) -> frozenset[str]:
        """BCP 47, of these languages; empty where they are not told one by one."""
        return self.space.tags

    def __len__(self) -> int:
        return len(self._now.index)

    def refresh(self) -> bool:
        """Goes on with what was published since, if anything; while its corpora are still being written, with what
        was. Raises UsageError where the index was made again with another model, and EnvironmentTrouble where it cannot
        be read at the moment: the old answers are kept.
        """
        with self._refreshing:
            index = self._now.index.pinned()
            try:
                if not index.refresh():
                    return False
            except OtherOrigin:
                raise
            except UsageError as error:
                raise EnvironmentTrouble(str(error)) from error
            try:
                self._now = self._opened(index)
            except UsageError:
                return False
            return True

    def find(
        self,
        queries: Sequence[str | Image.Image],
        k: int = 10,
        *,
        hybrid: float | None = None,
        corpus: str | None = None,
        split: str | None = None,
        media_type: str | None = None,
    ) -> list[list[Hit]]:
        """The best `k` items of each query, best first; fewer where there are fewer.

        `hybrid` w in [0, 1]: the score is (1 − w) times the model's plus w times the nearness of the query to the
        nearest of the item's descriptions, text with text: late fusion of cosines as they are. An item without
        descriptions counts as the worst candidate has it. Raises UsageError for a query that cannot be answered.
        """
        check_queries(queries, k, hybrid)
        if not queries:
            return []
        now, queries_QE = self._now, self._encoded(queries)
        keep_N = kept(now.filters, corpus=corpus, split=split, media_type=media_type)
        if hybrid:
            scores_Qk, numbers_Qk = fused(now.index, queries_QE, k, hybrid, keep_N)
        else:
            scores_Qk, numbers_Qk = now.index.search(queries_QE, k, keep_N=keep_N)
        found = zip(queries_QE, scores_Qk, numbers_Qk, strict=True)
        return [hits_of(now.index, query_E, scores_k, numbers_k) for query_E, scores_k, numbers_k in found]

    def picture(self, key: tuple[str, str], side: int) -> Image.Image:
        """Of (corpus, item_id), its picture or a video's first frame, `side` pixels at most. Raises KeyError for what
        is not in the index, UsageError for features, of which there is no picture, and EnvironmentTrouble where it
        cannot be read.
        """
        now = self._now
        corpora, ids = now.index.column("corpus"), now.index.column("item_id")
        there_N = pc.and_(pc.equal(corpora, key[0]), pc.equal(ids, key[1])).to_numpy()
        if not (there_N & now.index.present()).any():
            raise KeyError(key)
        shards = now.shards[key[0]]
        number, row = place_of(shards, key[1])
        frames = item_frames(shards, number, shards.row(number, row), size=side)
        if isinstance(frames, np.ndarray):
            raise UsageError(f"{key[1]}: got features computed before, of which there is no picture")
        picture = frames[0].convert("RGB")
        picture.thumbnail((side, side))
        return picture

    def _encoded(self, queries: Sequence[str | Image.Image]) -> np.ndarray:
        queries_QE = np.empty((len(queries), self.space.width), np.float32)
        texts = [number for number, query in enumerate(queries) if isinstance(query, str)]
        pictures = [number for number, query in enumerate(queries) if not isinstance(query, str)]
        with self._encoding:  # tokenizers are not made for several threads
            if texts:
                queries_QE[texts] = self.space.texts([str(queries[number]) for number in texts])
            if pictures:
                queries_QE[pictures] = self.space.pictures([[queries[number]] for number in pictures])
        return queries_QE


def kept(filters: dict[str, Filter], **wanted: str | None) -> np.ndarray | None:
    """[N] bool, or None for all. Raises UsageError for a value that no item has."""
    keep_N = None
    for name, value in wanted.items():
        if value is not None:
            matches_N = filters[name].equals(value)
            if not matches_N.any():
                raise UsageError(f"{name}: got {value!r}, the index has {', '.join(filters[name].there)}")
            keep_N = matches_N if keep_N is None else keep_N & matches_N
    return keep_N


def fused(
    index: VectorIndex, queries_QE: np.ndarray, k: int, share: float, keep_N: np.ndarray | None
) -> tuple[Any, Any]:
    """Scores and numbers of each query's best, by both groups of rows."""
    wide = max(FUSED * k, LEAST_FUSED)
    found = [index.search(queries_QE, wide, group=group, keep_N=keep_N)[1] for group in ("media", "text")]
    scores, numbers = [], []
    for query_E, by_media_C, by_text_C in zip(queries_QE, *found, strict=True):
        numbers_C = np.union1d(by_media_C, by_text_C)
        numbers_C = numbers_C[numbers_C >= 0]
        media_C, text_C = (index.scores(query_E[None], numbers_C, group=group)[0] for group in ("media", "text"))
        has_text_C = np.isfinite(text_C)
        text_C = np.where(has_text_C, text_C, text_C[has_text_C].min() if has_text_C.any() else 0.0)
        fused_C = (1 - share) * media_C + share * text_C
        best = np.lexsort((numbers_C, -fused_C))[:k]
        scores.append(fused_C[best])
        numbers.append(numbers_C[best])
    return scores, numbers


def hits_of(index: VectorIndex, query_E: np.ndarray, scores_k: np.ndarray, numbers_k: np.ndarray) -> list[Hit]:
    there = numbers_k >= 0
    records = index.items(numbers_k[there])
    hits = []
    for rank, (score, number, record) in enumerate(zip(scores_k[there], numbers_k[there], records, strict=True), 1):
        rows_VE = index.vectors(int(number), group="text")
        nearest = record["texts"][int((rows_VE @ query_E).argmax())] if len(rows_VE) else {"view": "", "text": ""}
        kept = ("item_id", "corpus", "uri", "split", "media_type")
        hits.append(
            Hit(
                rank=rank, score=float(score), **{name: record[name] for name in kept}, view=nearest["view"],
                text=nearest["text"], matched=_matched(record["media_type"], nearest["view"]),
            )
        )  # fmt: skip
    return hits


def place_of(shards: Shards, item_id: str) -> tuple[int, int]:
    """Shard and row of an item. Raises KeyError where it is in none."""
    for number in range(len(shards)):
        row = pc.index(shards.shard(number).column("item_id"), item_id).as_py()
        if row >= 0:
            return number, row
    raise KeyError(item_id)


def _matched(media_type: str, view: str) -> str:
    shown = "picture" if media_type == "image" else media_type
    return f"{shown} and description ({view})" if view else shown


def check_queries(queries: Sequence[str | Image.Image], k: int, hybrid: float | None) -> None:
    """Raises UsageError for a query that cannot be answered."""
    if not 1 <= k <= MOST_RESULTS:
        raise UsageError(f"-k: got {k}, wanted 1 to {MOST_RESULTS:,}")
    if hybrid is not None and not 0 <= hybrid <= 1:
        raise UsageError(f"--hybrid: got {hybrid}, wanted a share from 0 to 1")
    for query in queries:
        if isinstance(query, str):
            if not query.strip():
                raise UsageError("got an empty query, wanted a few words, or a picture")
            if any("\ud800" <= letter <= "\udfff" for letter in query):
                raise UsageError(f"got {query[:100]!r}, which is no text in UTF-8: write the query in UTF-8")
            if len(query) > MOST_CHARACTERS:
                raise UsageError(f"got a query of {len(query):,} characters, wanted at most {MOST_CHARACTERS:,}")


def open_picture(data: bytes, what: str) -> Image.Image:
    """A picture query from a file's bytes. Raises UsageError, which begins with `what`, for what is none."""
    try:
        return sampled_frames(io.BytesIO(data), "image", max_pixels=QUERY_PIXELS, count=1)[0].image
    except MediaError as error:
        raise UsageError(f"{what}: {error}: wanted a picture") from error
