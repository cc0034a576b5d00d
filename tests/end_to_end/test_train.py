"""stages/train.py as a user runs it: killed and resumed bit-identically, on one process and on two; mistakes."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPModel

from stages import score
from stages.processes import run_program
from stages.train import main
from stages.training.metrics import read_metrics
from stages.training.run_folder import newest_checkpoint, read_progress
from tests.conftest import run_python
from tests.http_servers import free_port
from tests.stages.corpora import write_training_corpus
from tests.stages.duals import write_dual
from tests.worked_examples import each_example

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
    """A process of a run, with its output in a file."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.argv = ["train.py", *argv]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run_program(main))


def run_ranks(argv, log, world=1, until=None, number=signal.SIGKILL, ranks=None):
    """Run on `world` processes; returns their exit statuses and output.

    Args:
        argv: The command line.
        log: File for the output.
        world: Number of processes. If one fails, the others are killed, as launchers do.
        until: (run, step): send the signal when metrics.jsonl of the run has this step.
        number: The signal.
        ranks: Processes that get it; None for all.
    """
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    group |= {"WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
    processes = [
        CONTEXT.Process(
            target=work, args=(argv, {**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {}, log)
        )
        for rank in range(world)
    ]
    try:
        for process in processes:
            process.start()
        deadline = time.monotonic() + 60
        while until and not _has_step(*until):
            assert all(process.is_alive() for process in processes) and time.monotonic() < deadline, log.read_text()
            time.sleep(0.001)
        for rank in (ranks or range(world)) if until else ():
            os.kill(processes[rank].pid, number)
        while time.monotonic() < deadline and any(process.is_alive() for process in processes):
            if any(process.exitcode for process in processes):
                time.sleep(0.2)
                break
            time.sleep(0.01)
        return [process.exitcode for process in processes], log.read_text()
    finally:
        for process in processes:
            process.kill()
            process.join()


def _has_step(run, step):
    path = run / "metrics.jsonl"
    return path.exists() and f'"step": {step},' in path.read_text()


def finish(argv, log, world=1):
    statuses, output = run_ranks(argv, log, world)
    assert statuses == [0] * world, output
    return output


def lines(run):
    timed = ("samples_per_s", "data_wait")
    return [{name: value for name, value in line.items() if name not in timed} for line in read_metrics(run)]


def assert_same(one, other):
    """Compare every line, the weights, the optimiser and the best weights bit by bit."""
    assert lines(one) == lines(other)
    assert [line["step"] for line in lines(one) if line["kind"] == "train"] == list(range(1, STEPS + 1))
    folders = [newest_checkpoint(run) for run in (one, other)]
    assert [folder.name for folder in folders] == [f"step-{STEPS:08d}"] * 2
    for name in ("model.safetensors", "position.json", "config.json", "README.md"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    states = [read_progress(folder)[0] for folder in folders]
    for number, state in states[0]["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, states[1]["optimizer"]["state"][number][name])
    best = [load_file(run / "best" / "model.safetensors") for run in (one, other)]
    assert all(torch.equal(value, best[1][name]) for name, value in best[0].items())


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """A run on one process without interruption."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(arguments(corpus, run), run.parent / "log")
    return run


def test_run_leaves_what_the_documents_promise(whole):
    assert {path.name for path in whole.iterdir()} >= {
        "best", "checkpoints", "curves.png", "metrics.jsonl", "record.json", "settings.json",
    }  # fmt: skip
    losses = [line["loss"] for line in lines(whole) if line["kind"] == "train"]
    record = json.loads((whole / "record.json").read_text())
    validations = [record["start"], *(line for line in lines(whole) if line["kind"] == "validation")]
    assert len(losses) == STEPS and len(validations) == 4 and sum(losses[-5:]) < sum(losses[:5])
    assert validations[0]["recalls"].keys() == {"de", "fr"} and validations[0]["split"] == "val"
    assert record["processes"] == 1 and record["best"]["sum_r"] == max(line["sum_r"] for line in validations)
    assert validations[0]["step"] == 0
    best, start = (record[name]["sum_r"] for name in ("best", "start"))
    log = (whole.parent / "log").read_text()
    assert f"SumR {best:.1f} on val, {start:.1f} before training (step 0)" in log
    assert "estimate per process: " in log and "activations of 4 samples" in log


def test_best_weights_load_elsewhere_and_score_as_in_training(whole, corpus, tmp_path):
    argv = ("--checkpoint", whole, "--data", corpus, "--languages", "de,fr", "--output", tmp_path / "scores.json")
    assert score.main(list(map(str, argv))) == 0
    best = json.loads((whole / "record.json").read_text())["best"]
    scores = json.loads((tmp_path / "scores.json").read_text())
    for language, both in best["recalls"].items():
        assert {name: scores["languages"][language][name] for name in both} == both


@pytest.mark.torture
def test_run_killed_twice_ends_bit_identically(whole, corpus, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    argv = arguments(corpus, run)
    run_ranks(argv, log, until=(run, 9))
    run_ranks([*argv, "--resume"], log, until=(run, 23))
    assert finish([*argv, "--resume"], log).count("recipe base") == 3
    assert_same(whole, run)


def test_two_processes_killed_and_stopped_end_bit_identically(corpus, tmp_path):
    one, run = tmp_path / "one", tmp_path / "run"
    launch = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", 2)
    process = run_python(*launch, "stages/train.py", *arguments(corpus, one))
    assert process.returncode == 0, process.stderr
    assert json.loads((one / "record.json").read_text())["processes"] == 2
    argv = arguments(corpus, run)
    run_ranks(argv, tmp_path / "first", 2, (run, 9))
    statuses, output = run_ranks([*argv, "--resume"], tmp_path / "second", 2, (run, 23), signal.SIGTERM, [1])
    assert statuses[0] == 128 + signal.SIGTERM
    assert output.count("error: stopped by SIGTERM after step") == 1 and "--resume to continue" in output
    finish([*argv, "--resume"], tmp_path / "third", 2)
    assert_same(one, run)


@pytest.mark.torture
def test_frozen_towers_are_encoded_once_and_two_processes_killed_end_bit_identically(corpus, tmp_path):
    towers = str(write_dual(tmp_path / "dual", "clip"))
    frozen = (f"media={towers}", f"text={towers}", "freeze=media,text", "image_size=32", "embed_dim=24")
    one, run = tmp_path / "one", tmp_path / "run"
    own = tmp_path / "corpus"
    shutil.copytree(corpus, own, ignore=shutil.ignore_patterns("states"))
    outputs = [finish(arguments(own, one, *frozen), tmp_path / "first", 2)]
    argv = arguments(own, run, *frozen)
    outputs.append(run_ranks(argv, tmp_path / "second", 2, (run, 9))[1])
    outputs.append(finish([*argv, "--resume"], tmp_path / "third", 2))
    assert [output.count("states of pictures") for output in outputs] == [2, 0, 0]  # each process has one shard
    assert_same(one, run)
    trained = load_file(newest_checkpoint(run) / "model.safetensors")
    tower = CLIPModel.from_pretrained(towers).vision_model.state_dict()
    prefix = "media_encoder.tower.tower."
    assert all(
        torch.equal(value, tower[name.removeprefix(prefix)]) for name, value in trained.items() if prefix in name
    )


@pytest.mark.parametrize("world", [1, 2])
def test_run_that_diverges_stops_on_every_process_and_names_items(corpus, tmp_path, world):
    argv = arguments(corpus, tmp_path / "run", "lr=1e30", "warmup=0", "clip=0", "save_every=1")
    statuses, output = run_ranks(argv, tmp_path / "log", world)
    assert statuses[0] == 1
    assert output.count("error: step") == 1 and "item-0" in output and "Traceback" not in output
    assert newest_checkpoint(tmp_path / "run") is not None


@pytest.fixture
def mistake(capsys, monkeypatch):
    """Runs a command line that is refused; returns the message."""

    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["train.py", *argv])
        assert run_program(main) == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("error: ")
        return message

    return run


@each_example("a_mistake_in_training_is_one_message", "more, message")
def test_mistake_is_one_message(corpus, tmp_path, mistake, more, message):
    argv = arguments(corpus, tmp_path / "run")
    if more[0] in argv:
        argv[argv.index(more[0]) + 1] = more[1]
        more = []
    assert message in mistake(*argv, *more)


def test_mistake_on_two_processes_is_reported_once(corpus, tmp_path):
    statuses, output = run_ranks(arguments(corpus, tmp_path / "run", "batch_size=5"), tmp_path / "log", 2)
    assert statuses[0] == 2 and output.count("error") <= 2
    assert "error: batch_size=5: 2 processes" in output
