"""What a card says of table `training`: its splits, languages and media, what it was packed from, and what the filters
left out."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.card.markdown import grid, plain, public, ranked, some
from pipeline.card.texts import EMBEDDED_WARNING
from pipeline.card.translations import dropped_by_rule, notices, threshold_grid
from pipeline.corpus.counting import Counts, counted, flattened, numbers_by, spread, values
from pipeline.corpus.table import Table
from pipeline.packing.manifest import split_sizes

SAMPLE_TEXTS = 3
Source = Mapping[str, Any]  # an entry of the manifest's `sources`, see Pack.notes
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


def training_section(table: Table, alone: bool) -> list[str]:
    """Blocks of Markdown: what is in the shards, from where, and which pairs the filters left out.

    `alone`: the corpus has no tables of its own that its card could tell of.
    """
    if not table.num_rows:
        return ["## Training", "Nothing could be packed: see the failures."]
    settings, dropped = table.manifest["settings"], table.manifest.get("dropped", {})
    captions = caption_counts(table)
    sizes = split_sizes(table.shard_paths())
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
        *(packed_from(table.manifest.get("sources", [])) if alone or settings.get("corpora") != ["."] else []),
        *_dropped(dropped),
        *([FILTERS, threshold_grid(filters)] if filters else []),
    ]


def _left_out(manifest: Mapping[str, Any]) -> str:
    merged, empty = manifest.get("merged", 0), manifest.get("without_text", 0)
    told = f" {some(merged, 'item')} became part of another corpus' item, which has the same content." if merged else ""
    if unseen := manifest.get("without_media", 0):
        told += f" {some(unseen, 'item')} had no media, and so no row."
    return told + (f" {some(empty, 'item')} had no text that was kept, and so no row." if empty else "")


def _media(settings: Mapping[str, Any]) -> str:
    size, frames = settings.get("image_size"), settings.get("frames")
    if settings.get("media") == "pixels":
        return (
            f"Its picture is in `media`, a JPEG whose shorter side is at most {size} pixels; of a video up to {frames} "
            "frames, one below the other. Of features computed before it is their array, an `.npy` of "
            f"{settings.get('feature_type', 'float16')}."
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


def packed_from(sources: Sequence[Source]) -> list[str]:
    """Blocks of Markdown: whose items, descriptions and translations these are, under which licences."""
    if not sources:
        return []
    licences = [
        [source["name"], text or "not stated", count]
        for source in sources
        for text, count in ranked(Counts({(text,): count for text, count in source["licenses"].items()}))
    ]
    described = [[source["name"], public(source["captioner"])] for source in sources if source["captioner"]]
    translated = [
        [source["name"], language, public(made["name"]), public(made["revision"]), made["license"] or "not stated"]
        for source in sources
        for language, made in sorted(source["translators"].items())
    ]
    embedded = [source["name"] for source in sources if source["captioner"].startswith("embedded:")]
    warning = EMBEDDED_WARNING.replace("these descriptions", f"the descriptions of {plain(', '.join(embedded))}")
    return [
        "### What it was packed from",
        "The items of each corpus and their licences as their sources state them, unchecked; items that became part "
        "of another or have no row are among them.",
        grid(["corpus", "licence", "items"], licences),
        *(["Who described them:", grid(["corpus", "captioner"], described)] if described else []),
        *([warning] if embedded else []),
        *(
            ["Who translated:", grid(["corpus", "language", "translator", "revision", "licence"], translated)]
            if translated
            else []
        ),
        *notices(*(source["translators"] for source in sources)),
    ]


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
        "### What the filters dropped",
        "Translated pairs, and those that passed the filters; of equal texts of several corpora one is packed.",
        grid(["language", "pairs", "passed the filters"], rows),
        *dropped_by_rule(pairs, fallen),
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
