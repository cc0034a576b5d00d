"""Processes: started where the launcher leaves it out, errors reported once, signals that wait for the step."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from accelerate.state import AcceleratorState, PartialState

from pipeline.errors import PipelineError, UsageError
from stages import processes
from stages.processes import (
    accelerated,
    on_main,
    requested_processes,
    run_program,
    stop_requests,
    unstarted_processes,
)
from tests.conftest import ROOT, clean_environment

LAUNCHER = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "ACCELERATE_USE_CPU": "True"}


@pytest.mark.parametrize(
    ("command", "count"),
    [
        ("accelerate launch --cpu --num_processes 3 stages/train.py", 3),
        ("accelerate launch --cpu --num-processes=2 stages/train.py", 2),
        ("accelerate launch --cpu --num_processes 4 --num_machines 2 stages/train.py", 1),
        ("accelerate launch --cpu --num_processes 4 --num_machines 1 stages/train.py", 4),
        ("accelerate launch --cpu stages/train.py", 1),
        ("bash", 1),
    ],
)
def test_the_number_of_processes_in_a_launchers_command(command, count):
    assert requested_processes(command.split()) == count


def test_processes_are_left_out_only_by_accelerates_launcher_on_cpus(monkeypatch):
    monkeypatch.setattr(processes, "requested_processes", lambda command: 2)
    for name in (*LAUNCHER, "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert unstarted_processes() == 1
    for name, value in LAUNCHER.items():
        monkeypatch.setenv(name, value)
    assert unstarted_processes() == 2
    for name in ("RANK", "OMPI_COMM_WORLD_SIZE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "0")
            assert unstarted_processes() == 1
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")
    assert unstarted_processes() == 1


PROGRAM = r"""
import os, sys, time
from stages.processes import run_program
from pipeline.errors import UsageError

def main(argv):
    rank = int(os.environ["RANK"])
    print(f"rank {rank} of {os.environ['WORLD_SIZE']}\n", end="", flush=True)
    if argv[0] == "mistake":
        raise UsageError("a mistake")
    if argv[0] == "one" and rank == 1:
        raise UsageError("only here")
    if argv[0] == "one":
        time.sleep(60)
    return 0

sys.exit(run_program(main))
"""


@pytest.mark.parametrize(
    ("word", "status", "message"),
    [("well", 0, ""), ("mistake", 2, "error: a mistake\n"), ("one", 2, "error: rank 1: only here\n")],
)
def test_as_many_processes_as_asked_for_and_a_mistake_reported_once(tmp_path, monkeypatch, word, status, message):
    program = tmp_path / "program.py"
    program.write_text(
        PROGRAM.replace("import os", "import os; import stages.processes as p; p.REPORT_S = 1.5\nimport os", 1)
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    start = (
        f"import sys; sys.argv = {[str(program), word]}; from stages.processes import start_ranks; "
        "sys.exit(start_ranks(2))"
    )
    done = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, env=environment | {"PYTHONPATH": str(ROOT)},
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (status, message)
    began = set(done.stdout.splitlines())
    # where both fail, the first that did may have the other ended before it says anything
    assert began == {"rank 0 of 2", "rank 1 of 2"} or (word == "mistake" and began)


def test_where_the_launcher_is_gone_the_processes_end_too(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    start = (
        f"import sys; sys.argv = {[str(program), 'one']}; from stages.processes import start_ranks; "
        "sys.exit(start_ranks(1))"
    )
    launcher = (
        "import subprocess, sys, time; import os\n"
        f"print(subprocess.Popen([sys.executable, '-c', {start!r}]).pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True,
        env=clean_environment(PYTHONPATH=str(ROOT)),
    )  # fmt: skip
    starter = int(process.stdout.readline())
    assert process.stdout.readline() == "rank 0 of 1\n"
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while running(starter):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_users_mistake_ends_in_its_status_without_a_traceback(monkeypatch, capsys):
    def main(argv):
        raise UsageError("a mistake: do this")

    monkeypatch.delenv("RANK", raising=False)
    assert run_program(main) == 2
    assert capsys.readouterr().err == "error: a mistake: do this\n"


def test_alone_the_main_process_does_the_work_itself():
    assert on_main(lambda: 5) == 5
    with pytest.raises(PipelineError, match="no"):
        on_main(lambda: (_ for _ in ()).throw(UsageError("no")))


def test_signals_wait_and_an_echo_of_them_is_no_second_one():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as requests:
        assert requests == []
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


@pytest.mark.parametrize(("asked", "got"), [("auto", "no"), ("no", "no"), ("bf16", "bf16")])
def test_precision_is_as_asked_and_full_on_a_processor_by_itself(monkeypatch, asked, got):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # there may be a GPU that is not to be used
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16" if asked == "auto" else "no")
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        accelerator = accelerated(asked)
        assert accelerator.mixed_precision == got and accelerator.device.type == "cpu"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        assert PartialState._shared_state == {}
