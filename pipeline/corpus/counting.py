"""Counting over tables, shard by shard with only the columns needed: memory stays flat however large the corpus."""

import collections
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import Table

MAX_DISTINCT = 10_000  # values of a column of free text that are told apart

_IN_WORD = np.ones(256, bool)  # by byte
_IN_WORD[list(b" \t\n\f\r")] = False

Counts = collections.Counter[tuple]


def counted(table: Table, project: Callable[[pa.Table], pa.Table], limit: int | None = None) -> Counts:
    """How often each row of `project(shard)` occurs in the table, in order of first occurrence.

    A shard is memory-mapped, and only the columns that are counted are touched. With `limit`, what is new after that
    many distinct rows is counted together, as `(others)`.
    """
    counts: Counts = collections.Counter()
    for index in range(table.num_shards):
        part = project(table.shard(index))
        grouped = part.group_by(part.column_names, use_threads=False).aggregate([([], "count_all")]).to_pydict()
        numbers = grouped.pop("count_all")
        for key, number in zip(zip(*grouped.values(), strict=True), numbers, strict=True):
            full = limit and len(counts) >= limit and key not in counts
            counts[("(others)",) * len(key) if full else key] += number
    return counts


def values(table: Table, *columns: str) -> Counts:
    return counted(table, lambda shard: shard.select(list(columns)), MAX_DISTINCT)


def numbers_by(table: Table, keys: list[str], number: Callable[[pa.Table], Any]) -> dict[tuple, dict[Any, int]]:
    """By the values of `keys`, how often each value of `number(shard)` occurs; nulls are left out."""
    found: dict[tuple, dict[Any, int]] = {}
    for (*key, value), count in counted(table, lambda s: s.select(keys).append_column("number", number(s))).items():
        if value is not None:
            found.setdefault(tuple(key), {})[value] = count
    return found


def spread(counts: dict[Any, int]) -> str:
    """Smallest value / median / largest, of values with how often each occurs; of two in the middle, the lower."""
    ordered = sorted(counts)
    seen = list(itertools.accumulate(counts[value] for value in ordered))
    middle = next(value for value, reached in zip(ordered, seen, strict=True) if 2 * reached >= seen[-1])
    return f"{ordered[0]:,} / {middle:,} / {ordered[-1]:,}"


def lengths(table: Table, keys: list[str]) -> dict[tuple, tuple[str, str]]:
    """By the values of `keys`, words and characters as smallest / median / largest."""
    words = numbers_by(table, keys, lambda shard: num_words(shard["text"]))
    characters = numbers_by(table, keys, lambda shard: pc.utf8_length(shard["text"]))
    return {key: (spread(words[key]), spread(characters[key])) for key in words}


def num_words(texts: pa.ChunkedArray) -> pa.Array:
    r"""How many runs of bytes that are no ASCII white space each text has: what the regex \S+ counts, but faster."""
    if not len(texts):
        return pa.array([], pa.int64())
    joined = pa.concat_arrays(texts.chunks)
    _, ends, content = joined.buffers()
    offsets = np.frombuffer(ends, np.int32)[joined.offset : joined.offset + len(joined) + 1]
    inside = _IN_WORD[np.frombuffer(content or b"", np.uint8)[offsets[0] : offsets[-1]]]
    offsets = offsets - offsets[0]
    begins = inside.copy()
    begins[1:] &= ~inside[:-1]
    heads = offsets[:-1][offsets[:-1] < offsets[1:]]
    begins[heads] = inside[heads]  # whatever the text before ends in
    seen = np.concatenate([[0], np.cumsum(begins)])
    return pa.array(seen[offsets[1:]] - seen[offsets[:-1]])


def flattened(shard: pa.Table, key: str, column: str) -> pa.Table:
    """(key, element) of a column of lists, one row an element."""
    rows = shard.select([key, column]).combine_chunks()
    keys = rows[key].take(pc.list_parent_indices(rows[column]))
    return pa.table({key: keys, column: pc.list_flatten(rows[column])})


def covered(table: Table) -> int:
    """Items with at least one row. No item is in two shards."""
    return sum(pc.count_distinct(table.shard(index)["item_id"]).as_py() for index in range(table.num_shards))


def doubled(items: Table) -> tuple[int, int]:
    """(items whose content another item has too, distinct contents among those); 8 bytes of memory an item. Items
    without media have no content.
    """
    heads = [np.empty(0, ">u8")]
    for index in range(items.num_shards):
        column = pc.utf8_slice_codeunits(items.shard(index)["sha256"], 0, 16)
        heads.append(np.frombuffer(bytes.fromhex("".join(column.to_pylist())), ">u8"))
    _, counts = np.unique(np.concatenate(heads), return_counts=True)
    return int(counts[counts > 1].sum()), int((counts > 1).sum())


def total(counts: dict[Any, int]) -> Any:
    return sum(value * count for value, count in counts.items())
