"""The folder of a run: it resumes only with the same settings and corpora, from its newest complete checkpoint."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError

from pipeline.errors import EnvironmentTrouble, UsageError
from stages.training import run_folder
from stages.training.run_folder import ModelWriter, find_damage, list_checkpoints, newest_checkpoint, write_folder
from stages.training.settings import resolve


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "corpus" / "training").mkdir(parents=True)
    (tmp_path / "corpus" / "training" / "manifest.json").write_text("{}")
    return tmp_path / "corpus"


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def begin(run, corpus):
    """Begins a run; returns the checkpoint to resume from and the messages."""

    def begin_run(*overrides, resume=False, overwrite=False):
        messages, settings = [], resolve("base", overrides)
        checkpoint = run_folder.checkpoint_to_resume(run, settings, [corpus], resume, overwrite, messages.append)
        run_folder.begin_run(run, settings, [corpus], overwrite)
        return checkpoint, messages

    return begin_run


class Model:
    """Writes its global weight, and a file in a folder."""

    def __init__(self):
        self.config = SimpleNamespace(global_weight=0.8)

    def save_pretrained(self, folder, merged):
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "words").write_text("words")
        (folder / "model.safetensors").write_text(str(self.config.global_weight))


@pytest.fixture
def writer(run, corpus):
    record = run_folder.make_record(resolve("demo"), [corpus], label="fitted")
    return ModelWriter(run, Model(), SimpleNamespace(save_pretrained=lambda folder: None), record)


def save(writer, *steps):
    for step in steps:
        writer.write_checkpoint({"optimizer": torch.tensor(step / 3)}, {"step": step, "best": None})
    return list_checkpoints(writer.run)[0]


def test_checkpoint_is_restored_and_the_last_two_stay(writer):
    newest = save(writer, 5, 10, 100)
    assert [path.name for path in list_checkpoints(writer.run)] == ["step-00000100", "step-00000010"]
    tensors, position = run_folder.read_progress(newest_checkpoint(writer.run))
    assert newest == newest_checkpoint(writer.run) and position["step"] == 100
    assert tensors["optimizer"] == torch.tensor(100 / 3) and not list(newest.parent.glob(".*"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda folder: (folder / "training.pt").unlink(), "training.pt is missing"),
        (lambda folder: (folder / "tokenizer" / "words").write_text("other"), "tokenizer/words does not match"),
    ],
)
def test_damaged_checkpoint_is_skipped_with_a_note(writer, begin, damage, message):
    begin()
    damage(save(writer, 1, 2))
    checkpoint, notes = begin(resume=True)
    assert checkpoint.name == "step-00000001"
    assert len(notes) == 1 and "step-00000002" in notes[0] and message in notes[0]
    shutil.rmtree(checkpoint)
    assert begin(resume=True)[0] is None


def _safetensors_error(folder):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
@pytest.mark.parametrize(
    "fill",
    [
        lambda folder: (folder / "training.pt").symlink_to("/dev/full"),  # torch.save fails
        lambda folder: Path("/dev/full").write_text("a tokenizer"),
        _safetensors_error,
    ],
)
def test_a_full_disk_is_an_environment_error_and_leaves_nothing_behind(writer, monkeypatch, fill):
    save(writer, 1)
    monkeypatch.setattr(writer.model, "save_pretrained", lambda folder, merged: fill(folder))
    with pytest.raises(EnvironmentTrouble, match=r"No space left.*--resume"):
        writer.write_checkpoint({"optimizer": torch.zeros(100_000)}, {"step": 2, "best": None})
    assert [path.name for path in (writer.run / "checkpoints").iterdir()] == ["step-00000001"]


def test_folder_is_replaced_completely_or_not_at_all(tmp_path):
    path = tmp_path / "best"
    write_folder(path, lambda folder: (folder / "a").write_text("old"))

    def fail(folder):
        (folder / "a").write_text("new")
        raise OSError("disk full")

    with pytest.raises(OSError):
        write_folder(path, fail)
    assert (path / "a").read_text() == "old" and find_damage(path) is None
    write_folder(path, lambda folder: (folder / "b").write_text("new"))
    assert sorted(file.name for file in path.iterdir()) == ["b", "manifest.json"]
    assert [file.name for file in tmp_path.iterdir()] == ["best"]
    path.rename(tmp_path / ".best.old")  # as a kill between the two renames leaves it
    run_folder.undo_partial_write(path)
    assert find_damage(path) is None


def test_run_resumes_and_is_not_overwritten_without_an_option(begin, writer):
    assert begin("lr=.1") == (None, [])
    stored = json.loads((writer.run / "settings.json").read_text())
    assert stored["settings"]["lr"] == 0.1 and len(stored["corpora"]) == 1
    assert "no complete checkpoint" in begin("lr=.1", resume=True)[1][0]  # killed before its first: nothing is lost
    path = save(writer, 5)
    assert begin("lr=.1", "workers=3", "log_every=1", resume=True) == (path, [])
    with pytest.raises(UsageError, match="up to step-00000005: --resume continues it"):
        begin("lr=.1")


@pytest.mark.parametrize(
    ("override", "message"), [("lr=.2", r"lr=1e-05 \(now 0.2\)"), ("num_slots=3", r"num_slots=4 \(now 3\)")]
)
def test_other_settings_are_refused_by_name(begin, override, message):
    begin()
    for resume in (True, False):
        with pytest.raises(UsageError, match=f"was started with {message}"):
            begin(override, resume=resume)


def test_another_corpus_is_refused(begin, corpus):
    begin()
    (corpus / "training" / "manifest.json").write_text("{} ")
    with pytest.raises(UsageError, match="started with another training table"):
        begin(resume=True)


def test_overwrite_starts_over_and_leaves_other_files(begin, run, writer):
    begin("lr=.1")
    save(writer, 5)
    for name in ("best", "corpus", "tensorboard"):
        (run / name).mkdir()
    (run / "metrics.jsonl").write_text("{}\n")
    assert begin("lr=.2", overwrite=True) == (None, [])
    assert sorted(path.name for path in run.iterdir()) == ["corpus", "settings.json"]
    assert json.loads((run / "settings.json").read_text())["settings"]["lr"] == 0.2


def test_folder_that_is_not_a_run_is_left_alone(begin, run, corpus, writer):
    begin("lr=0.1")
    checkpoint = save(writer, 5)
    run_folder.checkpoint_to_resume(run, resolve("base", ["lr=0.2"]), [corpus], False, True, print)
    assert checkpoint.exists() and json.loads((run / "settings.json").read_text())["settings"]["lr"] == 0.1
    (run / "settings.json").unlink()
    for options in ({"overwrite": True}, {"resume": True}, {}):
        with pytest.raises(UsageError, match=r"weights but no settings\.json"):
            begin("lr=0.1", **options)
    assert checkpoint.exists()


def test_best_is_written_with_the_global_weight_of_its_validation(writer):
    recalls = {"r1": 1.0, "r5": 2.0, "r10": 3.0}
    both = {"sum_r": 20.0, "text_to_media": recalls, "media_to_text": recalls}
    figures = {"step": 7, "split": "train", "items": 9, "sum_r": 20.0, "chance": 3.0, "recalls": {"pt": both}}
    writer.write_best(figures | {"global_weight": 0.4, "local_pooling": "max", "view_weights": {}}, {"sum_r": 5.0})
    best = writer.run / "best"
    assert (best / "model.safetensors").read_text() == "0.4" and find_damage(best) is None
    record = json.loads((writer.run / "record.json").read_text())
    assert record["best"]["step"] == 7 and record["start"]["sum_r"] == 5.0
    card = (best / "README.md").read_text()
    assert "fitted" in card and "| pt |" in card
