"""The search engine behind program, page and service: queries of words in any language, pictures, or both, to items.

Q queries · C candidates · E width of the space · N items
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from pipeline.corpus.table import MANIFEST, complete, manifest_hash
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.media.images import Limits as MediaLimits
from pipeline.media.images import frames as sampled_frames
from pipeline.storage.files import location, version
from stages.data.media import item_frames
from stages.data.samples import Shards
from stages.retrieval.collection import Collection
from stages.retrieval.encoders import Space, open_space
from stages.retrieval.filters import FACETS, Filters
from stages.retrieval.index_reader import Generation, ItemRecord
from stages.retrieval.language import QueryTranslator
from stages.retrieval.vectors import ItemVectors

MAX_CHARACTERS = 2_000  # longest query
MAX_RESULTS = 1_000
FUSION_CANDIDATES = 4  # candidates per result when two scores are mixed
MIN_FUSION_CANDIDATES = 100
QUERY_PIXELS = 1024 * 1024  # a picture query is shrunk to this area
NO_FILTERS = Filters()
EXCLUDED = 0.75  # weight of the words that are excluded; chosen on the split val of Flickr8k


class Query(NamedTuple):
    """What results should show. With words and a picture it is a composed query.

    Attributes:
        words: In any language that the index's model knows.
        picture: A picture that they should be like.
        exclude: Words for what they should not show.
    """

    words: str = ""
    picture: Image.Image | None = None
    exclude: str = ""


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        rank: From 1.
        score: The item's score; it orders the results of one query.
        item_id: The item's id in its corpus.
        corpus: The corpus's name.
        uri: Where the item's media were when they were ingested.
        split: The item's split.
        media_type: `image` or `video`.
        view: View of the description nearest to the query; empty if the item has none.
        text: That description.
        matched: Which parts of the item were compared with the query, in words.
        taken: When it was taken, as 2024-07-31T18:05:00, by the clock of the camera; None if that is not known, as the
            next two.
        camera: With what.
        place: Names of the nearest town, its district and its country.
        moment_s: Of a video, the second that fits best.
        fits: Whether the score is one that unrelated texts hardly reach in this index. None if that is not known: for
            queries with a picture or `exclude`, with `hybrid`, and of indexes made before this was measured.
    """

    rank: int
    score: float
    item_id: str
    corpus: str
    uri: str
    split: str
    media_type: str
    view: str
    text: str
    matched: str
    taken: str | None = None
    camera: str | None = None
    place: str | None = None
    moment_s: float | None = None
    fits: bool | None = None


class OpenIndex:
    """One generation of an index with the corpora that it was made from, which may have changed since.

    Raises:
        UsageError: A corpus is missing.
    """

    def __init__(self, index: Generation, data: Sequence[Path]):
        self.index, self.corpora = index, dict[str, Path]()
        self._shards: dict[str, tuple[str | None, Shards]] = {}  # by corpus, of the version of its manifest
        moved = {manifest_hash(path, "training"): path for path in data if complete(path, "training")}
        for corpus in index.origin["corpora"]:
            path = moved.get(corpus["training"], location(corpus["path"]))
            if not (path / "training").is_dir():
                elsewhere = f", nor at {' or '.join(map(str, data))}" if data else ""
                raise UsageError(
                    f"--index {index.folder}: its corpus {corpus['name']} is not at {path}{elsewhere}. Give --data "
                    "FOLDER, where it is now"
                )
            self.corpora[corpus["name"]] = path

    def row(self, corpus: str, item_id: str) -> tuple[Shards, int, int]:
        """An item's shards, shard and row. Raises KeyError where it is not in the index or not in its corpus."""
        place = self.index.number(corpus, item_id)
        if place is not None:
            shards, content = self._open_shards(corpus), self.index.items["sha256"][place]
            for number in range(len(shards)):
                row = pc.index(shards.shard(number)["item_id"], item_id).as_py()
                if row >= 0 and shards.shard(number)["sha256"][row] == content:
                    return shards, number, row
        raise KeyError(corpus, item_id)

    def _open_shards(self, corpus: str) -> Shards:
        seen = version(self.corpora[corpus] / "training" / MANIFEST)
        if corpus not in self._shards or self._shards[corpus][0] != seen:
            try:
                self._shards[corpus] = seen, Shards([self.corpora[corpus]])
            except UsageError as error:  # it is being published at this moment, or was never packed to its end
                raise EnvironmentTrouble(str(error)) from error
        return self._shards[corpus][1]


class Index:
    """Answers queries from an index; thread-safe.

    index = Index.open("PHOTOS")
    for hit in index.search("eine Katze", k=5):
        print(hit.score, hit.uri)

    Args:
        index: What is published.
        space: The space that it was made with.
        data: Where its corpora are now, if they were moved.
        translate: As in `open`.
    """

    @classmethod
    def open(
        cls, folder: str | Path, checkpoint: str | None = None, data: Sequence[Path] = (), translate: str = ""
    ) -> "Index":
        """Open an index.

        Args:
            folder: The index folder, or a folder of pictures that `leccr find` has indexed.
            checkpoint: Where the index's model is now, if it was moved.
            data: Where corpora of the index are now, if they were moved.
            translate: A model that translates queries to English first where the index does not know their language.

        Raises:
            UsageError: Any of them is missing, or is not what the index was made from.
        """
        found = Collection.of(str(folder)).index
        folder = found if found.is_dir() else location(str(folder))
        opened = Generation.open(folder)
        made_with = opened.origin["space"]
        space = open_space(checkpoint or made_with["name"], made_with.get("late_fusion"))
        if space.identity["fingerprint"] != made_with["fingerprint"]:
            raise UsageError(
                f"--index {folder} was made with {made_with['name']} {made_with['fingerprint']}, and the model is now "
                f"{space.identity['name']} {space.identity['fingerprint']}. Give --checkpoint with the model that it "
                "was made with, or make the index anew"
            )
        return cls(opened, space, data, translate)

    def __init__(self, index: Generation, space: Space, data: Sequence[Path] = (), translate: str = ""):
        self.space, self._data, self._translate = space, data, QueryTranslator(translate, space.tags)
        self._now = OpenIndex(index, data)
        self._refreshing, self._encoding = Lock(), Lock()

    def __len__(self) -> int:
        return len(self._now.index)

    @property
    def corpora(self) -> dict[str, Path]:
        """By name, the folders that the index was made from."""
        return self._now.corpora

    @property
    def splits(self) -> list[str]:
        """The splits of its items."""
        return sorted(self.facets["split"])

    @property
    def facets(self) -> dict[str, dict[str, int]]:
        """By name of a filter, and of the year, how many items have each value."""
        items = self._now.index.items
        columns = {name: items[name] for name in FACETS} | {"year": pc.utf8_slice_codeunits(items["taken"], 0, 4)}
        counts = {name: pc.value_counts(column.drop_null()) for name, column in columns.items()}
        return {name: {row["values"]: row["counts"] for row in rows.to_pylist()} for name, rows in counts.items()}

    def refresh(self) -> bool:
        """Switch to a newer generation of the index, if one was published.

        Returns:
            Whether it switched. It does not while the corpora are still being written.

        Raises:
            UsageError: The index was made anew with another model.
            EnvironmentTrouble: The index cannot be read at the moment. The old generation stays in use.
        """
        with self._refreshing:
            try:
                if self._now.index.is_current():
                    return False
                index = Generation.open(self._now.index.folder)
            except UsageError as error:
                raise EnvironmentTrouble(str(error)) from error
            if index.origin["space"]["fingerprint"] != self.space.identity["fingerprint"]:
                raise UsageError(f"{index.folder} was made anew with another model. Start this program again")
            try:
                self._now = OpenIndex(index, self._data)
            except UsageError:
                return False
            return True

    def search(
        self,
        words: str = "",
        k: int = 10,
        *,
        picture: str | Path | Image.Image | None = None,
        exclude: str = "",
        min_score: float | None = None,
        **terms: Any,
    ) -> list[Hit]:
        """Find the best items of one query.

        Args:
            words: As in `Query`, like `exclude`.
            k: Most results.
            picture: As in `Query`, or its path.
            exclude: See `words`.
            min_score: The least score of a result. What is a good one depends on the model: see docs/search.md.
            **terms: `offset`, `hybrid` and `filters`, as in `find`.

        Returns:
            The hits, best first.

        Raises:
            UsageError: The query cannot be answered.
            MediaError: The path does not lead to a picture.
        """
        if isinstance(picture, str | Path):
            picture = open_picture(Path(picture).read_bytes())
        (hits,) = self.find([Query(words, picture, exclude)], k, **terms)
        return [hit for hit in hits if min_score is None or hit.score >= min_score]

    def note(self, query: str) -> str:
        """What a user should know of a query's language: that the index does not know it, or how it was translated."""
        return self._translate(query)[1]

    def similar(self, corpus: str, item_id: str, k: int = 10) -> list[Hit]:
        """The items whose vectors are nearest to those of an item, best first, without itself.

        Raises:
            KeyError: The item is not in the index.
        """
        now = self._now.index
        if (number := now.number(corpus, item_id)) is None:
            raise KeyError(corpus, item_id)
        mean_E = now.vectors.rows(slice(number, number + 1), part="media").mean(0)
        scores_k, items_k = (of_query[0] for of_query in now.vectors.search(mean_E[None], k + 1))
        others = items_k != number
        return _hits(now, mean_E, scores_k[others][:k], items_k[others][:k])

    def find(
        self,
        queries: Sequence[str | Query],
        k: int = 10,
        *,
        offset: int = 0,
        hybrid: float | None = None,
        filters: Filters = NO_FILTERS,
    ) -> list[list[Hit]]:
        """Find the best items of each query.

        A query's vector is the mean of those of its words and its picture, less EXCLUDED times that of `exclude`, which
        moves such items down and leaves none out.

        Args:
            queries: Queries, or only their words.
            k: Most results of each query.
            offset: How many of the best results are left out.
            hybrid: Share w in [0, 1] of text-to-text similarity in the score: (1 − w) times the score plus w times the
                inner product of the query with the nearest of the item's descriptions. An item without descriptions
                counts as the worst candidate.
            filters: Which items may be among the results.

        Returns:
            The hits of each query, best first.

        Raises:
            UsageError: A query cannot be answered.
        """
        asked = [Query(query) if isinstance(query, str) else query for query in queries]
        check_queries(asked, k, hybrid, offset)
        if not asked:
            return []
        now, queries_QE = self._now, self._encoded(asked)
        keep_N = None if filters == NO_FILTERS else filters.passing(now.index.items)
        if hybrid:
            results = [_fused(now.index.vectors, query_E[None], offset + k, hybrid, keep_N) for query_E in queries_QE]
        else:
            results = list(zip(*now.index.vectors.search(queries_QE, offset + k, keep_N=keep_N), strict=True))
        fits = None if hybrid else now.index.manifest.get("fits")
        return [
            _hits(now.index, query_E, *result, offset, None if query.picture or query.exclude else fits)
            for query, query_E, result in zip(asked, queries_QE, results, strict=True)
        ]

    def record(self, corpus: str, item_id: str) -> ItemRecord:
        """What the index keeps of an item. Raises KeyError where it is not in the index."""
        index = self._now.index
        if (number := index.number(corpus, item_id)) is None:
            raise KeyError(corpus, item_id)
        return index.records([number])[0]

    def picture(self, corpus: str, item_id: str, side: int) -> Image.Image:
        """An item's picture, or the first frame of its video.

        Args:
            corpus: The corpus's name.
            item_id: The item's id.
            side: Pixels of the longer side at most.

        Raises:
            KeyError: The item is not in the index.
            UsageError: It has precomputed features and no picture.
            EnvironmentTrouble: It cannot be read.
        """
        shards, number, row = self._now.row(corpus, item_id)
        frames = item_frames(shards, number, shards.row(number, row), size=side)
        if isinstance(frames, np.ndarray):
            raise UsageError(f"{item_id} has precomputed features and no picture")
        picture: Image.Image = frames[0].convert("RGB")
        picture.thumbnail((side, side))
        return picture

    def _encoded(self, queries: Sequence[Query]) -> np.ndarray:
        def texts(texts: list[str]) -> np.ndarray:
            return self.space.texts([self._translate(text)[0] for text in texts] if self._translate.model else texts)

        def pictures(pictures: list[Image.Image]) -> np.ndarray:
            return self.space.pictures([[picture] for picture in pictures])

        def vectors(encode: Callable[[list[Any]], np.ndarray], parts: list[Any]) -> np.ndarray:
            given = {id(part): part for part in parts if part}  # queries may share a part
            encoded = dict(zip(given, encode(list(given.values())), strict=True)) if given else {}
            return np.stack([encoded.get(id(part), np.zeros(self.space.width, np.float32)) for part in parts])

        with self._encoding:  # tokenizers are not made for several threads
            words_QE = vectors(texts, [query.words for query in queries])
            pictures_QE = vectors(pictures, [query.picture for query in queries])
            excluded_QE = vectors(texts, [query.exclude for query in queries])
        shares_Q1 = np.array([[0.5 if query.words and query.picture else 1] for query in queries], np.float32)
        return shares_Q1 * (words_QE + pictures_QE) - EXCLUDED * excluded_QE


def _fused(
    vectors: ItemVectors, query_QE: np.ndarray, k: int, share: float, keep_N: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores [k] and items [k] of one query by both parts: late fusion, a weighted sum of the two cosines."""
    count = max(FUSION_CANDIDATES * k, MIN_FUSION_CANDIDATES)
    by_part = [vectors.search(query_QE, count, part=part, keep_N=keep_N)[1][0] for part in ("media", "text")]
    items_C = np.union1d(*by_part)
    media_C, text_C = (vectors.scores(query_QE, items_C, part=part)[0] for part in ("media", "text"))
    has_text_C = np.isfinite(text_C)
    text_C = np.where(has_text_C, text_C, text_C[has_text_C].min() if has_text_C.any() else 0.0)
    fused_C = (1 - share) * media_C + share * text_C
    best = np.lexsort((items_C, -fused_C))[:k]
    return fused_C[best], items_C[best]


def _hits(
    index: Generation,
    query_E: np.ndarray,
    scores_k: np.ndarray,
    items_k: np.ndarray,
    offset: int = 0,
    fits: float | None = None,
) -> list[Hit]:
    hits, scores_k, items_k = [], scores_k[offset:], items_k[offset:]
    for rank, (score, item, record) in enumerate(
        zip(scores_k, items_k, index.records(items_k), strict=True), offset + 1
    ):
        rows_VE, frames_FE = (index.vectors.rows(slice(item, item + 1), part=part) for part in ("text", "frame"))
        shared: dict[str, Any] = {name: value for name, value in record.items() if name in Hit.__match_args__}
        if len(frames_FE) and (duration_s := record["duration_s"]):  # frames are the middles of equal slices of it
            shared["moment_s"] = (int((frames_FE @ query_E).argmax()) + 0.5) / len(frames_FE) * duration_s
        matched = "picture" if record["media_type"] == "image" else record["media_type"]
        view = text = ""
        if len(rows_VE):
            nearest = record["texts"][int((rows_VE @ query_E).argmax())]
            view, text = nearest["view"], nearest["text"]
            matched += f" and {view if view == 'caption' else f'description ({view})'}"
        fitting = None if fits is None else bool(score >= fits)
        hits.append(Hit(rank, float(score), **shared, view=view, text=text, matched=matched, fits=fitting))
    return hits


def check_queries(queries: Sequence[Query], k: int, hybrid: float | None, offset: int = 0) -> None:
    """Raise UsageError for a query that cannot be answered."""
    if k < 1 or offset < 0 or offset + k > MAX_RESULTS:
        after = f" after {offset}" if offset else ""
        raise UsageError(f"-k {k}{after} is not possible: give 1 to {MAX_RESULTS:,} results in all")
    if hybrid is not None and not 0 <= hybrid <= 1:
        raise UsageError(f"--hybrid {hybrid} is not a share: give a number from 0 to 1")
    words = [query.words for query in queries if query.words or not query.picture]
    for text in (*words, *(query.exclude for query in queries if query.exclude)):
        if not any(letter.isprintable() and not letter.isspace() for letter in text):
            raise UsageError("the query has no letter. Give a few words, or a picture")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UsageError(f"the query {text[:100]!r} is not valid Unicode. Write it in UTF-8")
        if len(text) > MAX_CHARACTERS:
            raise UsageError(f"the query has {len(text):,} characters, and at most {MAX_CHARACTERS:,} are allowed")


def open_picture(data: bytes, limits: MediaLimits | None = None) -> Image.Image:
    """A picture query from a file's bytes, upright and shrunk. Raises MediaError where it is not a picture."""
    limits = limits or MediaLimits()
    return sampled_frames(io.BytesIO(data), "image", max_pixels=QUERY_PIXELS, count=1, limits=limits)[0].image
