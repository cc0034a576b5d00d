"""Checkpoints: whole or not there, the newest whole one, the last two."""

import pytest
import torch

from stages.training import checkpoints
from stages.training.checkpoints import (
    newest,
    problem,
    read_position,
    read_training,
    save,
    undo_partial_write,
    write_folder,
)


def write(run, step, number=0.0):
    def model(folder):
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "words").write_text(f"word {step}")
        (folder / "model.safetensors").write_bytes(bytes(range(50)))

    return save(run, step, model, {"optimizer": {"state": {0: torch.tensor(number)}}}, {"step": step})


def test_a_checkpoint_comes_back_and_the_last_two_are_kept(tmp_path):
    for step in (5, 10, 100):
        write(tmp_path, step, step / 3)
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path)] == ["step-00000100", "step-00000010"]
    found = newest(tmp_path, print)
    assert read_position(found) == {"step": 100}
    assert read_training(found)["optimizer"]["state"][0] == torch.tensor(100 / 3)
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json is missing"),
        (lambda folder: (folder / "training.pt").unlink(), "training.pt is missing"),
        (lambda folder: (folder / "tokenizer" / "words").write_text("other"), "tokenizer/words does not match"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"cut"), "model.safetensors does not match"),
    ],
)
def test_damaged_checkpoint_is_skipped_with_a_note(tmp_path, damage, message):
    write(tmp_path, 1)
    damage(write(tmp_path, 2))
    said = []
    assert newest(tmp_path, said.append).name == "step-00000001"
    assert len(said) == 1 and "step-00000002" in said[0] and message in said[0]


def test_no_checkpoint_is_none(tmp_path):
    assert newest(tmp_path, print) is None


def test_a_folder_replaces_another_whole_or_not_at_all(tmp_path):
    path = tmp_path / "best"
    write_folder(path, lambda folder: (folder / "a").write_text("old"))

    def fails(folder):
        (folder / "a").write_text("new")
        raise OSError("disk full")

    with pytest.raises(OSError):
        write_folder(path, fails)
    assert (path / "a").read_text() == "old" and problem(path) is None
    write_folder(path, lambda folder: (folder / "b").write_text("new"))
    assert sorted(file.name for file in path.iterdir()) == ["b", "manifest.json"]
    assert [file.name for file in tmp_path.iterdir()] == ["best"]


def test_replacement_killed_half_way_is_undone(tmp_path):
    path = tmp_path / "best"
    write_folder(path, lambda folder: (folder / "a").write_text("old"))
    undo_partial_write(path)
    path.rename(tmp_path / ".best.old")
    undo_partial_write(path)
    assert problem(path) is None
