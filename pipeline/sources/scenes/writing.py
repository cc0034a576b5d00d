"""A corpus of scenes on disk: media, tables, manifests last; begun again where it was interrupted."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.captioning.prompts import BUILT_IN
from pipeline.corpus import table as corpora
from pipeline.corpus.commit import tools
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import MADE_BY
from pipeline.engine.run_state import locked
from pipeline.errors import UsageError
from pipeline.hashing import canonical_json, differences, fingerprint, short_hash
from pipeline.packing import manifest as sums
from pipeline.packing.filters import Filters
from pipeline.packing.manifest import JOINED, recorded_settings
from pipeline.sources.scenes import rows
from pipeline.sources.scenes.describing import CAPTIONER, VIEWS
from pipeline.sources.scenes.languages import SOURCE
from pipeline.sources.scenes.rows import Item, Settings

SETTINGS, TRUTH, MEDIA = "scenes.json", "scenes.jsonl", "media"
SHARD_ROWS = 1_000
CARD = """---
pretty_name: Synthetic scenes
license: cc0-1.0
tags: [synthetic]
---

# Synthetic scenes

This corpus is synthetic: a program drew the pictures, and small grammars wrote the captions. Nobody described anything,
and nothing in it is a photograph. It is a test bed, where what is true of every picture is known (`{truth}`); figures
measured on it say nothing about real pictures.

- {train:,} items to train on, with English captions and, into {languages}, pseudo-translations of noise level \
{translation_noise:g}: words dropped, swapped and wrong, with an estimate of quality that is blurred.
- {val:,} and {test:,} items held out (val, test), with captions in every language, written without noise.
- Descriptions in English as a captioner might write them, each of their facts wrong with probability \
{description_errors:g}.
- Pictures of {size} pixels square; {videos:.0%} of the scenes are clips. Seed {seed}.

The captions' origin is `human` in the tables, as they stand for what people would write.
"""


def write(folder: Path, settings: Settings, say: Callable[[str], None]) -> None:
    """Raises UsageError where the folder holds something else, or a corpus of other settings."""
    corpus = folder.absolute()
    _refuse_strangers(corpus)
    with locked(corpus):
        if _standing(corpus, settings):
            say(f"{folder}: is complete already, made with the same settings")
            return
        for name in SCHEMAS:
            (corpus / name / corpora.MANIFEST).unlink(missing_ok=True)
        for name in (*SCHEMAS, MEDIA):
            shutil.rmtree(corpus / name, ignore_errors=True)
        corpora.write_json(corpus / SETTINGS, settings.told())
        made = _write_shards(corpus, rows.plan(settings), settings)
        _write_manifests(corpus, settings, made)
        for name, table in ((name, corpora.Table(corpus, name)) for name in SCHEMAS):
            say(f"{name}: {table.num_rows:,} rows in {table.num_shards:,} shards")


def _refuse_strangers(corpus: Path) -> None:
    if corpus.is_dir() and not (corpus / SETTINGS).exists():
        others = sorted(path.name for path in corpus.iterdir() if path.name[0] != ".")
        if others:
            raise UsageError(
                f"{corpus} holds other things ({', '.join(others[:3])}), wanted a new or empty folder, or a corpus of "
                "scenes: give another --output"
            )


def _standing(corpus: Path, settings: Settings) -> bool:
    """Whether the corpus is there whole, with these settings. One that was begun and not finished binds nobody."""
    stored = corpora.read_json(corpus / SETTINGS)
    if stored is None or not all(corpora.complete(corpus, name) for name in SCHEMAS):
        return False
    differing = [
        f"--{name.replace('_', '-')} is {theirs!r} there and {ours!r} now"
        for name, theirs, ours in differences(stored, settings.told())
    ]
    if differing:
        raise UsageError(
            f"{corpus} was made with other settings: {'; '.join(differing)}: give the same, or another --output"
        )
    return True


def _write_shards(corpus: Path, items: list[Item], settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """By table, the entries of its shards."""
    for split in {item.split for item in items}:
        (corpus / MEDIA / split).mkdir(parents=True)
    for name in SCHEMAS:
        (corpus / name).mkdir()
    starts = range(0, len(items), SHARD_ROWS)
    entries: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    for index, start in enumerate(starts):
        made = [rows.rows_of(item, settings, corpus / MEDIA) for item in items[start : start + SHARD_ROWS]]
        for name, schema in SCHEMAS.items():
            table = pa.Table.from_pylist([row for item in made for row in item[name]], schema)
            written = corpora.write_shard(corpus / name / corpora.shard_name(index, len(starts)), table)
            entries[name].append({**written, "parent": _parent(name, entries, index), "items": len(made)})
    with corpora.atomic_writer(corpus / TRUTH) as stream:
        for item in items:
            line = {"item_id": item.item_id, "split": item.split, **item.scene.truth()}
            stream.write(f"{canonical_json(line)}\n".encode())
    return entries


PARENTS = {"captions": (), "descriptions": ("items",), "translations": ("items", "captions"), "training": JOINED}


def _parent(name: str, entries: dict[str, list[dict[str, Any]]], index: int) -> str:
    """The checksum of what a shard was made from, as `pipeline.corpus.shards` has it."""
    sums_of_parents = [entries[parent][index]["sha256"] for parent in PARENTS.get(name, ())]
    if len(sums_of_parents) == 1:
        return str(sums_of_parents[0])
    return short_hash(canonical_json(sums_of_parents))


def _write_manifests(corpus: Path, settings: Settings, made: dict[str, list[dict[str, Any]]]) -> None:
    for name in SCHEMAS:
        decided = recorded_settings() if name == "training" else _settings_of(name, settings)
        extra = {}
        if name == "training":
            shards = [corpus / name / corpora.shard_name(at, len(made[name])) for at in range(len(made[name]))]
            extra = {
                "splits": sums.split_sizes(shards),
                "dropped": sums.dropped_pairs([corpus], Filters()),
                "merged": 0,
                "without_text": 0,
                "sources": [sums.describe_source(corpus)],
            }
            with corpora.atomic_writer(corpus / "README.md") as stream:
                stream.write(_card(settings).encode())
        corpora.write_manifest(
            corpus,
            name,
            stage=MADE_BY[name],
            settings=decided,
            fingerprint=fingerprint(decided),
            tools=tools(),
            parents={parent: corpus / parent for parent in PARENTS.get(name, ())},
            shards=made[name],
            failures=[],
            extra=extra,
        )


def _settings_of(name: str, settings: Settings) -> dict[str, Any]:
    """What the readers of a table look for in its manifest: who described, who translated."""
    if name == "descriptions":
        views = {view: {"prompt": BUILT_IN[view].prompt} for view in VIEWS}
        errors = settings.description_errors
        return {"captioner": CAPTIONER, "revision": rows.REVISION, "views": views, "errors": errors}
    if name == "translations":
        told = {"name": rows.TRANSLATOR, "revision": rows.REVISION, "license": rows.LICENSE}
        told["decoding"] = canonical_json({"noise": settings.translation_noise})
        return {
            "text": ["captions"],
            "source_language": SOURCE,
            "translators": {language: told for language in sorted(settings.languages)},
        }
    return settings.told()


def _card(settings: Settings) -> str:
    told = settings.told() | {"train": settings.items, "truth": TRUTH, "languages": ", ".join(settings.languages)}
    return CARD.format(**told)
