"""The folder of a run: the settings it was started with, whether it may resume, and what it produced.

RUN/settings.json    every setting, and the manifest hashes of its corpora
RUN/record.json      that, with tools, processes and the best validation; the model card is written from it
RUN/checkpoints/     see stages.training.checkpoints; RUN/best likewise
RUN/metrics.jsonl    see stages.training.metrics_log; RUN/curves.png is drawn from it
"""

import contextlib
import importlib.metadata
import platform
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model.card import card
from model.modeling import LeccrModel
from model.processing import LeccrProcessor
from pipeline.corpus.table import manifest_hash, read_json, write_json
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import differences
from stages.training import checkpoints
from stages.training.settings import Settings

SETTINGS, RECORD = "settings.json", "record.json"
# What a run writes. The settings go last when it is deleted.
CONTENTS = ("checkpoints", "best", "tensorboard", "metrics.jsonl", "curves.png", "diverged.json", RECORD, SETTINGS)
TOOLS = ("leccr", "torch", "transformers", "accelerate", "numpy", "pyarrow")


def checkpoint_to_resume(
    run: Path, settings: Settings, corpora: Sequence[Path], resume: bool, overwrite: bool, say: Callable[[str], Any]
) -> Path | None:
    """Check that this run may use the folder, without changing anything.

    Returns:
        The checkpoint to resume from, or None to start at the first step.

    Raises:
        UsageError: The folder has the work of another run, or of this one without `resume` or `overwrite`.
    """
    stored = None if overwrite else read_json(run / SETTINGS)
    if overwrite:
        _check_overwritable(run)
        return None
    if stored is not None:
        if not isinstance(stored, dict) or not stored.keys() >= {"settings", "corpora"}:
            raise EnvironmentTrouble(f"{run / SETTINGS} has no settings of a run: give --overwrite to start over")
        _check_same(run, stored, _identity(settings, corpora), settings.free() | {"data"})
    existing = checkpoints.list_checkpoints(run)
    if existing and stored is None:
        raise UsageError(
            f"{run} has checkpoints of a run but no {SETTINGS} to compare with: give another --output, or delete "
            f"{run / 'checkpoints'}"
        )
    if existing and not resume:
        raise UsageError(
            f"{run} has checkpoints of a run up to {existing[0].name}: --resume continues it, --overwrite starts over"
        )
    checkpoint = checkpoints.newest(run, say) if resume else None
    if resume and checkpoint is None:
        say(f"note: --resume: {run} has no complete checkpoint, starting at the first step")
    return checkpoint


def begin_run(run: Path, settings: Settings, corpora: Sequence[Path], overwrite: bool) -> None:
    """Write the settings of this run into its folder, after deleting an earlier run if `overwrite` says so.

    Called once the model stands, so that a mistake in the settings does not cost the earlier run.
    """
    if overwrite:
        delete_run(run)
    checkpoints.undo_partial_write(run / "best")
    write_json(run / SETTINGS, _identity(settings, corpora))


def delete_run(run: Path) -> None:
    """Delete what a run wrote; other files in the folder stay."""
    for name in CONTENTS:
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _identity(settings: Settings, corpora: Sequence[Path]) -> dict[str, Any]:
    return {"settings": settings.to_json(), "corpora": [manifest_hash(path, "training") for path in corpora]}


def _check_overwritable(run: Path) -> None:
    """Raise UsageError for a folder with a `best` or `checkpoints` that no run wrote."""
    foreign = [name for name in ("best", "checkpoints") if (run / name).exists()]
    if foreign and not (run / SETTINGS).exists():
        raise UsageError(
            f"--overwrite: {run} has {' and '.join(foreign)} but no {SETTINGS}, so it is not a run folder: give "
            "another --output, or delete the folder yourself"
        )


def _check_same(run: Path, stored: dict[str, Any], current: dict[str, Any], free: set[str]) -> None:
    changed = [
        f"{name}={old} (now {new})"
        for name, old, new in differences(stored["settings"], current["settings"])
        if name not in free
    ]
    if changed:
        raise UsageError(
            f"{run} was started with {', '.join(changed)}: give the same settings, another --output, or --overwrite to "
            "start over"
        )
    if stored["corpora"] != current["corpora"]:
        raise UsageError(
            f"{run} was started with another corpus (its training table differs from that of --data): give the same, "
            "another --output, or --overwrite to start over"
        )


class ModelWriter:
    """Writes the model in training, with its processor and its card.

    Args:
        run: Run folder.
        model: The model.
        processor: Its processor.
        record: See `make_record`.
    """

    def __init__(self, run: Path, model: LeccrModel, processor: LeccrProcessor, record: dict[str, Any]):
        self.run, self.model, self.processor, self.record = run, model, processor, record

    def write(self, folder: Path, best: dict[str, Any] | None) -> None:
        """Write the model as it is now; `best` is the best validation so far, for the card."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        (folder / "README.md").write_text(card({**self.record, "validation": best}), encoding="utf-8")

    def write_best(self, best: dict[str, Any]) -> None:
        """Write the model as it is now to RUN/best, and its validation to the record."""
        self.model.config.global_weight = best["global_weight"]
        checkpoints.write_folder(self.run / "best", lambda folder: self.write(folder, best))
        write_json(self.run / RECORD, {**self.record, "best": best})


def make_record(settings: Settings, corpora: Sequence[Path], **more: Any) -> dict[str, Any]:
    """Settings, corpora and tool versions of a run, for its card and record.json."""
    versions = {"python": platform.python_version()}
    for name in TOOLS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # leccr may run without being installed
            versions[name] = importlib.metadata.version(name)
    return {
        "settings": settings.to_json(),
        "corpora": [{"name": path.name, "training": manifest_hash(path, "training")} for path in corpora],
        "tools": versions,
        **more,
    }
