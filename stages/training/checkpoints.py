"""Checkpoints: folders that are whole or not there, and the newest of them.

    RUN/checkpoints/step-00000123/   config.json, model.safetensors, the processor: a model like any other
                                     training.pt: the optimiser and averaged weights; position.json: where the run is
                                     manifest.json: sha256 of every file, written last
    RUN/best/                        the best weights so far, as a model to load

Neither the schedule, the order of the data nor the random state is in it: they are functions of the step.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.corpus.table import flush, read_json, write_json
from pipeline.errors import EnvironmentTrouble
from pipeline.hashing import file_hash

KEPT = 2
MANIFEST, POSITION, TRAINING = "manifest.json", "position.json", "training.pt"


def folder_of(run: Path) -> Path:
    return run / "checkpoints"


def save(run: Path, step: int, save_model: Callable[[Path], Any], training: dict, position: dict[str, Any]) -> Path:
    """Write the checkpoint of `step`; older ones but the last KEPT go once it is whole."""

    def fill(folder: Path) -> None:
        save_model(folder)
        torch.save(training, folder / TRAINING)
        write_json(folder / POSITION, position)

    path = folder_of(run) / f"step-{step:08d}"
    put_in_place(path, fill)
    for old in all_steps(run)[KEPT:]:
        shutil.rmtree(old)
    return path


def put_in_place(path: Path, fill: Callable[[Path], Any]) -> None:
    """A folder that `fill` writes appears under `path` whole and on disk, with a manifest; one there before goes."""
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
    if path.exists():  # a folder cannot be replaced in one go: killed between these lines, see `mend`
        path.rename(retired)
    temporary.rename(path)
    flush(path.parent)
    shutil.rmtree(retired, ignore_errors=True)


def mend(path: Path) -> None:
    """Put the folder back that was there before a replacement which was killed half way."""
    retired = path.with_name(f".{path.name}.old")
    if retired.exists() and not path.exists():
        retired.rename(path)


def all_steps(run: Path) -> list[Path]:
    """Checkpoint folders, newest first, whole or not."""
    return sorted(folder_of(run).glob("step-*"), reverse=True)


def problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = read_json(folder / MANIFEST)
    except EnvironmentTrouble:
        return f"{MANIFEST} is damaged"
    if not isinstance(manifest, dict):
        return f"has no {MANIFEST}"
    for name, digest in manifest.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if file_hash(path) != digest:
            return f"{name} has other bytes than its manifest says"
    return None


def newest(run: Path, say: Callable[[str], Any]) -> Path | None:
    """The newest whole checkpoint; damaged ones are told and passed over."""
    for folder in all_steps(run):
        wrong = problem(folder)
        if wrong is None:
            return folder
        say(f"note: checkpoint {folder.name} is damaged ({wrong}): passed over")
    return None


def read_training(folder: Path) -> dict[str, Any]:
    """The optimiser's state and what else training needs, on the CPU."""
    return torch.load(folder / TRAINING, map_location="cpu", weights_only=True)


def read_position(folder: Path) -> dict[str, Any]:
    return read_json(folder / POSITION)
