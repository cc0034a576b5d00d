"""The folder of a run: it resumes only with the same settings and corpora."""

import json
from types import SimpleNamespace

import pytest

from pipeline.errors import EnvironmentTrouble, UsageError
from stages.training import checkpoints
from stages.training import run_folder as runs
from stages.training.settings import resolve


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "corpus" / "training").mkdir(parents=True)
    (tmp_path / "corpus" / "training" / "manifest.json").write_text("{}")
    return tmp_path / "corpus"


@pytest.fixture
def begin(tmp_path, corpus):
    (tmp_path / "run").mkdir()

    def of(*overrides, resume=False, overwrite=False, recipe="base"):
        said = []
        settings = resolve(recipe, overrides)
        found = runs.checkpoint_to_resume(tmp_path / "run", settings, [corpus], resume, overwrite, said.append)
        runs.begin_run(tmp_path / "run", settings, [corpus], overwrite)
        return found, said

    return of


def checkpoint(run, step):
    return checkpoints.save(run, step, lambda folder: (folder / "a").write_text("a"), {}, {"step": step})


def test_run_resumes_from_its_newest_checkpoint(begin, tmp_path):
    assert begin("lr=.1") == (None, [])
    stored = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert stored["settings"]["lr"] == 0.1 and len(stored["corpora"]) == 1
    path = checkpoint(tmp_path / "run", 5)
    assert begin("lr=.1", resume=True) == (path, [])
    assert begin("lr=.1", "workers=3", "log_every=1", resume=True)[0] == path


def test_checkpoints_are_not_overwritten_without_an_option(begin, tmp_path):
    begin()
    begin()  # killed before its first checkpoint: nothing is lost
    checkpoint(tmp_path / "run", 5)
    with pytest.raises(UsageError, match="up to step-00000005: --resume continues it"):
        begin()


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(
    ("override", "message"),
    [("lr=.2", r"lr=1e-05 \(now 0.2\)"), ("num_slots=3", r"num_slots=4 \(now 3\)"), ("seed=1", r"seed=0 \(now 1\)")],
)
def test_other_settings_are_refused_by_name(begin, override, message, resume):
    begin()
    with pytest.raises(UsageError, match=f"was started with {message}"):
        begin(override, resume=resume)


def test_another_corpus_is_refused(begin, corpus):
    begin()
    (corpus / "training" / "manifest.json").write_text("{} ")
    with pytest.raises(UsageError, match="started with another corpus"):
        begin(resume=True)


def test_overwrite_starts_over_and_leaves_what_is_not_the_runs(begin, tmp_path):
    run = tmp_path / "run"
    begin("lr=.1")
    checkpoint(run, 5)
    for name in ("best", "corpus", "tensorboard"):
        (run / name).mkdir()
    (run / "metrics.jsonl").write_text("{}\n")
    assert begin("lr=.2", overwrite=True) == (None, [])
    assert sorted(path.name for path in run.iterdir()) == ["corpus", "settings.json"]
    assert json.loads((run / "settings.json").read_text())["settings"]["lr"] == 0.2


def test_resume_without_a_checkpoint_starts_with_a_note(begin, tmp_path):
    found, said = begin(resume=True)
    assert found is None and "no complete checkpoint" in said[0]
    (checkpoint(tmp_path / "run", 5) / "a").write_text("damaged")
    found, said = begin(resume=True)
    assert found is None and "step-00000005 is damaged" in said[0] and "no complete checkpoint" in said[1]


def test_the_best_is_kept_with_the_global_weight_that_was_found_for_it(corpus, tmp_path):
    class Model:
        config = SimpleNamespace(global_weight=0.8)

        def save_pretrained(self, folder):
            (folder / "weight").write_text(str(self.config.global_weight))

    record = runs.make_record(resolve("demo"), [corpus], label="fitted")
    writer = runs.ModelWriter(tmp_path, Model(), SimpleNamespace(save_pretrained=lambda folder: None), record)
    both = {"sum_r": 20.0} | {way: {"r1": 1.0, "r5": 2.0, "r10": 3.0} for way in ("text_to_media", "media_to_text")}
    figures = {"step": 7, "split": "train", "items": 9, "sum_r": 20.0, "chance": 3.0, "recalls": {"pt": both}}
    writer.write_best(figures | {"global_weight": 0.4})
    assert (tmp_path / "best" / "weight").read_text() == "0.4"
    assert checkpoints.problem(tmp_path / "best") is None
    assert json.loads((tmp_path / "record.json").read_text())["best"]["step"] == 7
    card = (tmp_path / "best" / "README.md").read_text()
    assert "fitted" in card and "| pt |" in card


def test_looking_changes_nothing_and_strangers_stay(begin, corpus, tmp_path):
    run = tmp_path / "run"
    listed = checkpoints.list_checkpoints
    begin("lr=0.1")
    checkpoint(run, 5)
    assert runs.checkpoint_to_resume(run, resolve("base", ["lr=0.2"]), [corpus], False, True, print) is None
    assert json.loads((run / "settings.json").read_text())["settings"]["lr"] == 0.1 and checkpoints.list_checkpoints(
        run
    )
    begin("lr=0.2", overwrite=True)
    assert json.loads((run / "settings.json").read_text())["settings"]["lr"] == 0.2 and not listed(run)
    (run / runs.SETTINGS).unlink()
    (run / "best").mkdir()
    with pytest.raises(UsageError, match=r"has best but no settings\.json"):
        begin("lr=0.3", overwrite=True)
    assert (run / "best").is_dir()


def test_run_without_valid_settings_does_not_resume(begin, tmp_path):
    run = tmp_path / "run"
    begin()
    checkpoint(run, 5)
    (run / "settings.json").write_text("{}")
    with pytest.raises(EnvironmentTrouble, match="has no settings of a run"):
        begin(resume=True)
    (run / "settings.json").unlink()
    with pytest.raises(UsageError, match=r"checkpoints of a run but no settings\.json"):
        begin(resume=True)
