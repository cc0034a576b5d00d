"""The folder of a run: the settings it was started with, its checkpoints, and what it produced.

    RUN/settings.json                every setting, and the manifest hashes of its corpora
    RUN/record.json                  that, with tools, processes and the best validation; the card is written from it
    RUN/checkpoints/step-00000123/   config.json, model.safetensors, the processor: a model like any other
                                     training.pt: the optimiser and averaged weights; position.json: progress
                                     manifest.json: sha256 of every file, written last
    RUN/best/                        the best weights so far, as a model to load
    RUN/best-st/                     the final ones without this package, see model.encoders.sentence_export
    RUN/metrics.jsonl, curves.png    see stages.training.metrics

A checkpoint is complete or absent. Learning rate, order of the data and random state are not stored: they are functions
of the step.
"""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from model.card import card
from model.modeling import LeccrModel
from model.processing import LeccrProcessor
from pipeline.corpus.commit import versions
from pipeline.corpus.table import manifest_hash, read_json, write_json
from pipeline.engine.run_state import DISK_ERRORS
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import differences, file_hash
from pipeline.storage.files import flush
from stages.training.settings import Settings

NUM_CHECKPOINTS = 2  # that a run folder has
SETTINGS, RECORD = "settings.json", "record.json"
MANIFEST, POSITION, TRAINING = "manifest.json", "position.json", "training.pt"
# What a run writes. The settings go last when it is deleted.
CONTENTS = (
    "checkpoints",
    "best",
    "best-st",
    "tensorboard",
    "metrics.jsonl",
    "curves.png",
    "diverged.json",
    RECORD,
    SETTINGS,
)
TOOLS = ("leccr", "torch", "transformers", "accelerate", "numpy", "pyarrow")
OTHERWISE = "another --output, or --overwrite to start over"


def checkpoint_to_resume(
    run: Path, settings: Settings, corpora: Sequence[Path], resume: bool, overwrite: bool, say: Callable[[str], Any]
) -> Path | None:
    """Check that this run may use the folder, without changing anything.

    Returns:
        The checkpoint to resume from, or None to start at the first step.

    Raises:
        UsageError: The folder has the work of another run, or of this one without `resume` or `overwrite`.
    """
    existing = list_checkpoints(run)
    if not (run / SETTINGS).exists() and (existing or (run / "best").exists()):
        raise UsageError(f"{run} has weights but no {SETTINGS}, so it is not a run folder: give another --output")
    if overwrite:
        return None
    stored = read_json(run / SETTINGS)
    if stored is not None:
        _check_same(run, stored, _identity(settings, corpora), settings.free() | {"data"})
    if existing and not resume:
        raise UsageError(
            f"{run} has checkpoints of a run up to {existing[0].name}: --resume continues it, --overwrite starts over"
        )
    checkpoint = newest_checkpoint(run, say) if resume else None
    if resume and checkpoint is None:
        say(f"note: --resume: {run} has no complete checkpoint, starting at the first step")
    return checkpoint


def begin_run(run: Path, settings: Settings, corpora: Sequence[Path], overwrite: bool) -> None:
    """Write the settings of this run into its folder, after deleting an earlier run if `overwrite` says so.

    Called once the model stands, so that a mistake in the settings does not cost the earlier run.
    """
    for name in CONTENTS if overwrite else ():
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    undo_partial_write(run / "best")
    write_json(run / SETTINGS, _identity(settings, corpora))


def _identity(settings: Settings, corpora: Sequence[Path]) -> dict[str, Any]:
    return {"settings": settings.to_json(), "corpora": [manifest_hash(path, "training") for path in corpora]}


def _check_same(run: Path, stored: dict[str, Any], current: dict[str, Any], free: set[str]) -> None:
    known = Settings().to_json() | stored["settings"]  # an earlier version had fewer, and did as their defaults say
    changed = [
        f"{name}={old} (now {new})" for name, old, new in differences(known, current["settings"]) if name not in free
    ]
    if changed:
        raise UsageError(f"{run} was started with {', '.join(changed)}: give the same settings, {OTHERWISE}")
    if stored["corpora"] != current["corpora"]:
        raise UsageError(f"{run} was started with another training table: give the same, {OTHERWISE}")


class ModelWriter:
    """Writes the model in training, with its processor and its card, to RUN/checkpoints and RUN/best.

    Args:
        run: Run folder.
        model: The model.
        processor: Its processor.
        record: See `make_record`.
    """

    def __init__(self, run: Path, model: LeccrModel, processor: LeccrProcessor, record: dict[str, Any]):
        self.run, self.model, self.processor, self.record = run, model, processor, record

    def write(self, folder: Path, best: dict[str, Any] | None, merged: bool = False) -> None:
        """Write the model as it is now; `best` is the best validation so far, for the card."""
        self.model.save_pretrained(folder, merged=merged)
        self.processor.save_pretrained(folder)
        (folder / "README.md").write_text(card({**self.record, "validation": best}), encoding="utf-8")

    def write_best(self, best: dict[str, Any], start: dict[str, Any] | None) -> None:
        """Write the model as it is now to RUN/best, and its validation to the record with that of the start."""
        for name in ("global_weight", "local_pooling", "view_weights"):
            setattr(self.model.config, name, best[name])
        write_folder(self.run / "best", lambda folder: self.write(folder, best, merged=True))
        write_json(self.run / RECORD, {**self.record, "best": best, "start": start})

    def export_best(self) -> str:
        """Write RUN/best-st where the towers allow that, and return a line about it."""
        from model.encoders.sentence_export import export_towers

        best, target = str(self.run / "best"), self.run / "best-st"
        model, processor = LeccrModel.from_pretrained(best), LeccrProcessor.from_pretrained(best)
        record = read_json(self.run / RECORD)

        def fill(folder: Path) -> None:
            export_towers(model, processor, folder)
            (folder / "README.md").write_text(card({**record, "validation": record["best"]}, stock=True), "utf-8")

        try:
            write_folder(target, fill)
        except ValueError as error:
            return f"note: {target} is not written: {error}"
        return f"{target}: for Sentence Transformers without this package"

    def write_checkpoint(self, training: dict[str, Any], position: dict[str, Any]) -> None:
        """Write a checkpoint, then delete all but the newest NUM_CHECKPOINTS.

        Args:
            training: Tensors to store in training.pt.
            position: Progress to store in position.json: at least `step`, and `best`, the line of the best validation.
        """

        def fill(folder: Path) -> None:
            self.write(folder, position["best"])
            with (folder / TRAINING).open("wb") as stream:  # given a path, torch hides the error of a full disk
                torch.save(training, stream)
            write_json(folder / POSITION, position)

        write_folder(self.run / "checkpoints" / f"step-{position['step']:08d}", fill)
        for old in list_checkpoints(self.run)[NUM_CHECKPOINTS:]:
            shutil.rmtree(old)


def write_folder(path: Path, fill: Callable[[Path], Any]) -> None:
    """Make the folder that `fill` writes appear complete and on disk, with a manifest, replacing an earlier one.

    Raises:
        EnvironmentTrouble: The disk is full, or cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    retired = path.with_name(f".{path.name}.old")
    for leftover in (temporary, retired):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        for file in files:
            flush(file)
        write_json(temporary / MANIFEST, {str(file.relative_to(temporary)): file_hash(file) for file in files})
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if number := _disk_error(error):
            raise EnvironmentTrouble(
                f"cannot write {path}: {os.strerror(number)}. Earlier checkpoints are kept. Make room, then run the "
                "same command with --resume"
            ) from error
        raise
    if path.exists():  # a folder cannot be replaced atomically: see `undo_partial_write` for a kill between these lines
        path.rename(retired)
    temporary.rename(path)
    flush(path.parent)
    shutil.rmtree(retired, ignore_errors=True)


def _disk_error(error: BaseException | None) -> int | None:
    """The error number of the disk's error behind this one: torch and safetensors raise errors of their own."""
    while error:
        match = re.search(r"os error (\d+)", str(error))  # of safetensors
        number = error.errno if isinstance(error, OSError) else int(match[1]) if match else None
        if number in DISK_ERRORS:
            return number
        error = error.__cause__ or error.__context__
    return None


def undo_partial_write(path: Path) -> None:
    """Put back the earlier folder if `write_folder` was killed while replacing it."""
    retired = path.with_name(f".{path.name}.old")
    if retired.exists() and not path.exists():
        retired.rename(path)


def list_checkpoints(run: Path) -> list[Path]:
    """Checkpoint folders, newest first, complete or damaged."""
    return sorted((run / "checkpoints").glob("step-*"), reverse=True)


def newest_checkpoint(run: Path, say: Callable[[str], Any] = print) -> Path | None:
    """The newest complete checkpoint; damaged ones are reported and skipped."""
    for folder in list_checkpoints(run):
        damage = find_damage(folder)
        if damage is None:
            return folder
        say(f"note: checkpoint {folder.name} is damaged ({damage}) and is skipped")
    return None


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = read_json(folder / MANIFEST)
    except EnvironmentTrouble:
        return f"{MANIFEST} is damaged"
    if manifest is None:
        return f"{MANIFEST} is missing"
    for name, digest in manifest.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if file_hash(path) != digest:
            return f"{name} does not match its checksum"
    return None


def read_progress(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `ModelWriter.write_checkpoint` stored: tensors, on the CPU, and position."""
    return torch.load(checkpoint / TRAINING, map_location="cpu", weights_only=True), read_json(checkpoint / POSITION)


def make_record(settings: Settings, corpora: Sequence[Path], **more: Any) -> dict[str, Any]:
    """Settings, corpora and tool versions of a run, for its card and record.json."""
    return {
        "settings": settings.to_json(),
        "corpora": [{"name": path.name, "training": manifest_hash(path, "training")} for path in corpora],
        "tools": versions(TOOLS),
        **more,
    }
