"""What the manifest of a packed table records: settings, split sizes, dropped pairs, origins of texts and media.

Figures are counted from the tables when all shards are complete, so they are right however often the run was
interrupted.
"""

import collections
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from pipeline.corpus.counting import values
from pipeline.corpus.table import Table, complete, read_shard
from pipeline.packing.filters import Filters
from pipeline.packing.rows import flags_by_id, reasons_to_drop

JOINED = ("items", "captions", "descriptions", "translations")  # the tables that packing joins, by item
STORED = {"media": "pixels", "image_size": 384, "frames": 8, "feature_type": "float16"}  # how media are stored
NEWER = {"feature_type": "float16", "near_duplicates": "move"}  # defaults of settings that older tables do not have


def recorded_settings(
    corpora: Sequence[str] = (".",), filters: Filters | None = None, **stored: str | int
) -> dict[str, Any]:
    """Settings as the manifest has them; the defaults are those of `--stage pack` on a single corpus.

    Args:
        corpora: Absolute paths; "." for the corpus that holds the training table.
        filters: Thresholds for translated pairs.
        **stored: What replaces STORED.
    """
    kinds = {name: value for name, value in {**STORED, **stored}.items() if NEWER.get(name) != value}
    return {"corpora": list(corpora), **kinds, "filters": filters.thresholds if filters else {}}


def split_sizes(shards: Sequence[Path]) -> dict[str, dict[str, int]]:
    """By split, the number of items, captions and descriptions in `training` shards. Media are not read."""
    sizes: dict[str, collections.Counter[str]] = {}
    for path in shards:
        shard = read_shard(path)
        lengths = [pc.list_value_length(shard[name]).to_pylist() for name in ("captions", "descriptions")]
        for split, captions, descriptions in zip(shard["split"].to_pylist(), *lengths, strict=True):
            size = sizes.setdefault(split, collections.Counter())
            size.update(items=1, captions=captions, descriptions=descriptions)
    return {split: dict(size) for split, size in sorted(sizes.items())}


def count_without_media(corpus: Path) -> int:
    """The number of items that were ingested for their texts only."""
    items = Table(corpus, "items")
    return sum(pc.sum(pc.equal(items.shard(n)["sha256"], "")).as_py() or 0 for n in range(items.num_shards))


def dropped_pairs(corpora: Sequence[Path], filters: Filters) -> dict[str, dict[str, int]]:
    """By target language, the number of translated pairs, of those that no rule drops, and of those of each rule.

    A pair may fall to several rules, and to the flags of the description that it translates. `kept`
    may be more than is packed: of equal texts that several corpora have of one item, one is packed.

    Returns:
        `{"de": {"pairs": 100, "kept": 97, "copied": 3}}`
    """
    counts: dict[str, collections.Counter[str]] = {}
    for corpus in corpora:
        if not complete(corpus, "translations"):
            continue
        pairs = Table(corpus, "translations")
        descriptions = Table(corpus, "descriptions") if complete(corpus, "descriptions") else None
        for index in range(pairs.num_shards):
            views = descriptions.shard(index).select(["item_id", "view", "flags"]).to_pylist() if descriptions else []
            flags = flags_by_id(views, filters)
            shard = pairs.shard(index).select(["caption_id", "source_table", "target_language", "scores", "flags"])
            for pair in shard.to_pylist():
                total = counts.setdefault(pair["target_language"], collections.Counter(pairs=0, kept=0))
                total.update(["pairs", *(reasons_to_drop(pair, flags, filters) or ["kept"])])
    return {language: dict(counts[language]) for language in sorted(counts)}


def dropped_descriptions(corpora: Sequence[Path], filters: Filters) -> dict[str, int]:
    """The number of descriptions that are left out, as `rows`, and of those of each flag; {} if all are packed."""
    counts: collections.Counter[str] = collections.Counter()
    for corpus in corpora:
        if not complete(corpus, "descriptions"):
            continue
        descriptions = Table(corpus, "descriptions")
        for index in range(descriptions.num_shards):
            for row in descriptions.shard(index).select(["flags"]).to_pylist():
                if flags := filters.flags_against(row):
                    counts.update(["rows", *flags])
    return dict(counts)


def describe_source(corpus: Path) -> dict[str, Any]:
    """A packed corpus, for the manifest: its items by licence, its captioner, its translators by language.

    Whoever publishes the packed table must pass these on.
    """
    licenses = {text: count for (text,), count in sorted(values(Table(corpus, "items"), "license").items())}
    source: dict[str, Any] = {"name": corpus.name, "licenses": licenses, "captioner": "", "translators": {}}
    if complete(corpus, "descriptions"):
        source["captioner"] = Table(corpus, "descriptions").manifest["settings"].get("captioner", "")
    if complete(corpus, "translations"):
        translators = Table(corpus, "translations").manifest["settings"].get("translators", {})
        source["translators"] = {
            language: {name: translator.get(name, "") for name in ("name", "revision", "license")}
            for language, translator in sorted(translators.items())
        }
    return source
