"""Beam over shards: the graph, and what runs it.

    shard indices | Reshuffle | MakeShards      each shard passes through all stages of the run

The graph is a single ParDo that yields nothing. A table's shards and their sidecars are on disk, so nothing has to come
back through Beam, and runners that return neither outputs nor metrics (Dask's) work like the others.
"""

import concurrent.futures
import contextlib
import importlib
import io
import shlex
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, PortableOptions, StandardOptions
from apache_beam.runners.portability import portable_runner
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineState, create_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipeline.corpus.table import state_folder
from pipeline.engine import window
from pipeline.engine.run_state import last_report, request_stop, run_token, stop_request
from pipeline.engine.stage import Run, Stage
from pipeline.errors import EnvironmentTrouble, Interrupted, UsageError
from pipeline.optional import import_optional
from pipeline.storage.files import local_folder
from pipeline.storage.object_path import wait_for_store

LEAD = 1  # shards
POLL_S, SILENCE_S = 3.0, 180.0  # a store that is away silences workers too, for as long as they wait for it
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
DASK_MODULE = "apache_beam.runners.dask.dask_runner"
DASK_RUNNER = f"{DASK_MODULE}.DaskRunner"


# The bundle's `shards` that this thread has in work. Not on the DoFn: Dask hands one DoFn to several threads at once.
_bundle = threading.local()


class MakeShards(beam.DoFn):
    """Takes shards through all stages of the run.

    `process` returns while at most LEAD shards wait for room in the window: the window always has a shard to continue
    with, and an earlier stage works ahead of a later one.
    """

    def __init__(self, run: Run, stages: Sequence[Stage]):
        self._run, self._stages = run, tuple(stages)

    def start_bundle(self) -> None:
        """Forget what a bundle that broke has left in this thread. A worker may start while the store is away."""
        _bundle.shards = []
        wait_for_store(self._run.corpus)

    def process(self, index: int) -> None:
        """Start a shard."""
        shards = _bundle.shards
        shards.append(window.engine(self._run, self._stages).submit(index))
        if len(shards) > LEAD:
            shards[-1 - LEAD].fed.wait()

    def finish_bundle(self) -> None:
        """Wait for the bundle's shards; raises an error of the program itself."""
        for shard in _bundle.shards:
            shard.finished.result()


def run_stages(run: Run, stages: Sequence[Stage], indices: Sequence[int], options: PipelineOptions) -> None:
    """Run the stages on Beam over shards.

    Args:
        run: The run.
        stages: Each is made from the tables of the ones before.
        indices: The shards that are not current in every stage, or that were finished with failures.
        options: Beam's options, from `beam_options`.

    Raises:
        PipelineError: The run was asked to stop. Finished shards are kept.
    """
    if options.view_as(StandardOptions).runner == DASK_RUNNER:
        dask = options.view_as(importlib.import_module(DASK_MODULE).DaskOptions)
        if not dask.npartitions and not dask.partition_size:
            dask.npartitions = len(indices)  # Dask would put 128 shards into one partition, which one worker makes
    with concurrent.futures.ThreadPoolExecutor(1, "beam") as pool:
        pipeline = pool.submit(_run_pipeline, run, stages, indices, options)
        while not pipeline.done():  # a wait of the main thread without an end can miss a signal that comes as it begins
            concurrent.futures.wait([pipeline], POLL_S)
        pipeline.result()
    if run_token(run.corpus) != run.token:
        raise Interrupted(f"another run has taken {run.corpus} over, as this one was stopped or cut off for too long")
    if error := stop_request(run.corpus):
        raise error


def _run_pipeline(run: Run, stages: Sequence[Stage], indices: Sequence[int], options: PipelineOptions) -> None:
    try:
        pipeline = beam.Pipeline(_runner(options, run.corpus), options)
        create = beam.Create(list(indices), reshuffle=False)  # type: ignore[no-untyped-call]
        pipeline | create | beam.Reshuffle() | beam.ParDo(MakeShards(run, stages))  # type: ignore[no-untyped-call]
        result = pipeline.run()
        if isinstance(result, portable_runner.PipelineResult):
            _end_without_workers(result, run)
        else:
            result.wait_until_finish()  # type: ignore[no-untyped-call]
    finally:
        window.close_engine(run.token)


def _end_without_workers(result: portable_runner.PipelineResult, run: Run) -> None:
    """Wait for a job, and end it if all of its workers fall silent: Beam's own job service would wait for ever."""
    reported, silent_since = last_report(run.corpus, run.token), time.monotonic()
    while not PipelineState.is_terminal(result.state):  # type: ignore[no-untyped-call]
        time.sleep(POLL_S)
        if (report := last_report(run.corpus, run.token)) != reported or not report:
            reported, silent_since = report, time.monotonic()
        elif time.monotonic() - silent_since > SILENCE_S:
            message = f"no worker has reported for {SILENCE_S:.0f} s. Start worker pools, then the same command again"
            request_stop(run.corpus, EnvironmentTrouble(message), run.token)
            result.cancel()
            return
    result.wait_until_finish()  # type: ignore[no-untyped-call]


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's options, checked. FnApiRunner is the default, and replaces DirectRunner, which would fetch a binary.

    Raises:
        UsageError: Beam refuses a value, or the runner cannot be made.
        EnvironmentTrouble: No job service listens.
    """
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            options = PipelineOptions(["--no_pipeline_type_check", *arguments])
            standard, portable = options.view_as(StandardOptions), options.view_as(PortableOptions)
            if standard.runner == "DaskRunner":  # Beam has no short name for it
                standard.runner = DASK_RUNNER
            if standard.runner == DASK_RUNNER:
                import_optional("distributed", "dask", "--runner DaskRunner, here and on the workers,")
                importlib.import_module(DASK_MODULE)  # makes Beam know its options
            options.get_all_options(retain_unknown_options=True)
    except SystemExit:
        complaint = stderr.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise UsageError(f"Beam refuses an option: {complaint}") from None
    if standard.runner in (None, "DirectRunner"):
        standard.runner = LOCAL_RUNNER
    try:
        create_runner(standard.runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise UsageError(f"--runner: Beam cannot create {standard.runner!r}: {error}") from error
    if portable.job_endpoint not in (None, "embed"):  # Beam would wait for a service that is not there without end
        host, _, port = portable.job_endpoint.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, ValueError) as error:
            raise EnvironmentTrouble(
                f"--job_endpoint: nothing listens on {portable.job_endpoint} ({error}). Start the job service first"
            ) from error
    return options


def _runner(options: PipelineOptions, corpus: Path) -> str | FnApiRunner:
    """The runner. One with worker processes is made here, so that Ctrl-C at the terminal does not reach them.

    Beam's own would lose them to the signal and then wait for them without end; and they would write to the terminal.
    """
    direct, runner = options.view_as(DirectOptions), str(options.view_as(StandardOptions).runner)
    if direct.direct_running_mode != "multi_processing" or runner != LOCAL_RUNNER:
        return runner
    direct.direct_running_mode = "in_memory"  # leaves the environment as it is given
    program = f"{shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main"
    log = shlex.quote(str(local_folder(state_folder(corpus)) / "workers.log"))
    environment = SubprocessSDKEnvironment.from_command_string(f"exec setsid {program} 2>> {log}")
    return FnApiRunner(default_environment=environment)
