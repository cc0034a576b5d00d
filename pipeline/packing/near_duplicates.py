"""Near-duplicates: pictures that were resized, recompressed, mirrored, or cropped by up to a tenth on each side.

    picture → look, a thumbnail → its low frequencies, of the whole and of every crop → compared where signs are equal
    → what agrees is aligned, mirrored if need be, and the pixels are compared

Memory is 150 bytes a picture. Signs leave about a thousandth of all pairs to compare: `bench/duplicates.py` has the
figures, which the bounds below were chosen with.

N pictures · W windows, then the same of the mirrored picture · F frequencies
"""

import functools
import io
import itertools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageFilter

from pipeline.corpus.shards import looks_path, read_sidecars, sidecar_path
from pipeline.corpus.table import Table, read_json, read_shard, shard_name, state_folder, write_json
from pipeline.hashing import canonical_json, short_hash
from pipeline.media.features import MAGIC
from pipeline.packing.contents import OPEN_SHARDS, TRAIN
from pipeline.storage.files import write_file
from pipeline.storage.folders import Folders

STAGE, MOVED = "pack", "near_duplicate"  # the second is the split where copies of held-out pictures go
SIDE, SMALL, CELL = 32, 24, 4  # pixels of a look, of what is compared, and of a cell of that
CROPS = tuple(itertools.product((0.0, 0.05, 0.1), repeat=2))  # of one dimension, before and after
FREQUENCIES = 8  # by rows and columns
SIGNS, FLIPS = 12, 2  # bits of a key; of them, the weakest are tried both ways
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
MIN_CONTRAST = 2.0  # of 255: what shows less is like nothing
MIN_COSINE = 0.955  # of low frequencies
MIN_DETAIL, MAX_DIFFERENCE = 0.88, 0.55  # correlation of details; deviations of the picture by which a cell differs
STEPS = (0.02, 0.01, 0.005, 0.0025)  # of the search for the crop
BLOCK = 512

_LOWEST = sorted(range(1, FREQUENCIES**2), key=lambda place: sum(part**2 for part in divmod(place, FREQUENCIES)))
_SIGNED = np.array(_LOWEST[:SIGNS]) - 1
_MIRROR = np.tile((-1.0) ** np.arange(FREQUENCIES), FREQUENCIES)[1:].astype(np.float32)

Pair = tuple[int, int]


def look(row: Mapping[str, Any]) -> np.ndarray:
    """The thumbnail [SIDE, SIDE, 3] of a picture in a row of `training`; black for videos, features and references."""
    if row["media"] is None or row["num_frames"] != 1 or row["media"].startswith(MAGIC):
        return np.zeros((SIDE, SIDE, 3), np.uint8)
    image = Image.open(io.BytesIO(row["media"]))
    image.draft("RGB", (4 * SIDE, 4 * SIDE))  # not smaller: coarse decoding is not averaging
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))


def write_looks(path: Path, looks: Iterable[np.ndarray]) -> None:
    """Keep the looks of a shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_file(path, durable=False) as stream:
        np.save(stream, np.array([*looks], np.uint8).reshape(-1, SIDE, SIDE, 3))


def read_looks(path: Path, shard: pa.Table) -> np.ndarray:
    """The looks of a shard of `training`; made from its media where none were kept."""
    looks: np.ndarray | None = np.load(io.BytesIO(path.read_bytes())) if path.exists() else None
    if looks is not None and len(looks) == shard.num_rows:
        return looks
    batches = shard.select(["media", "num_frames"]).to_batches(16)
    return np.array([look(row) for batch in batches for row in batch.to_pylist()])


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
            file.write(read_looks(looks_path(corpus, number), shard).tobytes())
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

    splits = np.concatenate([shard(number)["split"].to_numpy() for number in range(num_shards)])
    before = splits == MOVED
    splits[before] = TRAIN
    held_out, trained, pairs = np.flatnonzero(splits != TRAIN), splits == TRAIN, set[Pair]()
    if len(held_out):
        finder = _finder(corpus, map(shard, range(num_shards)))
        pairs = finder.pairs(held_out, np.arange(len(splits))) | finder.pairs(np.flatnonzero(trained), held_out)
    after = np.zeros_like(before)
    for pair in pairs if move else ():
        after[list(pair)] |= trained[list(pair)] & (trained[list(pair)].sum() == 1)
    ids = {}
    for picture in sorted({picture for pair in pairs for picture in pair}):
        number = int(np.searchsorted(starts, picture, "right")) - 1
        ids[picture] = shard(number)["item_id"][picture - starts[number]].as_py()
    stale = set((np.searchsorted(starts, np.flatnonzero(before != after), "right") - 1).tolist())
    for number in stale:
        write_json(sidecar_path(corpus, STAGE, number), {**sidecars[number], "parent": ""})
    listed = {
        "pairs": sorted(sorted(ids[picture] for picture in pair) for pair in pairs),
        "moved": sorted(ids[picture] for picture in np.flatnonzero(after).tolist()),
    }
    _list_path(corpus).parent.mkdir(parents=True, exist_ok=True)
    write_json(_list_path(corpus), {"made_from": made_from, **listed})
    return bool(stale)


class NearDuplicates:
    """Finds pairs among pictures, given by their looks [N, SIDE, SIDE, 3], which may be in a file."""

    def __init__(self, looks_N: np.ndarray):
        self._looks_N = looks_N
        blocks = (looks_N[start : start + BLOCK] for start in range(0, len(looks_N), BLOCK))
        lows = [_low_frequencies(block, CROPS[:1])[:, 0].astype(np.float16) for block in blocks]
        self._lows_NF = np.concatenate(lows)

    def pairs(self, queries: np.ndarray, among: np.ndarray) -> set[Pair]:
        """Pairs of different pictures, the smaller number first: one of `queries` and one of `among`, sorted numbers.

        A picture of `queries` is cropped, so that each way round has to be asked for.
        """
        lows_NF = self._lows_NF[among].astype(np.float32)
        weakest_NF = 1 << np.argsort(np.abs(lows_NF[:, _SIGNED]), axis=1)[:, :FLIPS]
        keys_NK = _keys(lows_NF)[:, None] ^ weakest_NF @ np.array(list(itertools.product((0, 1), repeat=FLIPS))).T
        order = np.argsort(keys_NK, axis=None, kind="stable")
        bounds = np.searchsorted(keys_NK.ravel()[order], np.arange(2**SIGNS + 1))
        members, pairs = order // keys_NK.shape[1], set()
        for start in range(0, len(queries), BLOCK):
            block = queries[start : start + BLOCK]
            lows_NWF = _low_frequencies(self._looks_N[block], CROPS)
            lows_NWF = np.concatenate([lows_NWF, lows_NWF * _MIRROR], 1)
            keys = _keys(lows_NWF).ravel()
            order = np.argsort(keys, kind="stable")
            best: dict[Pair, tuple[float, int]] = {}
            for rows in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
                others = members[slice(*bounds[[keys[rows[0]], keys[rows[0]] + 1]])]
                cosines = lows_NWF.reshape(len(keys), -1)[rows] @ lows_NF[others].T
                for at, other in zip(*np.nonzero(cosines > MIN_COSINE), strict=True):
                    query, window = divmod(int(rows[at]), lows_NWF.shape[1])
                    pair = int(block[query]), int(among[others[other]])
                    best[pair] = max(best.get(pair, (0.0, 0)), (float(cosines[at, other]), window))
            for (query, other), (_, window) in best.items():
                pair = min(query, other), max(query, other)
                if query != other and pair not in pairs and self._same(query, other, window):
                    pairs.add(pair)
        return pairs

    def _same(self, query: int, other: int, window: int) -> bool:
        """Whether the pixels agree once a window of the query is aligned with the other picture."""
        whole, copy = (Image.fromarray(self._looks_N[picture]) for picture in (query, other))
        mirrored, window = divmod(window, len(CROPS) ** 2)
        copy = _window(copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else copy)
        (top, bottom), (left, right) = (CROPS[crop] for crop in divmod(window, len(CROPS)))
        details = _details(copy)
        crop, agreement = [left, top, right, bottom], 0.0
        for step in STEPS:
            better = True
            while better:
                better = False
                for side, change in itertools.product(range(4), (0, -step, step)):
                    changed = [*crop[:side], min(max(0.0, crop[side] + change), 0.15), *crop[side + 1 :]]
                    correlation = float((_details(_window(whole, changed)) * details).sum())
                    if correlation > agreement:
                        agreement, crop, better = correlation, changed, True
        standard = []
        for pixels in (np.asarray(image, np.float32) for image in (_window(whole, crop), copy)):
            standard.append((pixels - pixels.mean((0, 1))) / (pixels.std((0, 1)) + 4))
        squares = ((standard[0] - standard[1]) ** 2).reshape(SMALL // CELL, CELL, SMALL // CELL, CELL, 3)
        return agreement > MIN_DETAIL and bool(squares.mean((1, 3, 4)).max() < MAX_DIFFERENCE**2)


def _low_frequencies(looks_N: np.ndarray, crops: Sequence[Sequence[float]]) -> np.ndarray:
    """Cosine transforms [N,W,F] without the mean, of unit length; W is each crop of rows with each of columns."""
    rows_CS = np.concatenate([_cosines(before, 1 - after) for before, after in crops])
    products = rows_CS @ (looks_N @ LUMINANCE) @ rows_CS.T
    shape = (-1, len(crops), FREQUENCIES, len(crops), FREQUENCIES)
    lows_NWF = products.reshape(shape).transpose(0, 1, 3, 2, 4).reshape(len(looks_N), len(crops) ** 2, -1)[:, :, 1:]
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
    keys: np.ndarray = (lows[..., _SIGNED] > 0) @ (1 << np.arange(SIGNS))
    return keys


def _window(image: Image.Image, crop: Sequence[float] = (0, 0, 0, 0)) -> Image.Image:
    """The picture less a share on each side: left, top, right, bottom."""
    box = (SIDE * crop[0], SIDE * crop[1], SIDE * (1 - crop[2]), SIDE * (1 - crop[3]))
    return image.resize((SMALL, SMALL), Image.Resampling.BILINEAR, box=box)


def _details(image: Image.Image) -> np.ndarray:
    """What a blurred picture lacks, in grey and of unit length."""
    grey = image.convert("L")
    details = np.asarray(grey, np.float32) - np.asarray(grey.filter(ImageFilter.BoxBlur(2)), np.float32)
    return details / (np.linalg.norm(details) + 1e-3)
