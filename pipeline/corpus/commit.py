"""A stage's tables over their whole life: settings compared, begun, closed, discarded."""

import contextlib
import importlib.metadata
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.corpus import shards
from pipeline.corpus import table as tables
from pipeline.engine.stage import Run, Stage
from pipeline.errors import UsageError
from pipeline.hashing import differences
from pipeline.storage.files import remove_tree
from pipeline.storage.folders import Folders

ORDER = list(dict.fromkeys(tables.MADE_BY.values()))  # the stages, each made from what is before it
TOOLS = ("apache-beam", "pyarrow", "pillow", "av")


def check_settings(corpus: Path, stage: Stage) -> None:
    """Refuse to mix tables made with different settings.

    Raises:
        UsageError: The stage's tables were begun with other settings. The message names those that differ.
    """
    stored = stored_settings(corpus, stage.name)
    if stored is not None and not any((corpus / table).is_dir() for table in stage.tables):
        discard(corpus, stage.name)  # nothing was made yet, so a mistyped setting can be corrected
        return
    changes = [
        f"{name} was {old!r:.300} and is {new!r:.300} now"
        for name, old, new in differences(stored or stage.settings(), stage.settings())
    ]
    if changes:
        raise UsageError(
            f"{corpus} was begun with other settings of stage {stage.name}: {'; '.join(changes)}. "
            "Give the same settings, another --output, or --overwrite to make it again"
        )


def stored_settings(corpus: Path, stage: str) -> dict[str, Any] | None:
    """The settings with which a stage's tables were begun, or None if it has none."""
    settings: dict[str, Any] | None = tables.read_json(tables.state_folder(corpus) / stage / "settings.json")
    first = next(table for table, maker in tables.MADE_BY.items() if maker == stage)
    if settings is None and tables.complete(corpus, first):
        settings = tables.Table(corpus, first).manifest["settings"]
    return settings


def discard(corpus: Path, stage: str) -> bool:
    """Remove a stage's tables and state. Cached answers stay. Returns whether there was any table."""
    present = [table for table, maker in tables.MADE_BY.items() if maker == stage and (corpus / table).is_dir()]
    mark_incomplete(corpus, present)
    for table in present:
        remove_tree(corpus / table)
    remove_tree(tables.state_folder(corpus) / stage)
    if stage == ORDER[0]:
        remove_tree(tables.state_folder(corpus) / shards.PLAN)
    return bool(present)


def mark_incomplete(corpus: Path, names: Iterable[str]) -> None:
    """Remove the manifests of tables whose shards are about to change."""
    for name in names:
        (corpus / name / tables.MANIFEST).unlink(missing_ok=True)


def reopen(corpus: Path, stage: Stage) -> None:
    """Let a stage be made anew with other settings, and take over from its shards what still holds."""
    shards.restore_sidecars(corpus, stage.name)
    mark_incomplete(corpus, stage.tables)
    (tables.state_folder(corpus) / stage.name / "settings.json").unlink(missing_ok=True)


def begin(run: Run, stages: Sequence[Stage]) -> dict[str, frozenset[int]]:
    """Record the stages' settings, before their first shard; returns the shards that each stage still has to make."""
    for stage in stages:
        folder = tables.state_folder(run.corpus) / stage.name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "settings.json").exists():
            tables.write_json(folder / "settings.json", stage.settings())
        shards.restore_sidecars(run.corpus, stage.name)
    files, indices = Folders(), range(run.num_shards)
    return {
        stage.name: frozenset(index for index in indices if not shards.is_current(run, stage, index, files))
        for stage in stages
    }


def close(corpus: Path, stage: Stage, num_shards: int, files: Folders) -> None:
    """Write the manifests of a stage whose shards are all made, unless they are up to date."""
    sidecars = shards.read_sidecars(corpus, stage.name, num_shards, files)
    failures = [*stage.not_taken(corpus), *(failure for made in sidecars for failure in made["failures"])]
    listed = {tables.shard_name(index, num_shards) for index in range(num_shards)}
    for table in reversed(stage.tables):  # the first table's manifest marks the stage as complete
        is_first = table == stage.tables[0]
        for name in files.files(corpus / table):
            if name.endswith(".arrow") and name not in listed:  # left by a run with another number of shards
                (corpus / table / name).unlink()
        tables.write_manifest(
            corpus,
            table,
            settings=stage.settings(),
            fingerprint=stage.fingerprint,
            tools=tools(stage.packages),
            parents=stage.made_from(corpus),
            shards=[{**made["tables"][table], "parent": made["parent"], "items": made["items"]} for made in sidecars],
            failures=failures if is_first else [],
            extra=stage.notes(corpus) if is_first else {},
        )


def tools(packages: Iterable[str] = ()) -> dict[str, str]:
    """Versions of what made a table: Python, the packages that every stage uses, and these."""
    return versions((*TOOLS, *sorted(packages)))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
