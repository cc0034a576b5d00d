"""Near-duplicates: pictures that were resized, recompressed, mirrored, or cropped by up to a tenth on each side.

    picture → thumbnail → low frequencies, of the whole and of each crop → cosines where the signs are equal
    → what is similar is aligned, and the pixels are compared

Memory is 150 bytes a picture. Signs leave about a thousandth of all pairs to compare: `bench/duplicates.py` has the
figures, which the bounds below were chosen with, and a comparison with perceptual hashes of libraries.

N pictures · W windows, then the same of the mirrored picture · R those of all queries · F frequencies
"""

import functools
import io
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageFilter

from pipeline.corpus.shards import read_sidecars, sidecar_path, thumbnails_path
from pipeline.corpus.table import Table, read_json, read_shard, shard_name, state_folder, write_json
from pipeline.hashing import canonical_json, short_hash
from pipeline.media.features import MAGIC
from pipeline.packing.contents import OPEN_SHARDS, TRAIN
from pipeline.storage.files import write_file
from pipeline.storage.folders import Folders

STAGE, MOVED = "pack", "near_duplicate"  # the second is the split where copies of held-out pictures go
SIDE, SMALL, CELL = 32, 24, 4  # pixels of a thumbnail, of what is compared, and of a cell of that
UNITS = 400  # of a side: crops are whole numbers of these
CROPS = tuple(itertools.product((0, 20, 40), repeat=2))  # of rows or of columns, before and after
STEPS, SWEEPS, MAX_CROP = (8, 4, 2, 1), 4, 60  # of the search for the exact crop
FREQUENCIES = 8  # by rows and columns
SIGNS, FLIPS = 12, 2  # bits of a key; of them, the weakest are tried both ways
NO_KEY = 2**SIGNS  # of a picture with too little contrast
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
MIN_CONTRAST = 2.0  # of 255: what has less is not compared
MIN_COSINE = 0.955  # of low frequencies
MIN_DETAIL, MAX_DIFFERENCE = 0.88, 0.55  # correlation of details; deviations of the picture by which a cell differs
BLOCK = 512  # pictures at a time

_LOWEST = np.add.outer(np.arange(FREQUENCIES) ** 2, np.arange(FREQUENCIES) ** 2).ravel()[1:].argsort(kind="stable")
_MIRROR = np.tile((-1.0) ** np.arange(FREQUENCIES), FREQUENCIES)[1:].astype(np.float32)

Pair = tuple[int, int]


def thumbnail(row: Mapping[str, Any]) -> np.ndarray:
    """The thumbnail [SIDE, SIDE, 3] of a picture in a row of `training`; black for videos, features and references."""
    if row["media"] is None or row["num_frames"] != 1 or row["media"].startswith(MAGIC):
        return np.zeros((SIDE, SIDE, 3), np.uint8)
    image = Image.open(io.BytesIO(row["media"]))
    image.draft("RGB", (4 * SIDE, 4 * SIDE))  # not smaller: coarse decoding is not averaging
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))


def write_thumbnails(path: Path, thumbnails: Iterable[np.ndarray]) -> None:
    """Keep the thumbnails of a shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_file(path, durable=False) as stream:
        np.save(stream, np.array([*thumbnails], np.uint8).reshape(-1, SIDE, SIDE, 3))


def read_thumbnails(path: Path, shard: pa.Table) -> np.ndarray:
    """The thumbnails of a shard of `training`; made from its media where none were kept."""
    thumbnails: np.ndarray | None = np.load(io.BytesIO(path.read_bytes())) if path.exists() else None
    if thumbnails is not None and len(thumbnails) == shard.num_rows:
        return thumbnails
    batches = shard.select(["media", "num_frames"]).to_batches(16)
    return np.array([thumbnail(row) for batch in batches for row in batch.to_pylist()])


def copies_among(table: Table) -> list[Sequence[str]]:
    """The ids of all pairs of near-duplicates in a table `training`."""
    shards = [table.shard(number) for number in range(table.num_shards)]
    ids = [item_id for shard in shards for item_id in shard["item_id"].to_pylist()]
    if not ids or table.manifest["settings"].get("media") == "reference":
        return []
    everything = np.arange(len(ids))
    return [[ids[one], ids[other]] for one, other in _finder(table.corpus, shards).pairs(everything, everything)]


def _finder(corpus: Path, shards: Iterable[pa.Table]) -> "NearDuplicates":
    with tempfile.TemporaryFile() as file:
        for number, shard in enumerate(shards):
            file.write(read_thumbnails(thumbnails_path(corpus, number), shard).tobytes())
        file.flush()
        return NearDuplicates(np.memmap(file, np.uint8).reshape(-1, SIDE, SIDE, 3))


def read_listed(corpus: Path) -> dict[str, Any]:
    """The near-duplicates of a packed corpus: `pairs` of ids, and the ids that are `moved` out of split train."""
    return {"pairs": [], "moved": []} | (read_json(_list_path(corpus)) or {})


def _list_path(corpus: Path) -> Path:
    return state_folder(corpus) / STAGE / "looks" / "near-duplicates.json"


def mark_moved(corpus: Path, num_shards: int, move: bool) -> bool:
    """List near-duplicates, and mark the shards that must be made again because a row has to change its split.

    Held-out pictures are compared with all.

    Args:
        corpus: The corpus; all shards of its table `training` are made.
        num_shards: Their number.
        move: Whether copies in split train of held-out pictures are moved.

    Returns:
        Whether there are shards to make again.
    """
    sidecars = read_sidecars(corpus, STAGE, num_shards, Folders())
    states = [[car["parent"], car["fingerprint"], car["tables"]["training"]["rows"]] for car in sidecars]
    made_from = short_hash(canonical_json(states))
    starts = np.cumsum([0, *(rows for _, _, rows in states)])
    if read_listed(corpus).get("made_from") == made_from or not starts[-1]:
        return False

    @functools.lru_cache(OPEN_SHARDS)
    def shard(number: int) -> pa.Table:
        return read_shard(corpus / "training" / shard_name(number, num_shards))

    def in_splits(*splits: str) -> np.ndarray:
        return np.concatenate([pc.is_in(shard(number)["split"], pa.array(splits)) for number in range(num_shards)])

    trained, pairs = in_splits(TRAIN, MOVED), set[Pair]()
    held_out = np.flatnonzero(~trained)
    if len(held_out):
        finder = _finder(corpus, map(shard, range(num_shards)))
        pairs = finder.pairs(held_out, np.arange(len(trained))) | finder.pairs(np.flatnonzero(trained), held_out)
    copies = {picture for pair in pairs for picture in pair}
    moved = {picture for picture in copies if move and trained[picture]}
    stale = moved.symmetric_difference(np.flatnonzero(in_splits(MOVED)).tolist())
    shard_of = {picture: int(np.searchsorted(starts, picture, "right")) - 1 for picture in sorted(copies | stale)}
    ids = {picture: shard(number)["item_id"][picture - starts[number]].as_py() for picture, number in shard_of.items()}
    for number in {shard_of[picture] for picture in stale}:
        write_json(sidecar_path(corpus, STAGE, number), {**sidecars[number], "parent": ""})
    id_pairs = sorted(sorted(ids[picture] for picture in pair) for pair in pairs)
    listed = {"made_from": made_from, "pairs": id_pairs, "moved": sorted(ids[picture] for picture in moved)}
    _list_path(corpus).parent.mkdir(parents=True, exist_ok=True)
    write_json(_list_path(corpus), listed)
    return bool(stale)


class NearDuplicates:
    """Finds pairs among pictures, given by their thumbnails [N, SIDE, SIDE, 3], which may be in a file."""

    def __init__(self, thumbnails_N: np.ndarray):
        self._thumbnails_N = thumbnails_N
        self._lows_NF = np.empty((len(thumbnails_N), FREQUENCIES**2 - 1), np.float16)
        self._keys_N = np.empty(len(thumbnails_N), np.uint16)
        for start in range(0, len(thumbnails_N), BLOCK):
            lows_NF = _low_frequencies(thumbnails_N[start : start + BLOCK], CROPS[:1])[:, 0]
            self._lows_NF[start : start + BLOCK] = lows_NF
            self._keys_N[start : start + BLOCK] = np.where(lows_NF.any(1), _keys(lows_NF), NO_KEY)

    def pairs(self, queries: np.ndarray, among: np.ndarray) -> set[Pair]:
        """Pairs of different pictures, the smaller number first: one of `queries` and one of `among`.

        A picture of `queries` is cropped, so that each way round has to be asked for.
        """
        queries = queries[self._keys_N[queries] != NO_KEY]
        among = among[np.argsort(self._keys_N[among], kind="stable")]
        bounds, pairs = np.searchsorted(self._keys_N[among], np.arange(NO_KEY + 1)), set[Pair]()
        for start in range(0, len(queries), BLOCK):
            for query, other, window in self._similar(queries[start : start + BLOCK], among, bounds):
                pair = min(query, other), max(query, other)
                if query != other and pair not in pairs and self._same(query, other, window):
                    pairs.add(pair)
        return pairs

    def _similar(self, queries: np.ndarray, among: np.ndarray, bounds: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """Queries, pictures, and the most similar window of the query; `bounds` has where in `among` a key begins."""
        lows_NWF = _low_frequencies(self._thumbnails_N[queries], CROPS)
        lows_RF = np.concatenate([lows_NWF, lows_NWF * _MIRROR], 1).reshape(-1, FREQUENCIES**2 - 1)
        weakest = 1 << np.argsort(np.abs(lows_RF[:, _LOWEST[:SIGNS]]), axis=1)[:, :FLIPS]
        flips = weakest @ np.array(list(itertools.product((0, 1), repeat=FLIPS))).T
        keys = (_keys(lows_RF)[:, None] ^ flips).ravel().astype(np.uint16)
        order = np.argsort(keys, kind="stable")
        order = order[np.diff(bounds)[keys[order]] > 0]
        different, starts = np.unique(keys[order], return_index=True)
        best: dict[Pair, tuple[float, int]] = {}
        for key, places in zip(different, np.split(order, starts[1:]), strict=False):  # none are split into one
            rows, others = places // 2**FLIPS, among[bounds[key] : bounds[key + 1]]
            cosines = lows_RF[rows] @ self._lows_NF[others].astype(np.float32).T
            for at, other in zip(*np.nonzero(cosines > MIN_COSINE), strict=True):
                query, window = divmod(int(rows[at]), 2 * len(CROPS) ** 2)
                pair = int(queries[query]), int(others[other])
                best[pair] = max(best.get(pair, (0.0, 0)), (float(cosines[at, other]), window))
        return ((*pair, window) for pair, (_, window) in best.items())

    def _same(self, query: int, other: int, window: int) -> bool:
        """Whether the pixels agree once a window of the query is aligned with the other picture."""
        whole, copy = (Image.fromarray(self._thumbnails_N[picture]) for picture in (query, other))
        mirrored, window = divmod(window, len(CROPS) ** 2)
        copy = _window(copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else copy)
        details = _details(copy)

        @functools.cache
        def agreement(crop: Sequence[int]) -> float:
            return float((_details(_window(whole, crop)) * details).sum())

        rows, columns = (CROPS[part] for part in divmod(window, len(CROPS)))
        crop = (*rows, *columns)
        for step, _, side in itertools.product(STEPS, range(SWEEPS), range(4)):
            sizes = (min(max(0, crop[side] + change), MAX_CROP) for change in (0, -step, step))
            crop = max(((*crop[:side], size, *crop[side + 1 :]) for size in sizes), key=agreement)
        squares = (_standard(_window(whole, crop)) - _standard(copy)) ** 2
        cells = squares.reshape(SMALL // CELL, CELL, SMALL // CELL, CELL, 3).mean((1, 3, 4))
        return agreement(crop) > MIN_DETAIL and bool(cells.max() < MAX_DIFFERENCE**2)


def _low_frequencies(thumbnails_N: np.ndarray, crops: Sequence[Sequence[int]]) -> np.ndarray:
    """Cosine transforms [N,W,F] without the mean, of unit length; W is each crop of rows with each of columns."""
    rows_CS = np.concatenate([_cosines(before / UNITS, 1 - after / UNITS) for before, after in crops])
    products = rows_CS @ (thumbnails_N @ LUMINANCE) @ rows_CS.T
    shape = (-1, len(crops), FREQUENCIES, len(crops), FREQUENCIES)
    lows_NWF = products.reshape(shape).transpose(0, 1, 3, 2, 4).reshape(-1, len(crops) ** 2, FREQUENCIES**2)[:, :, 1:]
    lengths = np.linalg.norm(lows_NWF, axis=-1, keepdims=True)
    return np.where(lengths > MIN_CONTRAST, lows_NWF / np.maximum(lengths, MIN_CONTRAST), 0).astype(np.float32)


def _cosines(low: float, high: float) -> np.ndarray:
    """What makes cosine coefficients [FREQUENCIES, SIDE] of the part of a line from `low` to `high`."""
    edges = (np.clip(np.linspace(0, 1, SIDE + 1), low, high) - low) / (high - low)
    order = np.arange(1, FREQUENCIES)[:, None]
    integrals = np.concatenate([edges[None], np.sin(np.pi * order * edges) / (np.pi * order) * 2**0.5])
    return np.diff(integrals, axis=1).astype(np.float32)


def _keys(lows: np.ndarray) -> np.ndarray:
    """Signs of the lowest frequencies [..., F] as a number."""
    return (lows[..., _LOWEST[:SIGNS]] > 0) @ (1 << np.arange(SIGNS))


def _window(image: Image.Image, crop: Sequence[int] = (0, 0, 0, 0)) -> Image.Image:
    """The picture less what a crop takes: units at the top, bottom, left and right."""
    top, bottom, left, right = (SIDE * size / UNITS for size in crop)
    return image.resize((SMALL, SMALL), Image.Resampling.BILINEAR, box=(left, top, SIDE - right, SIDE - bottom))


def _details(image: Image.Image) -> np.ndarray:
    """What a blurred picture lacks, in grey and of unit length."""
    grey = image.convert("L")
    details = np.asarray(grey, np.float32) - np.asarray(grey.filter(ImageFilter.BoxBlur(2)), np.float32)
    return details / (np.linalg.norm(details) + 1e-3)


def _standard(image: Image.Image) -> np.ndarray:
    """A picture with mean 0 and deviation 1 in each colour; less where it has little contrast."""
    pixels = np.asarray(image, np.float32)
    return (pixels - pixels.mean((0, 1))) / (pixels.std((0, 1)) + 4)
