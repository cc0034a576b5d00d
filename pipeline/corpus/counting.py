"""Counting over tables, shard by shard: memory stays flat however large the corpus.

languages = Tally(columns("language"))
scan(table, [languages])
languages.counts[("en",)]
"""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import Table
from pipeline.storage.files import read_ahead

MAX_DISTINCT = 10_000  # distinct values that are counted one by one in a column of free text
OTHERS = "(others)"

Counts = collections.Counter[tuple[Any, ...]]
Projection = Callable[[pa.Table], pa.Table]


class Accumulator(Protocol):
    """Anything that gathers figures shard by shard."""

    def add(self, shard: pa.Table) -> None:
        """Take in one shard of the table."""


@dataclasses.dataclass
class Tally:
    """Counts how often each row of `project(shard)` occurs, in order of first occurrence.

    With `limit`, rows that are new after that many distinct ones are counted together, as `(others)`.
    """

    project: Projection
    limit: int | None = None
    counts: Counts = dataclasses.field(default_factory=collections.Counter)

    def add(self, shard: pa.Table) -> None:
        """Count the rows of a shard."""
        rows = self.project(shard)
        grouped = rows.group_by(rows.column_names, use_threads=False).aggregate([([], "count_all")]).to_pydict()
        numbers = grouped.pop("count_all")
        for key, number in zip(zip(*grouped.values(), strict=True), numbers, strict=True):
            full = self.limit and len(self.counts) >= self.limit and key not in self.counts
            self.counts[(OTHERS,) * len(key) if full else key] += number


class Copies:
    """Items that share their content, from `items` shards; keeps 8 bytes an item. Items without media do not count."""

    def __init__(self) -> None:
        self._heads = [np.empty(0, ">u8")]

    def add(self, shard: pa.Table) -> None:
        """Take in the content hashes of a shard."""
        column = pc.utf8_slice_codeunits(shard["sha256"], 0, 16)
        self._heads.append(np.frombuffer(bytes.fromhex("".join(column.to_pylist())), ">u8"))

    def totals(self) -> tuple[int, int]:
        """The number of items whose content another item has too, and of distinct contents among them."""
        _, counts = np.unique(np.concatenate(self._heads), return_counts=True)
        return int(counts[counts > 1].sum()), int((counts > 1).sum())


def scan(table: Table, accumulators: Iterable[Accumulator]) -> None:
    """Feed every shard of a table to all accumulators: one pass, whatever their number."""
    accumulators = list(accumulators)
    for shard in read_ahead(table.shard, range(table.num_shards)):
        for accumulator in accumulators:
            accumulator.add(shard)


def values(table: Table, *names: str, limit: int = MAX_DISTINCT) -> Counts:
    """How often each combination of values of these columns occurs in the table, see `Tally`."""
    tally = Tally(columns(*names), limit)
    scan(table, [tally])
    return tally.counts


def columns(*names: str) -> Projection:
    """A projection to some columns."""
    return lambda shard: shard.select(list(names))


def flattened(key: str, column: str) -> Projection:
    """A projection to (key, element) of a column of lists, one row for each element."""

    def project(shard: pa.Table) -> pa.Table:
        rows = shard.select([key, column]).combine_chunks()
        keys = rows[key].take(pc.list_parent_indices(rows[column]))
        return pa.table({key: keys, column: pc.list_flatten(rows[column])})

    return project


def num_words(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The number of words in each text, separated by ASCII white space."""
    return pc.count_substring_regex(texts, r"\S+")


def group_numbers(counts: Counts) -> dict[tuple[Any, ...], dict[Any, int]]:
    """Counts of (key…, number) as {key: {number: count}}; nulls are left out."""
    groups: dict[tuple[Any, ...], dict[Any, int]] = {}
    for (*key, number), count in counts.items():
        if number is not None:
            groups.setdefault(tuple(key), {})[number] = count
    return groups


def median(counts: Mapping[Any, int]) -> Any:
    """The median of numbers with how often each occurs; the lower of two in the middle."""
    ordered = sorted(counts)
    reached = list(itertools.accumulate(counts[number] for number in ordered))
    return next(number for number, seen in zip(ordered, reached, strict=True) if 2 * seen >= reached[-1])


def total(counts: Mapping[Any, int]) -> Any:
    """The sum of numbers with how often each occurs."""
    return sum(number * count for number, count in counts.items())
