"""Processes: started where the launcher leaves it out, errors reported once, signals that wait for the step."""

import os
import signal
import subprocess
import sys
import time
import types

import psutil
import pytest
from accelerate.state import AcceleratorState, PartialState

from pipeline.errors import PipelineError, UsageError
from stages.processes import accelerated, on_main, stop_requests, unstarted_processes
from tests.conftest import ROOT, clean_environment
from tests.worked_examples import each_example


@each_example("processes_are_left_out_only_by_accelerates_launcher_on_cpus", "options, environment, count")
def test_processes_are_left_out_only_by_accelerates_launcher_on_cpus(monkeypatch, options, environment, count):
    command = f"accelerate launch --cpu {options} stages/train.py".split()
    monkeypatch.setattr(psutil.Process, "parent", lambda _: types.SimpleNamespace(cmdline=lambda: command))
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert unstarted_processes() == 1
    for name, value in {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "True", **environment}.items():
        monkeypatch.setenv(name, value)
    assert unstarted_processes() == count


@each_example("processes_of_accelerates_configuration_file", "options, content, count")
def test_processes_of_accelerates_configuration_file(monkeypatch, tmp_path, options, content, count):
    file = tmp_path / "accelerate" / "default_config.yaml"
    file.parent.mkdir()
    file.write_text(content)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path if not options else tmp_path / "other"))
    command = f"accelerate launch {options.format(file)} stages/train.py".split()
    monkeypatch.setattr(psutil.Process, "parent", lambda _: types.SimpleNamespace(cmdline=lambda: command))
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "True"}.items():
        monkeypatch.setenv(name, value)
    assert unstarted_processes() == count


PROGRAM = r"""
import os, signal, sys, time
from pipeline.errors import UsageError
from stages import processes as p

p.REPORT_S = 1.5

def main(argv):
    rank = int(os.environ["RANK"])
    print(f"rank {rank} of {os.environ['WORLD_SIZE']}\n", end="", flush=True)
    if argv[0] == "mistake":
        raise UsageError("a mistake")
    if argv[0] == "one" and rank == 1:
        raise UsageError("only here")
    if argv[0] == "import":
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            raise ImportError("numpy failed to import")
    if argv[0] in ("one", "wait"):
        time.sleep(60)
    return 0

if "RANK" in os.environ:
    sys.exit(p.run_program(main))
sys.exit(p.start_ranks(2))
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    return [sys.executable, str(tmp_path / "program.py")]


@pytest.mark.parametrize(
    ("word", "status", "message"),
    [("well", 0, ""), ("mistake", 2, "error: a mistake\n"), ("one", 2, "error: rank 1: only here\n")],
)
def test_as_many_processes_as_asked_for_and_a_mistake_reported_once(program, word, status, message):
    environment = clean_environment(PYTHONPATH=str(ROOT))
    done = subprocess.run([*program, word], capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (status, message)
    ranks = set(done.stdout.splitlines())
    # where both fail, the first that did may have the other ended before it says anything
    assert ranks == {"rank 0 of 2", "rank 1 of 2"} or (word == "mistake" and ranks)


def test_ctrl_c_during_the_imports_of_all_processes_is_one_message(program):
    environment = clean_environment(PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [*program, "import"], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == 130 and done.stderr in ("stopped by Ctrl-C\n", "")  # rank 1 may have ended rank 0


def test_where_the_launcher_is_gone_the_processes_end_too(program):
    launcher = f"import subprocess, time; subprocess.Popen({[*program, 'wait']!r}); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", launcher], env=clean_environment(PYTHONPATH=str(ROOT)))
    deadline = time.monotonic() + 20
    while len(started := psutil.Process(process.pid).children(recursive=True)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert psutil.wait_procs(started, timeout=20)[1] == []


def test_alone_the_main_process_does_the_work_itself():
    assert on_main(lambda: 5) == 5
    with pytest.raises(PipelineError, match="no"):
        on_main(lambda: (_ for _ in ()).throw(UsageError("no")))


def test_signals_wait_and_an_echo_of_them_is_no_second_one():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as requests:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert requests == [signal.SIGINT, signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before


def test_asked_again_later_the_process_ends_at_once():
    code = (
        "import os, signal, time; from stages import processes; processes.REPEAT_S = 0.05\n"
        "with processes.stop_requests():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.1); os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize(("option", "precision"), [("auto", "no"), ("no", "no"), ("bf16", "bf16")])
def test_precision_is_full_by_itself_on_a_processor(monkeypatch, option, precision):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # there may be a GPU that is not to be used
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16" if option == "auto" else "no")
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        accelerator = accelerated(option)
        assert accelerator.mixed_precision == precision and accelerator.device.type == "cpu"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        assert PartialState._shared_state == {}
