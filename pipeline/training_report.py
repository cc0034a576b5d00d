"""What a card says of table `training`: its splits, languages and media, and what the filters left out."""

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import Table
from pipeline.counting import Counts, counted, flattened, numbers_by, spread, values
from pipeline.markdown import grid, some
from pipeline.quality_report import dropped_by_rule, legend, threshold_grid

SAMPLE_TEXTS = 3
FILTERS = (
    "Thresholds that the filters named: `default` is for all languages that name none of their own, and rules that are "
    "not here kept the thresholds under which the pairs were measured."
)


def caption_counts(table: Table) -> Counts:
    """How many captions by (split, language, origin)."""
    return counted(table, _captions)


def _captions(shard: pa.Table) -> pa.Table:
    flat = flattened(shard, "split", "captions")
    fields = {name: pc.struct_field(flat["captions"], name) for name in ("language", "origin")}
    return pa.table({"split": flat["split"], **fields})


def split_sizes(table: Table) -> dict[str, dict[str, int]]:
    """Items, captions and descriptions by split, in the order of the splits' names."""
    captions = counted(table, lambda shard: flattened(shard, "split", "captions").select(["split"]))
    descriptions = counted(table, lambda shard: flattened(shard, "split", "descriptions").select(["split"]))
    return {
        key[0]: {"items": items, "captions": captions[key], "descriptions": descriptions[key]}
        for key, items in sorted(values(table, "split").items())
    }


def training_section(table: Table) -> list[str]:
    """Blocks of Markdown: what is in the shards, and which pairs the filters left out."""
    if not table.num_rows:
        return ["## Training", "Nothing could be packed: see the failures."]
    settings, dropped = table.manifest["settings"], table.manifest.get("dropped", {})
    captions = caption_counts(table)
    sizes = split_sizes(table)
    splits = list(sizes)
    filters = settings.get("filters", {})
    return [
        "## Training",
        f"Each row of `training` is an item with all its texts. {_media(settings)}{_left_out(table.manifest)}",
        grid(["split", *sizes[splits[0]]], ([split, *sizes[split].values()] for split in splits)),
        "The captions: `human` text came with the items, `mt` is translated, `mllm` was written by a model.",
        _language_grid(splits, captions),
        f"The media, in shards of {sum(entry['bytes'] for entry in table.manifest['shards']) / 1e6:,.1f} MB in all. "
        "Frames and KiB an item: smallest / median / largest.",
        _media_grid(table),
        *_dropped(dropped),
        *([FILTERS, threshold_grid(filters)] if filters else []),
    ]


def _left_out(manifest: Mapping[str, Any]) -> str:
    merged, empty = manifest.get("merged", 0), manifest.get("without_text", 0)
    told = f" {some(merged, 'item')} became part of another corpus' item, which has the same content." if merged else ""
    return told + (f" {some(empty, 'item')} had no text that was kept, and so no row." if empty else "")


def _media(settings: Mapping[str, Any]) -> str:
    size, frames = settings.get("image_size"), settings.get("frames")
    if settings.get("media") == "pixels":
        return (
            f"Its picture is in `media`, a JPEG whose shorter side is at most {size} pixels; of a video up to {frames} "
            "frames, one below the other."
        )
    return "Its picture or video is not in the row: `uri` says where it lies, `sha256` what it must be."


def _language_grid(splits: list[str], captions: Counts) -> str:
    kinds = sorted({(language, origin) for _, language, origin in captions})
    rows = ([*kind, *(captions[split, *kind] for split in splits)] for kind in kinds)
    return grid(["language", "origin", *splits], rows)


def _media_grid(table: Table) -> str:
    frames = numbers_by(table, ["media_type"], itemgetter("num_frames"))
    sizes = numbers_by(
        table, ["media_type"], lambda shard: pc.divide(pc.add(pc.binary_length(shard["media"]), 512), 1024)
    )
    rows = []
    for (kind,), count in sorted(values(table, "media_type").items()):
        inside = sum(sizes.get((kind,), {}).values())
        rows.append([kind, count, inside, spread(frames[kind,]), spread(sizes[kind,]) if inside else ""])
    return grid(["media", "items", "with pixels", "frames", "KiB"], rows)


def _dropped(dropped: Mapping[str, Mapping[str, int]]) -> list[str]:
    if not dropped:
        return ["No translations were packed, so no filter was asked."]
    rows = ([language, of.get("pairs", 0), of.get("kept", 0)] for language, of in sorted(dropped.items()))
    pairs = {language: of.get("pairs", 0) for language, of in sorted(dropped.items())}
    fallen = {
        language: {rule: n for rule, n in of.items() if rule not in ("pairs", "kept")}
        for language, of in dropped.items()
    }
    return [
        "Translated pairs that the filters were asked about, and those that were packed:",
        grid(["language", "pairs", "kept"], rows),
        "What each rule dropped, and its share of the language's pairs. A pair may fall to several rules.",
        dropped_by_rule(pairs, fallen),
        legend({rule for of in fallen.values() for rule, n in of.items() if n}),
    ]


def training_samples(table: Table, count: int, characters: int) -> str:
    """A table of up to `count` items at even distances over the shards, with texts of the first few languages."""
    rows, before = [], 0
    chosen = sorted({table.num_rows * (2 * i + 1) // (2 * count) for i in range(count)}) if table.num_rows else []
    for index, entry in enumerate(table.manifest["shards"]):
        here = [row - before for row in chosen if before <= row < before + entry["rows"]]
        before += entry["rows"]
        texts = ["item_id", "media_type", "captions", "descriptions"]
        for row in table.shard(index).select(texts).take(here).to_pylist() if here else []:
            by_language = {caption["language"]: caption["text"] for caption in reversed(row["captions"])}
            told = [f"{language}: {by_language[language]}" for language in sorted(by_language)[:SAMPLE_TEXTS]]
            said = row["descriptions"][0]["text"] if row["descriptions"] else ""
            rows.append([row["item_id"], row["media_type"], " — ".join(told), said])
    return grid(["item", "media", "first captions", "first description"], rows, characters)
