"""A stage's tables over their whole life: settings compared, begun, closed, discarded."""

import contextlib
import dataclasses
import importlib.metadata
import platform
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.corpus import shards
from pipeline.corpus import table as corpora
from pipeline.engine.stage import Stage
from pipeline.errors import UsageError
from pipeline.hashing import differences

ORDER = list(dict.fromkeys(corpora.MADE_BY.values()))  # the stages, each made from what is before it
OPTIONS = {
    "inputs": "--input",
    "max_source_pixels": "--max-source-megapixels (in pixels)",
    "num_frames": "--frames",
    "revision": "the captioner's revision",
    "translators": "--languages or --mt-model",
    "back": "--round-trip or --back-model",
    "encoders": "--quality-encoder",
    "thresholds": "a rule's default threshold",
    "corpora": "--corpus",
}
TOOLS = ("apache-beam", "pyarrow", "pillow", "av")


@dataclasses.dataclass(frozen=True)
class State:
    """Where one stage of a corpus stands before a run.

    Attributes:
        open: The shards that the run makes.
        retry: Those of them that were finished with failures.
    """

    open: frozenset[int] = frozenset()
    retry: frozenset[int] = frozenset()


def check_settings(corpus: Path, stage: Stage) -> None:
    """Refuse to mix tables made with different settings.

    Raises:
        UsageError: The stage's tables were begun with other settings. The message names the options that differ.
    """
    stored = stored_settings(corpus, stage)
    if stored is not None and not any((corpus / table).is_dir() for table in stage.tables):
        discard(corpus, stage.name)  # begun, but nothing was made: a mistyped model name does not bind anybody
        return
    changes = [
        f"{_option(name)} {_change(old, new)}"
        for name, old, new in differences(stored or stage.settings(), stage.settings())
    ]
    if changes:
        raise UsageError(
            f"{corpus} was begun with other settings of stage {stage.name}: {'; '.join(changes)}. "
            "Give the same settings, another --output, or --overwrite to make it again"
        )


def _option(setting: str) -> str:
    """The option that sets a setting."""
    name, _, rest = setting.partition(".")
    option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
    return f"{option} ({rest})" if rest else option


def _change(old: Any, new: Any) -> str:
    """A group of settings that one side lacks is not spelled out."""
    if isinstance(old, dict) and new is None:
        return "was set and is not now"
    if isinstance(new, dict) and old is None:
        return "was not set and is now"
    return f"was {_shorten(repr(old))} and is {_shorten(repr(new))} now"


def _shorten(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}…"


def stored_settings(corpus: Path, stage: Stage) -> dict[str, Any] | None:
    """The settings with which a stage's tables were begun, or None if it has none."""
    settings: dict[str, Any] | None = corpora.read_json(corpora.state_folder(corpus) / stage.name / "settings.json")
    if settings is None and corpora.complete(corpus, stage.tables[0]):
        settings = corpora.Table(corpus, stage.tables[0]).manifest["settings"]
    return settings


def discard(corpus: Path, stage: str) -> bool:
    """Remove a stage's tables and state. Cached answers stay. Returns whether there was any table."""
    present = [table for table, maker in corpora.MADE_BY.items() if maker == stage and (corpus / table).is_dir()]
    for table in present:
        (corpus / table / corpora.MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(corpus / table)
    shutil.rmtree(corpora.state_folder(corpus) / stage, ignore_errors=True)
    if stage == ORDER[0]:
        shutil.rmtree(corpora.state_folder(corpus) / shards.PLAN, ignore_errors=True)
    return bool(present)


def reopen(corpus: Path, stage: Stage) -> None:
    """Let a stage be made anew with other settings, and take over from its shards what still holds."""
    shards.restore_sidecars(corpus, stage)
    for table in stage.tables:
        (corpus / table / corpora.MANIFEST).unlink(missing_ok=True)
    (corpora.state_folder(corpus) / stage.name / "settings.json").unlink(missing_ok=True)


def begin(corpus: Path, stages: Sequence[Stage], num_shards: int) -> dict[str, State]:
    """Record the stages' settings, before their first shard; returns where each stage stands."""
    for stage in stages:
        folder = corpora.state_folder(corpus) / stage.name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "settings.json").exists():
            corpora.write_json(folder / "settings.json", stage.settings())
        shards.restore_sidecars(corpus, stage)
    return {stage.name: _state_of(corpus, stage, num_shards) for stage in stages}


def _state_of(corpus: Path, stage: Stage, num_shards: int) -> State:
    indices = frozenset(range(num_shards))
    current = frozenset(index for index in indices if shards.is_current(corpus, stage, index))
    retry = frozenset(index for index in current if shards.can_retry(corpus, stage, index))
    return State(indices - current | retry, retry)


def close(corpus: Path, stage: Stage, num_shards: int) -> None:
    """Write the manifests of a stage whose shards are all made, unless they are up to date."""
    sidecars = shards.read_sidecars(corpus, stage.name, num_shards)
    failures = [failure for sidecar in sidecars for failure in sidecar["failures"]]
    listed = {corpora.shard_name(index, num_shards) for index in range(num_shards)}
    for table in reversed(stage.tables):  # the first table's manifest marks the stage as complete
        is_first = table == stage.tables[0]
        for path in (corpus / table).glob("*.arrow"):
            if path.name not in listed:  # from a run with another number of shards
                path.unlink()
        corpora.write_manifest(
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
    versions = {"python": platform.python_version()}
    for package in (*TOOLS, *sorted(packages)):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
