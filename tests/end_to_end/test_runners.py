"""The same corpus whatever runs the graph: FnApiRunner in all its modes, and the portable job service."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, clean_environment, make_photos, run_python
from tests.end_to_end.test_resume import table_bytes
from tests.http_servers import free_port
from tests.loopback import Loopback

ITEMS = 40


@contextlib.contextmanager
def program(*arguments):
    """A process of Beam's for the time of the block. Its worker pool starts what PATH has as `python`."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [sys.executable, "-m", *map(str, arguments)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=ROOT, env=clean_environment(PATH=path), **quiet)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for(port):
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """make(name, *Beam's options) → the bytes of the tables, made against one server."""
    folder = tmp_path_factory.mktemp("runners")
    make_photos(folder / "photos", ITEMS)
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with Loopback(latency_s=0.02) as server:

        def make(name, *options):
            arguments = ("--stage", "captions", "--input", folder / "photos", "--output", folder / name)
            arguments += ("--mllm-url", server.url, "--shard-size", 6)
            done = run_python("beam_runner.py", *arguments, *options)
            assert done.returncode == 0, done.stderr[-3000:]
            return table_bytes(folder / name)

        yield make


@pytest.fixture(scope="module")
def reference(made):
    return made("reference")


MODES = {
    "threads": ("--direct_num_workers", "2", "--direct_running_mode", "multi_threading"),
    "processes": ("--direct_num_workers", "2", "--direct_running_mode", "multi_processing"),
}


@pytest.mark.parametrize("mode", [pytest.param("threads", marks=pytest.mark.torture), "processes"])
def test_modes_of_fn_api_runner(made, reference, mode):
    assert made(mode, *MODES[mode]) == reference


@pytest.mark.parametrize("environment", ["LOOPBACK", pytest.param("EXTERNAL", marks=pytest.mark.torture)])
def test_portable_job_service(made, reference, environment):
    jobs, workers = free_port(), free_port()
    options = ["--runner", "PortableRunner", "--job_endpoint", f"127.0.0.1:{jobs}", "--environment_type", environment]
    with contextlib.ExitStack() as stack:
        stack.enter_context(program("apache_beam.runners.portability.local_job_service_main", "--port", jobs))
        wait_for(jobs)
        if environment == "EXTERNAL":
            stack.enter_context(program("apache_beam.runners.worker.worker_pool_main", "--service_port", workers))
            wait_for(workers)
            options += ["--environment_config", f"127.0.0.1:{workers}"]
        assert made(environment, *options) == reference


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="Dask is not installed: leccr[dask]")
def test_dask_with_two_workers(made, reference):
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        stack.enter_context(program("distributed.cli.dask_scheduler", "--port", port, "--no-dashboard"))
        wait_for(port)
        for _ in range(2):
            stack.enter_context(program("distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"))
        assert made("dask", "--runner", "DaskRunner", "--dask_client_address", address) == reference
