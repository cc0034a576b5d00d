"""Checkpoints: folders that are complete or absent.

    RUN/checkpoints/step-00000123/   config.json, model.safetensors, the processor: a model like any other
                                     training.pt: the optimiser and averaged weights; position.json: progress
                                     manifest.json: sha256 of every file, written last
    RUN/best/                        the best weights so far, as a model to load

Learning rate, order of the data and random state are not stored: they are functions of the step.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.corpus.table import flush, read_json, write_json
from pipeline.errors import EnvironmentTrouble
from pipeline.hashing import file_hash

NUM_CHECKPOINTS = 2  # that a run folder has
MANIFEST, POSITION, TRAINING = "manifest.json", "position.json", "training.pt"


def save(
    run: Path, step: int, write_model: Callable[[Path], Any], training: dict[str, Any], position: dict[str, Any]
) -> Path:
    """Write the checkpoint of a step, then delete all but the newest NUM_CHECKPOINTS.

    Args:
        run: Run folder.
        step: Steps done.
        write_model: Writes model and processor into a folder.
        training: Tensors to store in training.pt.
        position: Progress to store in position.json.
    """

    def fill(folder: Path) -> None:
        write_model(folder)
        torch.save(training, folder / TRAINING)
        write_json(folder / POSITION, position)

    path = run / "checkpoints" / f"step-{step:08d}"
    write_folder(path, fill)
    for old in list_checkpoints(run)[NUM_CHECKPOINTS:]:
        shutil.rmtree(old)
    return path


def write_folder(path: Path, fill: Callable[[Path], Any]) -> None:
    """Make the folder that `fill` writes appear complete and on disk, with a manifest, replacing an earlier one."""
    temporary = path.with_name(f".{path.name}.tmp")
    retired = path.with_name(f".{path.name}.old")
    for leftover in (temporary, retired):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    fill(temporary)
    files = sorted(file for file in temporary.rglob("*") if file.is_file())
    for file in files:
        flush(file)
    write_json(temporary / MANIFEST, {str(file.relative_to(temporary)): file_hash(file) for file in files})
    if path.exists():  # a folder cannot be replaced atomically: see `undo_partial_write` for a kill between these lines
        path.rename(retired)
    temporary.rename(path)
    flush(path.parent)
    shutil.rmtree(retired, ignore_errors=True)


def undo_partial_write(path: Path) -> None:
    """Put back the earlier folder if `write_folder` was killed while replacing it."""
    retired = path.with_name(f".{path.name}.old")
    if retired.exists() and not path.exists():
        retired.rename(path)


def list_checkpoints(run: Path) -> list[Path]:
    """Checkpoint folders, newest first, complete or damaged."""
    return sorted((run / "checkpoints").glob("step-*"), reverse=True)


def problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = read_json(folder / MANIFEST)
    except EnvironmentTrouble:
        return f"{MANIFEST} is damaged"
    if not isinstance(manifest, dict):
        return f"{MANIFEST} is missing"
    for name, digest in manifest.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if file_hash(path) != digest:
            return f"{name} does not match its checksum"
    return None


def newest(run: Path, say: Callable[[str], Any]) -> Path | None:
    """The newest complete checkpoint; damaged ones are reported and skipped."""
    for folder in list_checkpoints(run):
        damage = problem(folder)
        if damage is None:
            return folder
        say(f"note: checkpoint {folder.name} is damaged ({damage}) and is skipped")
    return None


def read_training(folder: Path) -> dict[str, Any]:
    """The optimiser's state and averaged weights, on the CPU."""
    state: dict[str, Any] = torch.load(folder / TRAINING, map_location="cpu", weights_only=True)
    return state


def read_position(folder: Path) -> dict[str, Any]:
    """The progress of the run at this checkpoint."""
    position: dict[str, Any] = read_json(folder / POSITION)
    return position
