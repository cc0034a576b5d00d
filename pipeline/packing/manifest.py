"""What a packed table adds to its manifest: sizes of the splits, pairs dropped by language and rule.

Counted over the tables when all shards are made, so the numbers are right however often the run was cut off.
"""

import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.table import Table, complete, read_shard
from pipeline.packing.filters import Filters
from pipeline.packing.rows import REFUSAL


def split_sizes(shards: Sequence[Path]) -> dict[str, dict[str, int]]:
    """By split, how many items, captions and descriptions the `training` shards hold. The media are not touched."""
    sizes: dict[str, dict[str, int]] = {}
    for path in shards:
        table = read_shard(path)
        counted = pa.table(
            {
                "split": table["split"],
                "captions": pc.list_value_length(table["captions"]),
                "descriptions": pc.list_value_length(table["descriptions"]),
            }
        )
        sums = counted.group_by("split").aggregate([([], "count_all"), ("captions", "sum"), ("descriptions", "sum")])
        for row in sums.to_pylist():
            size = sizes.setdefault(row["split"], {"items": 0, "captions": 0, "descriptions": 0})
            size["items"] += row["count_all"]
            size["captions"] += row["captions_sum"]
            size["descriptions"] += row["descriptions_sum"]
    return dict(sorted(sizes.items()))


def without_media(corpus: Path) -> int:
    """How many items of a corpus were ingested for their texts alone."""
    items = Table(corpus, "items")
    return sum(pc.sum(pc.equal(items.shard(n)["sha256"], "")).as_py() or 0 for n in range(items.num_shards))


def dropped_pairs(corpora: Sequence[Path], filters: Filters) -> dict[str, dict[str, int]]:
    """By target language, how many translated pairs there are (`pairs`), how many no rule drops (`kept`), and how many
    fall to each rule; a pair may fall to several. `refusal` counts translations of descriptions that were declined.

    `kept` may be more than is packed: of equal texts that several corpora have of one item, one is packed.
    """
    sums: dict[str, collections.Counter[str]] = {}
    for corpus in corpora:
        if not complete(corpus, "translations"):
            continue
        pairs = Table(corpus, "translations")
        described = Table(corpus, "descriptions") if complete(corpus, "descriptions") else None
        for index in range(pairs.num_shards):
            shard = pairs.shard(index)
            masks = filters.masks(shard)
            if described:
                masks[REFUSAL] = _of_refusals(shard, described.shard(index))
            kept = ~np.any(list(masks.values()), axis=0)
            for language in pc.unique(shard["target_language"]).to_pylist():
                here = np.asarray(pc.equal(shard["target_language"], language), bool)
                counts = sums.setdefault(language, collections.Counter())
                counts["pairs"] += int(here.sum())
                counts["kept"] += int((here & kept).sum())
                counts.update({rule: n for rule, mask in masks.items() if (n := int((here & mask).sum()))})
    return {language: dict(sums[language]) for language in sorted(sums)}


def _of_refusals(pairs: pa.Table, descriptions: pa.Table) -> np.ndarray:
    flags = descriptions["flags"].combine_chunks()
    declined = pc.unique(pc.list_parent_indices(flags).filter(pc.equal(pc.list_flatten(flags), REFUSAL)))
    rows = descriptions.select(["item_id", "view"]).take(declined)
    ids = pc.binary_join_element_wise(rows["item_id"], rows["view"], "#")
    found = pc.and_(pc.equal(pairs["source_table"], "descriptions"), pc.is_in(pairs["caption_id"], value_set=ids))
    return np.asarray(found, bool)
