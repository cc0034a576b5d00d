"""Sample items of a corpus, at even distances over it, so that the same corpus gives the same samples."""

import bisect
import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from pipeline.corpus.table import Table

LANGUAGES = 3  # whose first captions are shown
TEXTS = ("descriptions", "captions")


@dataclasses.dataclass(frozen=True)
class Sample:
    """An item with its texts: a row of `items` or `training`, and rows of the other tables."""

    item: Mapping[str, Any]
    descriptions: list[dict[str, Any]]
    captions: list[dict[str, Any]]

    @property
    def text(self) -> str:
        """The `short` view, else the first view, else the first caption, else nothing."""
        short = [row for row in self.descriptions if row["view"] == "short"]
        return next((row["text"] for row in (*short, *self.descriptions, *self.captions)), "")

    def description(self, number: int) -> Mapping[str, Any]:
        """One of the descriptions, chosen by the number of the sample; a row without text where there is none."""
        return self.descriptions[number % len(self.descriptions)] if self.descriptions else {"view": "", "text": ""}

    @property
    def first_captions(self) -> str:
        """The first caption of each of the first few languages."""
        firsts = {row["language"]: row["text"] for row in reversed(self.captions)}  # reversed: the first caption wins
        return " — ".join(f"{language}: {firsts[language]}" for language in sorted(firsts)[:LANGUAGES])

    @property
    def size(self) -> str:
        """Width and height in pixels, or that there are features or no media."""
        if "width" not in self.item:
            return ""
        if self.item["width"]:
            return f"{self.item['width']} × {self.item['height']}"
        return f"{self.item['num_frames']:,} × features" if self.item["uri"] else "without media"


def read_samples(tables: Mapping[str, Table], count: int) -> list[Sample]:
    """Up to `count` items in the order of the corpus: from table `items`, or from `training` without it."""
    packed = "items" not in tables
    table = tables["training" if packed else "items"]
    total = table.num_rows
    chosen = [total * (2 * i + 1) // (2 * count) for i in range(count)] if total > count else list(range(total))
    starts = list(itertools.accumulate((entry["rows"] for entry in table.manifest["shards"]), initial=0))
    samples = []
    for index, rows in itertools.groupby(chosen, lambda row: bisect.bisect_right(starts, row) - 1):
        shard = table.shard(index).drop_columns(["media"] if packed else [])
        others = {name: tables[name].shard(index) for name in TEXTS if name in tables and not packed}
        for row in rows:
            item = shard.slice(row - starts[index], 1).to_pylist()[0]
            texts = item if packed else {name: [] for name in TEXTS}
            for name, other in others.items():
                texts[name] = other.filter(pc.equal(other["item_id"], item["item_id"])).to_pylist()
            samples.append(Sample(item, texts["descriptions"], texts["captions"]))
    return samples
