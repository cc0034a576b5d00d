"""The folder of a run: what it was begun with, whether it may go on, what it came to.

RUN/settings.json    every setting, and the manifest hashes of its corpora
RUN/record.json      that, with tools, processes and the best validation: what the model's card tells
RUN/checkpoints/     see stages.training.checkpoints; RUN/best likewise
RUN/metrics.jsonl    see stages.training.metrics_log; RUN/curves.png is drawn from it
"""

import contextlib
import importlib.metadata
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.card import card
from pipeline.corpus.table import manifest_hash, read_json, write_json
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import differences
from stages.training import checkpoints
from stages.training.settings import Settings

SETTINGS, RECORD = "settings.json", "record.json"
OURS = ("checkpoints", "best", "tensorboard", "metrics.jsonl", "curves.png", "diverged.json", RECORD, SETTINGS)
TOOLS = ("leccr", "torch", "transformers", "accelerate", "numpy", "pyarrow")


def look(
    run: Path, settings: Settings, corpora: list[Path], resume: bool, overwrite: bool, say: Callable[[str], Any]
) -> Path | None:
    """The checkpoint to go on from, or None to start; nothing is changed yet. Raises UsageError where the folder has
    another run's work."""
    if overwrite:
        _check_ours(run)
        return None
    stored = read_json(run / SETTINGS)
    if stored is not None:
        if not isinstance(stored, dict) or not stored.keys() >= {"settings", "corpora"}:
            raise EnvironmentTrouble(f"{run / SETTINGS} has no settings of a run in it: give --overwrite to start over")
        _check_same(run, stored, _told(settings, corpora), settings.free() | {"data"})
    found = checkpoints.all_steps(run)
    if found and stored is None:
        raise UsageError(
            f"{run} has a run's checkpoints but no {SETTINGS} to compare with: give another --output, or delete "
            f"{run / 'checkpoints'}"
        )
    if found and not resume:
        raise UsageError(
            f"{run} has a run's checkpoints up to {found[0].name}: --resume goes on from there, --overwrite starts over"
        )
    checkpoint = checkpoints.newest(run, say) if resume else None
    if resume and checkpoint is None:
        say(f"note: --resume: {run} has no whole checkpoint: starting at the first step")
    return checkpoint


def begin(run: Path, settings: Settings, corpora: list[Path], overwrite: bool) -> None:
    """The folder is this run's from here on: what it was begun with is written, and an earlier one's work taken away
    where that was asked for. By then the model stands, so that no mistake in the settings costs what was there."""
    if overwrite:
        discard(run)
    checkpoints.mend(run / "best")
    write_json(run / SETTINGS, _told(settings, corpora))


def _told(settings: Settings, corpora: list[Path]) -> dict[str, Any]:
    return {"settings": settings.to_json(), "corpora": [manifest_hash(path, "training") for path in corpora]}


def _check_ours(run: Path) -> None:
    """Raises UsageError for a folder whose `best` or `checkpoints` no run of ours wrote."""
    strange = [name for name in ("best", "checkpoints") if (run / name).exists()]
    if strange and not (run / SETTINGS).exists():
        raise UsageError(
            f"--overwrite: {run} has {' and '.join(strange)} but no {SETTINGS}, so no run made it: give another "
            "--output, or delete the folder yourself"
        )


def discard(run: Path) -> None:
    """Take away what a run wrote, settings last; what else is in the folder stays."""
    for name in OURS:
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _check_same(run: Path, stored: dict[str, Any], wanted: dict[str, Any], free: set[str]) -> None:
    differing = [
        (name, old, new) for name, old, new in differences(stored["settings"], wanted["settings"]) if name not in free
    ]
    if stored["corpora"] != wanted["corpora"] and not differing:
        raise UsageError(
            f"{run} was begun with another corpus than --data has now (its table training differs): give the same, "
            "another --output, or --overwrite to start over"
        )
    if differing:
        told = ", ".join(f"{name}={old} (got {new})" for name, old, new in differing)
        raise UsageError(
            f"{run} was begun with {told}: give the same settings, another --output, or --overwrite to start over"
        )


class Keeper:
    """Writes the model that is trained, with its processor and its card."""

    def __init__(self, run: Path, model: Any, processor: Any, told: dict[str, Any]):
        self.run, self.model, self.processor, self.told = run, model, processor, told

    def save(self, folder: Path, best: dict[str, Any] | None) -> None:
        """The model as it is now. `best`: the best validation so far, if any."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        (folder / "README.md").write_text(card({**self.told, "validation": best}), encoding="utf-8")

    def keep_best(self, best: dict[str, Any]) -> None:
        """The model as it is now is the best: RUN/best, and the record tells of it."""
        self.model.config.global_weight = best["global_weight"]
        checkpoints.put_in_place(self.run / "best", lambda folder: self.save(folder, best))
        write_json(self.run / RECORD, {**self.told, "best": best})


def record(settings: Settings, corpora: list[Path], **more: Any) -> dict[str, Any]:
    """What the run is, for its card and for whoever asks later."""
    return {
        "settings": settings.to_json(),
        "corpora": [{"name": path.name, "training": manifest_hash(path, "training")} for path in corpora],
        "tools": _versions(),
        **more,
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in TOOLS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # leccr may lie there, not installed
            found[name] = importlib.metadata.version(name)
    return found
