"""The next state of a corpus, made next to the present one, which stays as it is until the next one is complete.

    CORPUS/.state/next/NAME/    a corpus of its own: the new plan, and links to the shards that may still hold

The stages run on it as on any other corpus: shards whose parents are the same are current, the others take over the
rows that still hold. Then `publish` puts its files into the place of the old ones.
"""

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.corpus import shards
from pipeline.corpus import table as tables
from pipeline.corpus.changes import Changes
from pipeline.corpus.commit import ORDER, mark_incomplete, stored_settings
from pipeline.engine.stage import Rows
from pipeline.hashing import canonical_json, short_hash
from pipeline.storage.files import in_parallel, link, remove_tree

PUBLISHING, MADE_FROM, SETTINGS = "publishing.json", "made-from.json", "settings.json"


def next_folder(corpus: Path) -> Path:
    """Where the next state is made, under the corpus's own name, which cards and manifests have in them."""
    return tables.state_folder(corpus) / "next" / corpus.name


def begun_stages(corpus: Path) -> list[str]:
    """The stages that have made anything, in order."""
    return list(dict.fromkeys(stage for table, stage in tables.MADE_BY.items() if (corpus / table).is_dir()))


def is_whole(corpus: Path) -> bool:
    """Whether every table that was begun is complete, and made from the present versions of its parents."""
    begun = [table for table in tables.MADE_BY if (corpus / table).is_dir()]
    if not all(tables.complete(corpus, table) for table in begun):
        return False
    parents = [tables.Table(corpus, table).manifest["parents"].items() for table in begun]
    return all("/" in name or tables.manifest_hash(corpus, name) == seen for pairs in parents for name, seen in pairs)


def begin(
    corpus: Path, stages: Iterable[str], changes: Changes, settings: dict[str, Any], schema: pa.Schema, shard_size: int
) -> Rows:
    """Begin the next state, or go on with one that a killed run has begun from the same state and the same input.

    Args:
        corpus: The corpus.
        stages: The stages whose tables are to be made.
        changes: What its new plan takes in.
        settings: Those of the first stage from now on.
        schema: Of the plan.
        shard_size: Items of a new shard.

    Returns:
        The entries of the new plan's shards, for `plan.json`.
    """
    folder = next_folder(corpus)
    marker = tables.state_folder(folder) / MADE_FROM
    hashes = {table: tables.manifest_hash(corpus, table) for table in tables.MADE_BY if tables.complete(corpus, table)}
    made_from = [settings, hashes, [short_hash(canonical_json(part)) for part in changes.parts(shard_size)]]
    stored = tables.read_json(marker)
    if stored and stored["from"] == made_from:
        return stored["shards"]
    remove_tree(tables.state_folder(corpus) / "next")
    shard_changes = []

    def parts() -> Iterator[Rows]:
        for rows, of_shard in changes.parts(shard_size):
            shard_changes.append(of_shard)
            yield rows

    entries = shards.write_plan(folder, parts(), schema)
    for stage in stages:
        shards.restore_sidecars(corpus, stage)
        (tables.state_folder(folder) / stage).mkdir()
        stored = settings if stage == ORDER[0] else stored_settings(corpus, stage)
        tables.write_json(tables.state_folder(folder) / stage / SETTINGS, stored)
        take_over = functools.partial(_take_over, corpus, stage, len(entries))
        in_parallel(take_over, list(enumerate(shard_changes))[: changes.num_shards])
    os.sync()
    tables.write_json(marker, {"from": made_from, "shards": entries})
    return entries


def _take_over(corpus: Path, stage: str, count: int, shard: tuple[int, dict[str, Any]]) -> None:
    """Link a shard of a stage, given with its changes, into the next state, where there are `count` of them."""
    index, changes = shard
    sidecar = shards.read_sidecar(corpus, stage, index)
    if sidecar is None:
        return
    folder = next_folder(corpus)
    for table in sidecar["tables"]:
        (folder / table).mkdir(exist_ok=True)
        link(
            corpus / table / tables.shard_name(index, sidecar["count"]),
            folder / table / tables.shard_name(index, count),
        )
    thumbnails, next_thumbnails = (shards.thumbnails_path(home, index) for home in (corpus, folder))
    if "training" in sidecar["tables"] and thumbnails.exists():
        next_thumbnails.parent.mkdir(exist_ok=True)
        link(thumbnails, next_thumbnails)
    if stage != ORDER[0]:  # later stages compare contents themselves
        changes = {name: value for name, value in changes.items() if name != "changed"}
    sidecar = {**sidecar, "count": count, shards.CHANGES: changes}
    tables.write_json(shards.sidecar_path(folder, stage, index), sidecar, durable=False)


def publish(corpus: Path) -> None:
    """Put the tables of the next state, all complete, into the place of the old ones."""
    tables.write_json(tables.state_folder(corpus) / "next" / PUBLISHING, True)
    finish_publishing(corpus)


def finish_publishing(corpus: Path) -> None:
    """Publish what a killed run has begun to publish, if there is any: moved files are not moved again."""
    folder = next_folder(corpus)
    if not (tables.state_folder(corpus) / "next" / PUBLISHING).exists():
        return
    for table in tables.MADE_BY:
        _publish_table(folder / table, corpus / table)
    for name in (shards.PLAN, *ORDER, "answers"):
        paths = list((tables.state_folder(folder) / name).rglob("*.*"))
        in_parallel(_move, [(path, corpus / path.relative_to(folder)) for path in paths])
    remove_tree(tables.state_folder(corpus) / "next")


def _publish_table(new: Path, present: Path) -> None:
    """Readers find the table missing only while shards of the same names are exchanged."""
    manifest, old = (tables.read_json(folder / tables.MANIFEST) for folder in (new, present))
    if manifest is None:
        return  # it is published, or was never begun
    count, before = len(manifest["shards"]), old["shards"] if old else []
    names = [tables.shard_name(index, count) for index in range(count)]
    entries = zip(names, manifest["shards"], before if len(before) == count else [{}] * count, strict=True)
    changed = [name for name, entry, other in entries if entry["sha256"] != other.get("sha256")]
    moved = [name for name in changed if (new / name).exists()]
    if moved and len(before) == count:
        mark_incomplete(present.parent, [present.name])
    in_parallel(_move, [(new / name, present / name) for name in moved])
    for name in (tables.FAILURES, tables.MANIFEST):
        _move((new / name, present / name))
    listed = set(names)
    for path in present.glob("*.arrow"):
        if path.name not in listed:
            path.unlink()


def _move(paths: tuple[Path, Path]) -> None:
    path, target = paths
    if path.exists():  # else a killed run has moved it
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
