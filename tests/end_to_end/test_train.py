"""stages/train.py as a user runs it: killed and resumed to the last bit, on one process and on two; mistakes."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from stages import score
from stages.training import checkpoints
from stages.training.metrics_log import read_metrics
from tests.conftest import ROOT, clean_environment
from tests.stages.corpora import write_training_corpus

STEPS = 40
TINY = (
    *("tiny_width=16", "tiny_layers=2", "tiny_vocabulary=300", "image_size=16", "embed_dim=16", "num_heads=2"),
    *("num_slots=2", "slot_layers=1", "interaction_layers=1", "dropout=.2", "batch_size=4", "lr=1e-3", "ema=.9"),
    *(f"steps={STEPS}", "validate_every=15", "save_every=7", "log_every=1", "mixed_precision=no"),
)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["stages.training.building", "stages.training.trainer", "stages.scoring.embed"]
)  # imports once what each process would import for seconds


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_training_corpus(tmp_path_factory.mktemp("train") / "corpus", items=20)


def arguments(corpus, run, *more, recipe="base"):
    return ["--recipe", recipe, "--data", str(corpus), "--output", str(run), *TINY, *more]


def work(argv, environment, log):
    """A process of a run: its own end, its output in a file."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.argv = ["train.py", *argv]
    from stages.processes import run_program
    from stages.train import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run_program(main))


class Ranks:
    """The processes of a run that go on until they end or are killed."""

    def __init__(self, argv, log, world=1):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
        self.log = log
        self.processes = [
            CONTEXT.Process(
                target=work,
                args=(argv, {**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {}, log),
            )
            for rank in range(world)
        ]
        for process in self.processes:
            process.start()

    def send(self, number, ranks=None):
        for process in self.processes if ranks is None else [self.processes[rank] for rank in ranks]:
            os.kill(process.pid, number)

    def wait(self, timeout=60):
        """Exit statuses, and what was said. Where one failed the others are ended, as launchers do."""
        deadline = time.monotonic() + timeout
        try:
            while time.monotonic() < deadline and any(process.is_alive() for process in self.processes):
                if any(process.exitcode for process in self.processes):
                    time.sleep(0.2)
                    break
                time.sleep(0.01)
            return [process.exitcode for process in self.processes], self.said()
        finally:
            for process in self.processes:
                process.kill()
                process.join()

    def said(self):
        return self.log.read_text()


def ended(argv, log, world=1):
    statuses, said = Ranks(argv, log, world).wait()
    assert statuses == [0] * world, said
    return said


def killed(argv, run, log, step, world=1, number=signal.SIGKILL, ranks=None):
    """Run until `step` is told in metrics.jsonl, then send the signal. Returns statuses and what was said."""
    started = Ranks(argv, log, world)
    path, deadline = run / "metrics.jsonl", time.monotonic() + 60
    wanted = f'"step": {step},'
    while time.monotonic() < deadline and not (path.exists() and wanted in path.read_text()):
        assert all(process.is_alive() for process in started.processes), started.said()
        time.sleep(0.001)
    started.send(number, ranks)
    return started.wait()


def program(*argv):
    """A Python program in a process of its own, as a user starts it."""
    environment = clean_environment(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    command = [sys.executable, *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)


def lines(run):
    timed = ("samples_per_s", "data_wait")
    return [{name: value for name, value in line.items() if name not in timed} for line in read_metrics(run)]


def assert_same(one, other):
    """To the last bit: every line, the weights, the optimiser, the best."""
    assert lines(one) == lines(other)
    assert [line["step"] for line in lines(one) if line["kind"] == "train"] == list(range(1, STEPS + 1))
    folders = [checkpoints.newest(run, print) for run in (one, other)]
    assert [folder.name for folder in folders] == [f"step-{STEPS:08d}"] * 2
    for name in ("model.safetensors", "position.json", "config.json", "README.md"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    states = [checkpoints.read_training(folder) for folder in folders]
    for number, state in states[0]["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, states[1]["optimizer"]["state"][number][name])
    best = [load_file(run / "best" / "model.safetensors") for run in (one, other)]
    assert all(torch.equal(value, best[1][name]) for name, value in best[0].items())


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """A run on one process that nobody disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    ended(arguments(corpus, run), run.parent / "log")
    return run


def test_a_run_leaves_what_it_promises(whole):
    assert {path.name for path in whole.iterdir()} >= {
        "best", "checkpoints", "curves.png", "metrics.jsonl", "record.json", "settings.json",
    }  # fmt: skip
    kinds = [line["kind"] for line in lines(whole)]
    assert kinds.count("train") == STEPS and kinds.count("validation") == 3
    validation = next(line for line in lines(whole) if line["kind"] == "validation")
    assert validation["recalls"].keys() == {"de", "fr"} and validation["split"] == "val"
    record = json.loads((whole / "record.json").read_text())
    assert record["processes"] == 1 and record["best"]["sum_r"] == max(
        line["sum_r"] for line in lines(whole) if line["kind"] == "validation"
    )
    first, last = (
        [line["loss"] for line in lines(whole) if line["kind"] == "train"][part] for part in (slice(5), slice(-5, None))
    )
    assert sum(last) < sum(first)


def test_the_best_weights_load_elsewhere_and_score_as_they_did(whole, corpus, tmp_path):
    given = ("--checkpoint", whole, "--data", corpus, "--languages", "de,fr", "--output", tmp_path / "scores.json")
    assert score.main([str(argument) for argument in given]) == 0
    best = json.loads((whole / "record.json").read_text())["best"]
    scores = json.loads((tmp_path / "scores.json").read_text())
    for language, both in best["recalls"].items():
        assert {name: scores["languages"][language][name] for name in both} == both


def test_two_kills_and_the_same_to_the_last_bit(whole, corpus, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    argv = arguments(corpus, run)
    killed(argv, run, log, step=9)
    killed([*argv, "--resume"], run, log, step=23)
    said = ended([*argv, "--resume"], log)
    assert_same(whole, run)
    assert said.count("recipe base") == 3


def test_two_processes_killed_and_asked_to_end_go_on_to_the_last_bit(corpus, tmp_path):
    one, run = tmp_path / "one", tmp_path / "run"
    launch = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", 2)
    done = program(*launch, ROOT / "stages" / "train.py", *arguments(corpus, one))
    assert done.returncode == 0, done.stderr
    assert json.loads((one / "record.json").read_text())["processes"] == 2
    argv = arguments(corpus, run)
    killed(argv, run, tmp_path / "first", step=9, world=2)
    statuses, said = killed(
        [*argv, "--resume"], run, tmp_path / "second", step=23, world=2, number=signal.SIGTERM, ranks=[1]
    )
    assert statuses[0] == 128 + signal.SIGTERM
    assert said.count("error: stopped by SIGTERM after step") == 1 and "--resume to continue" in said
    ended([*argv, "--resume"], tmp_path / "third", world=2)
    assert_same(one, run)


@pytest.mark.parametrize("world", [1, 2])
def test_a_run_that_diverges_ends_everywhere_and_says_where(corpus, tmp_path, world):
    argv = arguments(corpus, tmp_path / "run", "lr=1e30", "warmup=0", "clip=0", "save_every=1")
    statuses, said = Ranks(argv, tmp_path / "log", world).wait()
    assert statuses[0] == 1
    assert said.count("error: step") == 1 and "item-0" in said and "Traceback" not in said
    assert checkpoints.newest(tmp_path / "run", print) is not None


MISTAKES = {
    "another recipe": (["--recipe", "bass"], "did you mean 'base'"),
    "another option": (["--outptu", "x"], "unrecognized arguments: --outptu x"),
    "another key": (["num_slot=3"], "did you mean 'num_slots'"),
    "another type": (["epochs=many"], "epochs: got 'many'"),
    "no such corpus": (["--data", "nowhere"], "nowhere/training does not exist"),
    "no such language": (["languages=ja"], "languages=ja"),
    "no such split": (["select_on=test"], "no item in split 'test'"),
    "nothing to train": (["train_on=dev"], "no item in split 'dev'"),
    "more than there is": (["batch_size=4000"], "batch_size=4000"),
    "no such tower": (["media=tests"], "tests"),
    "heads that do not divide": (["num_heads=3"], "heads"),
    "a patch that does not divide": (["tiny_patch=7"], "image_size"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_message(corpus, tmp_path, capsys, monkeypatch, name):
    from stages.processes import run_program
    from stages.train import main

    more, told = MISTAKES[name]
    given = arguments(corpus, tmp_path / "run")
    if more[0] in given:
        given[given.index(more[0]) + 1] = more[1]
        more = []
    monkeypatch.setattr(sys, "argv", ["train.py", *given, *more])
    assert run_program(main) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and told in error


def test_a_mistake_on_two_processes_is_told_once(corpus, tmp_path):
    statuses, said = Ranks(arguments(corpus, tmp_path / "run", "batch_size=5"), tmp_path / "log", 2).wait(20)
    assert statuses[0] == 2 and said.count("error") <= 2
    assert "error: batch_size=5: 2 processes" in said


def test_a_run_is_not_run_over_and_goes_on_only_as_it_was(whole, corpus, tmp_path, capsys):
    from stages.processes import run_program
    from stages.train import main

    def told(*argv):
        sys.argv = ["train.py", *argv]
        assert run_program(main) == 2
        return capsys.readouterr().err

    kept = sys.argv
    try:
        assert "--resume continues it" in told(*arguments(corpus, whole))
        assert "started with lr=0.001 (now 0.1)" in told(*arguments(corpus, whole), "--resume", "lr=.1")
        (tmp_path / "file").write_text("")
        assert "is a file" in told(*arguments(corpus, tmp_path / "file"))
        assert "give --data CORPUS" in told("--recipe", "base", "--output", str(tmp_path / "run"))
        other = tmp_path / "other"
        (other / "checkpoints").mkdir(parents=True)
        os.symlink(checkpoints.newest(whole, print), other / "checkpoints" / "step-00000040")
        assert "but no settings.json" in told(*arguments(corpus, other), "--resume", "num_slots=3")
        stored = json.loads((whole / "settings.json").read_text())
        stored["settings"]["num_slots"] = 3
        (other / "settings.json").write_text(json.dumps(stored))
        assert "has num_slots=2, the settings have 3" in told(*arguments(corpus, other), "--resume", "num_slots=3")
    finally:
        sys.argv = kept
