"""A function on several gloo processes at once, and what each of them returned."""

import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist


def run(world, function, *arguments, timeout=120):
    """[function(rank, world, *arguments) for each rank], every one in a process of its own within one group.

    `function` is a module's; it returns tensors in dicts and lists. The processes end with this call, whatever happens.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("forkserver")  # which imports torch once for all the ranks
        context.set_forkserver_preload([function.__module__])
        processes = [
            context.Process(target=_work, args=(folder, rank, world, function, arguments), daemon=True)
            for rank in range(world)
        ]
        try:
            for process in processes:
                process.start()
            deadline = time.monotonic() + timeout
            while any(process.is_alive() for process in processes):
                failed = [process.exitcode for process in processes if process.exitcode]
                assert not failed and time.monotonic() < deadline, f"ranks failed: {failed}, or took {timeout} s"
                time.sleep(0.02)
            assert [process.exitcode for process in processes] == [0] * world
        finally:
            for process in processes:
                process.kill()
                process.join()
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=True) for rank in range(world)]


def alone(function, *arguments):
    """The same in this process, a group of one."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
        try:
            return [function(0, 1, *arguments)]
        finally:
            dist.destroy_process_group()


def _work(folder, rank, world, function, arguments):
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=world)
    torch.save(function(rank, world, *arguments), Path(folder, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()
