"""Which number the item of a key has in an index.

N items
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

Key = tuple[str, str]  # corpus, item_id
READ = 65_536  # keys at once


class Keys:
    """Told apart by a hash, then by themselves: 16 bytes an item, beside columns that are mapped from files.

    `present_N`: which items count, bool.
    """

    def __init__(self, items: pa.Table, present_N: np.ndarray):
        self._items = items.select(["corpus", "item_id"])
        hashes_N = np.fromiter(map(hash, self._all()), np.int64, items.num_rows)
        order_N = np.argsort(hashes_N, kind="stable")
        self._numbers = order_N[present_N[order_N]]
        self._hashes = hashes_N[self._numbers]

    def _all(self) -> Iterator[Key]:
        for batch in self._items.to_batches(READ):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def key(self, number: int) -> Key:
        corpora, ids = self._items.columns
        return corpora[number].as_py(), ids[number].as_py()

    def get(self, key: Key) -> int | None:
        """The item's number, None where it is not there."""
        wanted = hash(key)
        place = int(np.searchsorted(self._hashes, wanted))
        while place < len(self._hashes) and self._hashes[place] == wanted:
            number = int(self._numbers[place])
            if self.key(number) == key:
                return number
            place += 1
        return None
