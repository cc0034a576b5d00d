"""The processes of a run: started where the launcher leaves that out, of one mind about errors, ended in order."""

import argparse
import contextlib
import datetime
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import psutil

from pipeline.errors import PipelineError, UsageError

Result = TypeVar("Result")
HEARD_S = 10.0  # that other ranks leave rank 0 to tell an error that it has too
AGAIN_S = 3.0  # a signal repeated sooner is the launcher's echo of the same Ctrl-C
GRACE_S = 60.0


class Parser(argparse.ArgumentParser):
    """A mistake on the command line is one like others: told once, however many processes there are."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; --help shows what there is")


def run_program(main: Callable[[Sequence[str]], int]) -> int:
    """`main` with the program's arguments, in as many processes as the launcher was asked for; its exit status.

    A user's mistake is told once, without a traceback.
    """
    count = left_out()
    if count > 1:
        return start(count)
    try:
        status = main(sys.argv[1:])
    except PipelineError as error:
        tell(error)
        status = error.status
    except BrokenPipeError:  # `… | head` has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("ended by Ctrl-C", file=sys.stderr, flush=True)
        status = 130
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        # without taking the process group down at exit: that was seen to wait for a rank that had left, for ever
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def tell(error: PipelineError) -> None:
    rank = int(os.environ.get("RANK", 0))
    if rank:
        time.sleep(HEARD_S)  # rank 0 tells and ends, and the launcher then ends this process: what is left is its own
    print(f"error: {f'rank {rank}: ' if rank else ''}{error}", file=sys.stderr, flush=True)


def left_out() -> int:
    """How many processes `accelerate launch --cpu --num_processes N` was asked for, if it started one: it leaves
    several on CPUs to mpirun. 1 wherever somebody else starts them, or one was wanted."""
    if "MASTER_ADDR" not in os.environ or os.environ.get("ACCELERATE_USE_CPU") != "True":
        return 1
    if {"RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"} & os.environ.keys():
        return 1
    parent = psutil.Process().parent()
    return asked_for(parent.cmdline() if parent else [])


def asked_for(command: Sequence[str]) -> int:
    """The number after --num_processes in a launcher's command line, 1 where there is none, or several machines."""
    words = [word.replace("-", "_") for argument in command for word in argument.split("=", 1)]
    numbers = dict(itertools.pairwise(words))
    if numbers.get("__num_machines", "1") != "1":
        return 1
    count = numbers.get("__num_processes", "1")
    return int(count) if count.isdecimal() else 1


def start(count: int) -> int:
    """This program again, once a rank. The exit status of the first that failed; the others are then ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, *sys.argv]
    ranks = [
        subprocess.Popen(command, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)
    ]

    def forward(number: int, _frame: Any) -> None:
        for process in ranks:
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)
    launcher, status = os.getppid(), 0
    codes: list[int | None] = [None]
    try:
        while not status and None in codes:
            time.sleep(0.05)
            codes = [process.poll() for process in ranks]
            status = next((code for code in codes if code), 0)  # of the lowest rank that failed
            if os.getppid() != launcher:  # it was ended, and told nobody
                status = 128 + signal.SIGTERM
    finally:
        end(ranks)
    return status if status >= 0 else 128 - status


def end(ranks: Sequence[subprocess.Popen]) -> None:
    """Ask those that still run to end; kill them if they do not."""
    for process in ranks:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + GRACE_S
    for process in ranks:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def accelerated(precision: str) -> Any:
    """The process group, if any, the device and the precision: "no", "bf16", or "auto", bf16 where a GPU has it."""
    import torch  # late: who only starts processes needs none of it
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs, parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    if precision == "auto":
        precision = "bf16" if not cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    # one rank may make a corpus or states of descriptions while the others wait
    waits = InitProcessGroupKwargs(timeout=datetime.timedelta(hours=24))
    return Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[waits])


def on_main(work: Callable[[], Result]) -> Result:
    """What rank 0 alone does: its result, or its PipelineError, on every rank."""
    import torch.distributed as dist  # late: who only starts processes needs no torch

    if not dist.is_initialized():
        return work()
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = work()
        except PipelineError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


@contextlib.contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """Signals that asked this process to end, for as long as a step must be finished first. Asked twice, it ends."""
    asked: list[int] = []
    last = -AGAIN_S

    def note(number: int, _frame: Any) -> None:
        nonlocal last
        if asked and time.monotonic() - last >= AGAIN_S:
            os._exit(128 + number)
        last = time.monotonic()
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
