"""No content of a held-out split in training: items of the same bytes in two splits are found before any work.

Held out is every split but `train`. The hashes of these alone are held in memory, 46 bytes an item; the training items
stream by, shard by shard.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.corpus.table import Table
from pipeline.errors import UsageError

TRAIN = "train"
SHOWN = 3
PLACE = np.dtype([("corpus", "<i4"), ("shard", "<i4"), ("row", "<i4")])


def hashes(items: pa.Table) -> np.ndarray:
    """The column `sha256` as an array of 32 bytes an item, which sort and compare as they are. Each must have one."""
    return np.frombuffer(bytes.fromhex("".join(items["sha256"].to_pylist())), "S32")


def with_content(items: pa.Table) -> np.ndarray:
    """Which items have a hash: those without media have none, and are the same as no other."""
    return np.asarray(items["sha256"].to_numpy() != "", bool)


def refuse_leaks(corpora: Sequence[Path]) -> None:
    """Raises UsageError, with how many there are and where the first few lie, if the splits share a content."""
    held = _HeldOut(corpora)
    total, shown = held.among_themselves()
    for corpus, shard, items in _shards(corpora):
        training = np.flatnonzero(np.asarray(items["split"].to_numpy() == TRAIN) & with_content(items))
        found = held.matching(hashes(items.take(training)))
        total += len(found)
        for number, other in found[: SHOWN - len(shown)]:
            shown.append((_place(corpus, shard, training[number]), other))
    if not total:
        return
    told = "; ".join(_told(corpora, one, other) for one, other in shown)
    raise UsageError(
        f"{total:,} item(s) have the content of an item that is held out in another split: {told}"
        f"{'; …' if total > len(shown) else ''}: remove one of them (or put both in one split), then run "
        "--stage ingest --overwrite"
    )


class _HeldOut:
    """The items of all splits but the training one, sorted by content, then by split, then by where they lie."""

    def __init__(self, corpora: Sequence[Path]):
        keys, splits, places = [np.empty(0, "S32")], [np.empty(0, np.int32)], [np.empty(0, PLACE)]
        names: dict[str, int] = {}
        for corpus, shard, items in _shards(corpora):
            split = items["split"].to_numpy()
            rows = np.flatnonzero(np.asarray(split != TRAIN) & with_content(items))
            if not len(rows):
                continue
            keys.append(hashes(items.take(rows)))
            splits.append(np.array([names.setdefault(name, len(names)) for name in split[rows]], np.int32))
            place = np.zeros(len(rows), PLACE)
            place["corpus"], place["shard"], place["row"] = corpus, shard, rows
            places.append(place)
        rank = {name: number for number, name in enumerate(sorted(names))}
        ranks = np.array([rank[name] for name in names], np.int32)  # a val item is told as a test item's twin
        split_of = np.concatenate(splits)
        split_of = ranks[split_of] if len(split_of) else split_of
        order = np.lexsort((split_of, np.concatenate(keys)))
        self._keys, self._splits = np.concatenate(keys)[order], split_of[order]
        self._places = np.concatenate(places)[order]

    def among_themselves(self) -> tuple[int, list[tuple[np.void, np.void]]]:
        """(how many items have the content of one in another held-out split, the first few with that one)."""
        if not len(self._keys):
            return 0, []
        begins = np.concatenate([[True], self._keys[1:] != self._keys[:-1]])
        first = np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))  # of the same content
        found = np.flatnonzero(self._splits != self._splits[first])
        return len(found), [(self._places[row], self._places[first[row]]) for row in found[:SHOWN]]

    def matching(self, keys: np.ndarray) -> list[tuple[int, np.void]]:
        """(position in `keys`, the place of an item of the same content) for every key that is held out."""
        if not len(self._keys) or not len(keys):
            return []
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return [(int(number), self._places[at[number]]) for number in np.flatnonzero(self._keys[at] == keys)]


def _shards(corpora: Sequence[Path]) -> Iterator[tuple[int, int, pa.Table]]:
    """(number of the corpus, of the shard, its items with sha256 and split alone)."""
    for number, corpus in enumerate(corpora):
        table = Table(corpus, "items")
        for index in range(table.num_shards):
            yield number, index, table.shard(index).select(["sha256", "split"])


def _place(corpus: int, shard: int, row: int) -> np.void:
    return np.array([(corpus, shard, row)], PLACE)[0]


def _told(corpora: Sequence[Path], one: Any, other: Any) -> str:
    (item, name), (twin, its_name) = _item(corpora, one), _item(corpora, other)
    kind = "video" if item["media_type"] == "video" else "picture"
    return (
        f"{item['split']} item {name} at {item['uri']} is the same {kind} as "
        f"{twin['split']} item {its_name} at {twin['uri']}"
    )


def _item(corpora: Sequence[Path], place: Any) -> tuple[dict[str, Any], str]:
    corpus = corpora[place["corpus"]]
    row = Table(corpus, "items").shard(int(place["shard"])).slice(int(place["row"]), 1).to_pylist()[0]
    return row, f"{corpus.name}/{row['item_id']}" if len(corpora) > 1 else row["item_id"]
