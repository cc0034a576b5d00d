"""Synthetic scenes on disk: a whole corpus.

It has every table that the stages would make, manifests last, and is read and verified like any other. 3,600
items of 64 pixels take seconds. The same settings give the same bytes.
"""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.captioning.prompts import BUILT_IN
from pipeline.corpus import table as tables
from pipeline.corpus.commit import tools
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import MANIFEST, Table, complete, shard_name
from pipeline.engine.run_state import locked
from pipeline.errors import UsageError
from pipeline.hashing import canonical_json, differences, fingerprint, short_hash
from pipeline.packing import manifest
from pipeline.packing.filters import Filters
from pipeline.packing.manifest import JOINED, recorded_settings
from pipeline.sources.scenes import rows
from pipeline.sources.scenes.grammar import SOURCE
from pipeline.sources.scenes.noise import CAPTIONER, VIEWS
from pipeline.sources.scenes.rows import Settings
from pipeline.storage.files import write_file

SETTINGS, TRUTH, MEDIA = "scenes.json", "scenes.jsonl", "media"
SHARD_ROWS = 1_000
PARENTS = {"captions": (), "descriptions": ("items",), "translations": ("items", "captions"), "training": JOINED}
CARD = Path(__file__).with_name("card.md")


def write_corpus(folder: Path, settings: Settings, say: Callable[[str], None] = lambda _line: None) -> None:
    """Write a corpus of scenes: media, items, captions, descriptions, translations, training, README.md.

    A complete corpus with these settings is left as it is; an interrupted one is begun again.

    Args:
        folder: where the corpus goes.
        settings: what it holds.
        say: is given a line for each table.

    Raises:
        UsageError: No item is asked for, or the folder holds something else or a corpus with other settings.
    """
    if not settings.items + settings.val + settings.test:
        raise UsageError("--items, --val and --test are 0: give at least one item")
    corpus = Path(folder).absolute()
    _refuse_strangers(corpus)
    with locked(corpus):
        if _is_complete(corpus, settings):
            say(f"{folder}: is complete already, made with the same settings")
            return
        for name in SCHEMAS:
            (corpus / name / MANIFEST).unlink(missing_ok=True)
        for name in (*SCHEMAS, MEDIA):
            shutil.rmtree(corpus / name, ignore_errors=True)
        tables.write_json(corpus / SETTINGS, settings.recorded())
        entries = _write_shards(corpus, rows.plan(settings), settings)
        for name in SCHEMAS:
            _write_manifest(corpus, name, settings, entries[name])
            table = Table(corpus, name)
            say(f"{name}: {table.num_rows:,} rows in {table.num_shards:,} shards")


def _refuse_strangers(corpus: Path) -> None:
    if corpus.is_dir() and not (corpus / SETTINGS).exists():
        others = sorted(path.name for path in corpus.iterdir() if path.name[0] != ".")
        if others:
            raise UsageError(f"{corpus} holds other things ({', '.join(others[:3])}): give another --output")


def _is_complete(corpus: Path, settings: Settings) -> bool:
    """Whether the whole corpus is there with these settings. The settings of an unfinished one do not matter."""
    stored = tables.read_json(corpus / SETTINGS)
    if stored is None or not all(complete(corpus, name) for name in SCHEMAS):
        return False
    differing = [
        f"--{name.replace('_', '-')} is {theirs!r} there and {ours!r} now"
        for name, theirs, ours in differences(stored, settings.recorded())
    ]
    if differing:
        raise UsageError(f"{corpus} was made otherwise: {'; '.join(differing)}: give the same, or another --output")
    return True


def _write_shards(corpus: Path, items: list[rows.Item], settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Write media, shards and the truth. Returns the manifest entries of the shards by table."""
    for split in {item.split for item in items}:
        (corpus / MEDIA / split).mkdir(parents=True)
    for name in SCHEMAS:
        (corpus / name).mkdir()
    starts = range(0, len(items), SHARD_ROWS)
    entries: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    for index, start in enumerate(starts):
        written = [rows.item_rows(item, settings, corpus / MEDIA) for item in items[start : start + SHARD_ROWS]]
        for name, schema in SCHEMAS.items():
            table = pa.Table.from_pylist([row for item in written for row in item[name]], schema)
            entry = tables.write_shard(corpus / name / shard_name(index, len(starts)), table)
            entries[name].append({**entry, "parent": _parent_hash(name, entries, index), "items": len(written)})
    with write_file(corpus / TRUTH) as stream:
        for item in items:
            line = {"item_id": item.item_id, "split": item.split, **dataclasses.asdict(item.scene)}
            stream.write(f"{canonical_json(line)}\n".encode())
    return entries


def _parent_hash(name: str, entries: dict[str, list[dict[str, Any]]], index: int) -> str:
    """The checksum of what a shard was made from, as `pipeline.corpus.shards` computes it."""
    hashes = [entries[parent][index]["sha256"] for parent in PARENTS.get(name, ())]
    return str(hashes[0]) if len(hashes) == 1 else short_hash(canonical_json(hashes))


def _write_manifest(corpus: Path, name: str, settings: Settings, entries: list[dict[str, Any]]) -> None:
    extra: dict[str, Any] = {}
    if name == "training":
        shards = [corpus / name / shard_name(index, len(entries)) for index in range(len(entries))]
        extra = {
            "splits": manifest.split_sizes(shards),
            "dropped": manifest.dropped_pairs([corpus], Filters()),
            "merged": 0,
            "without_text": 0,
            "sources": [manifest.describe_source(corpus)],
        }
        values = settings.recorded() | {"truth": TRUTH, "languages": ", ".join(settings.languages)}
        with write_file(corpus / "README.md") as stream:
            stream.write(CARD.read_text(encoding="utf-8").format(**values).encode())
    recorded = _table_settings(name, settings)
    tables.write_manifest(
        corpus,
        name,
        settings=recorded,
        fingerprint=fingerprint(recorded),
        tools=tools(),
        parents={parent: corpus / parent for parent in PARENTS.get(name, ())},
        shards=entries,
        failures=[],
        extra=extra,
    )


def _table_settings(name: str, settings: Settings) -> dict[str, Any]:
    """What the readers of a table look for in its manifest, for example who described and who translated."""
    if name == "training":
        return recorded_settings()
    if name == "descriptions":
        views = {view: {"prompt": BUILT_IN[view].prompt} for view in VIEWS}
        errors = settings.description_errors
        return {"captioner": CAPTIONER, "revision": rows.REVISION, "views": views, "errors": errors}
    if name == "translations":
        translator = {"name": rows.TRANSLATOR, "revision": rows.REVISION, "license": rows.LICENSE}
        translator["decoding"] = canonical_json({"noise": settings.translation_noise})
        return {
            "text": ["captions"],
            "source_language": SOURCE,
            "translators": {language: translator for language in sorted(settings.languages)},
        }
    return settings.recorded()
