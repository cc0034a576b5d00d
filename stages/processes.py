"""The processes of a program: started where the launcher does not, errors reported once, stopped in order."""

import argparse
import contextlib
import datetime
import io
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pipeline.errors import PipelineError, UsageError

Result = TypeVar("Result")
REPORT_S = 10.0  # other ranks wait for so long for rank 0 to report an error that it has too
REPEAT_S = 3.0  # a signal repeated sooner is the launcher's echo of the same Ctrl-C
GRACE_S = 60.0  # between SIGTERM and SIGKILL


class Parser(argparse.ArgumentParser):
    """Raises a mistake on the command line as UsageError, so that it is reported once for all processes."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message}. --help lists the options")


def run_program(main: Callable[[Sequence[str]], int]) -> int:
    """Run `main` with the program's arguments, in as many processes as the launcher was asked for.

    Returns:
        The exit status.
    """
    count = unstarted_processes()
    if count > 1:
        return start_ranks(count)
    status = exit_status(lambda: main(sys.argv[1:]), "stopped by Ctrl-C")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        # Leave without destroying the process group, which can wait forever for a rank that has left.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def exit_status(work: Callable[[], int], interrupted: str, *, sigterm: bool = False) -> int:
    """Do a program's work. What a user meets is reported once, in a message without a traceback.

    Args:
        work: Returns the exit status.
        interrupted: The message after Ctrl-C.
        sigterm: Whether SIGTERM ends the work as Ctrl-C does, with status 130.

    Returns:
        The exit status of the process.
    """
    rank = int(os.environ.get("RANK", 0))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escapes in place of characters that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        with _interruptible([signal.SIGINT, *([signal.SIGTERM] if sigterm else [])]):
            return work()
    except PipelineError as error:
        if rank:
            time.sleep(REPORT_S)  # if rank 0 has the same error, the launcher ends this process meanwhile
        print(f"error: {f'rank {rank}: ' if rank else ''}{error}", file=sys.stderr, flush=True)
        return error.status
    except UnicodeEncodeError as error:  # a path or an argument of other bytes, on its way into a file
        text = error.object[max(0, error.start - 60) : error.end + 20]
        print(f"error: {text!r} is not UTF-8. Rename the file or folder, or write the text in UTF-8", file=sys.stderr)
        return UsageError.status
    except BrokenPipeError:  # `… | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        if not rank:
            print(interrupted, file=sys.stderr, flush=True)
        return 128 + signal.SIGINT


@contextlib.contextmanager
def _interruptible(numbers: Sequence[signal.Signals]) -> Iterator[None]:
    """Signals raise KeyboardInterrupt, also where they hit an import of a compiled module, which may raise another."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()  # which alone may handle signals
    # Those that are ignored stay so, as for a command in the background of a script.
    numbers = [number for number in numbers if is_main and signal.getsignal(number) != signal.SIG_IGN]
    with _received(numbers, interrupt) as received:
        try:
            yield
        except Exception as error:
            if received and not isinstance(error, PipelineError):
                raise KeyboardInterrupt from error
            raise


@contextlib.contextmanager
def _received(numbers: Sequence[signal.Signals], first: Callable[[], None]) -> Iterator[list[int]]:
    """Collect signals: the first is followed by a call of `first`, a second one ends the process at once."""
    received: list[int] = []
    last = -REPEAT_S

    def record(number: int, _frame: Any) -> None:
        nonlocal last
        is_echo, last = time.monotonic() - last < REPEAT_S, time.monotonic()
        if received and not is_echo:
            os._exit(128 + number)
        received.append(number)
        if len(received) == 1:
            first()

    previous = {number: signal.signal(number, record) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def unstarted_processes() -> int:
    """The number of processes that `accelerate launch` was asked for on CPUs but did not start.

    It starts one process and leaves several to mpirun. 1 wherever someone else starts them. The number is on its
    command line, or in its configuration file.
    """
    if "MASTER_ADDR" not in os.environ or os.environ.get("ACCELERATE_USE_CPU") != "True":
        return 1
    if {"RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"} & os.environ.keys():
        return 1
    import psutil
    import yaml
    from huggingface_hub.constants import HF_HOME

    parent = psutil.Process().parent()
    words = [part for word in (parent.cmdline() if parent else []) for part in word.split("=", 1)]
    options: dict[str, Any] = {name.lstrip("-").replace("-", "_"): value for name, value in itertools.pairwise(words)}
    file = Path(options.get("config_file") or Path(HF_HOME) / "accelerate" / "default_config.yaml")
    if file.is_file():  # JSON is YAML too
        options = yaml.safe_load(file.read_text("utf-8")) | options
    return int(options.get("num_processes", 1)) if int(options.get("num_machines", 1)) == 1 else 1


def start_ranks(count: int) -> int:
    """Run this program once per rank; returns the exit status of the first that failed, after stopping the others."""
    launcher = os.getppid()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, *sys.argv]
    ranks: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _frame: Any) -> None:
        for process in ranks:
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)
    for rank in range(count):
        ranks.append(subprocess.Popen(command, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}))
    codes: list[int | None] = [None]
    while None in codes and not any(codes) and os.getppid() == launcher:  # a launcher that was killed cannot signal
        time.sleep(0.05)
        codes = [process.poll() for process in ranks]
    forward(signal.SIGTERM, None)
    deadline = time.monotonic() + GRACE_S
    for process in ranks:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
    status = next((code for code in codes if code), 0)  # the status of the lowest rank that failed
    return status if status >= 0 else 128 - status


def accelerated(precision: str) -> Any:
    """Set up Accelerate: the process group, if any, the device and the precision.

    Args:
        precision: "no", "bf16", or "auto" for bf16 on GPUs that compute in it.
    """
    import torch  # imported here because the process that only starts ranks does not need it
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs, parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    if precision == "auto":
        # Emulated bf16, which older GPUs also offer, is slower than float32.
        fast = not cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if fast else "no"
    # One rank may make a corpus or states of descriptions while the others wait.
    waits = InitProcessGroupKwargs(timeout=datetime.timedelta(hours=24))
    return Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[waits])


def on_main(work: Callable[[], Result]) -> Result:
    """Do work on rank 0 only, and return its result, or raise its PipelineError, on every rank."""
    import torch.distributed as dist

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


def stop_requests() -> contextlib.AbstractContextManager[list[int]]:
    """Collect SIGINT and SIGTERM until the current step is done; a second request stops at once."""
    return _received((signal.SIGINT, signal.SIGTERM), lambda: None)
