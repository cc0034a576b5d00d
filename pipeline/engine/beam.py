"""Beam over shards: the graph, and what runs it.

    shards | Ingest | Captions      one element is the index of a shard; a later stage starts on a shard as soon as
                                    the earlier one has made it

DoFns do no work of their own: they hand shards to the process's window (pipeline.engine.window) and wait.
"""

import collections
import concurrent.futures
import contextlib
import io
import shlex
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
    TypeOptions,
)
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import create_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.corpus import table as corpora
from pipeline.corpus.commit import State
from pipeline.engine import window
from pipeline.engine.progress import Monitor
from pipeline.engine.run_state import asked_to_stop, state_folder
from pipeline.engine.stage import Run, Stage
from pipeline.errors import EnvironmentTrouble, UsageError

LEAD = 1  # shards


class OverShards(beam.DoFn):
    """Runs one stage over shard indices. `process` returns while at most LEAD shards wait for room in the window:
    the window always has a shard to go on with, and an earlier stage works ahead of a later one."""

    def __init__(self, run: Run, stage: Stage):
        self._run, self._stage = run, stage
        self._open: collections.deque[tuple[int, concurrent.futures.Future[dict[str, Any] | None]]]
        self._waiting: collections.deque[threading.Event]

    def start_bundle(self) -> None:
        self._open = collections.deque()
        self._waiting = collections.deque()

    def process(self, index: int) -> Iterable[int]:
        fed, done = window.engine(self._run, self._stage).submit(index)
        self._open.append((index, done))
        self._waiting.append(fed)
        while len(self._waiting) > LEAD:
            self._waiting.popleft().wait()
        while self._open and self._open[0][1].done():
            yield from self._finish()

    def finish_bundle(self) -> Iterable[WindowedValue]:
        while self._open:
            for index in self._finish():
                yield beam.transforms.window.GlobalWindows.windowed_value(index)

    def _finish(self) -> Iterable[int]:
        index, done = self._open.popleft()
        made = done.result()
        if made:
            self._count(made)
        if not asked_to_stop(self._run.folder):
            yield index

    def _count(self, sidecar: dict[str, Any]) -> None:
        name = self._stage.name
        Metrics.counter(name, "shards").inc()
        Metrics.counter(name, "items").inc(sidecar["items"])
        for table, entry in sidecar["tables"].items():
            Metrics.counter(name, f"rows.{table}").inc(entry["rows"])
        for failure in sidecar["failures"]:
            Metrics.counter(name, f"failed.{failure['error']}").inc()


def build(pipeline: beam.Pipeline, run: Run, stages: Sequence[Stage], todo: Sequence[int]) -> None:
    """The Beam graph: shard indices, spread over the workers, through each stage in turn."""
    indices = pipeline | "Shards" >> beam.Create(list(todo), reshuffle=False) | "Spread" >> beam.Reshuffle()
    for stage in stages:
        indices = indices | stage.name.capitalize() >> beam.ParDo(OverShards(run, stage))


def make(
    corpus: Path,
    stages: Sequence[Stage],
    states: dict[str, State],
    num_shards: int,
    options: PipelineOptions,
    cache: str,
    monitor: Monitor,
) -> dict[str, int]:
    """Run the stages on Beam over all shards that are not current, or were finished with failures.

    Returns Beam's counters. Raises the error for which the run was asked to stop; what is finished stays.
    """
    for stage in stages:
        if states[stage.name].open:
            for table in stage.tables:
                (corpus / table / corpora.MANIFEST).unlink(missing_ok=True)
    retry = {name: state.retry for name, state in states.items()}
    run = Run(uuid.uuid4().hex, str(corpus), num_shards, retry, cache)
    todo = sorted(frozenset().union(*(state.open for state in states.values())))
    try:
        with monitor.running(states, num_shards):
            pipeline = beam.Pipeline(_runner(options, corpus), options)
            build(pipeline, run, stages, todo)
            result = pipeline.run()
            result.wait_until_finish()
    finally:
        window.close_engines(run.token)
    if error := asked_to_stop(corpus):
        raise error
    return counters(result.metrics())


def counters(metrics: Any) -> dict[str, int]:
    """Beam's counters by name, for example `captions/rows.descriptions`."""
    return {
        f"{entry.key.metric.namespace}/{entry.key.metric.name}": entry.committed
        for entry in metrics.query()["counters"]
    }


def beam_options(arguments: Sequence[str], say: Callable[[str], None]) -> PipelineOptions:
    """Beam's options, checked. FnApiRunner is the default, and stands for DirectRunner, which would fetch a binary.

    Raises UsageError for a value that Beam refuses, EnvironmentTrouble where no job service listens.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            options = PipelineOptions(list(arguments))
            options.get_all_options(retain_unknown_options=True)
            standard, portable = options.view_as(StandardOptions), options.view_as(PortableOptions)
    except SystemExit:
        said = complaint.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise UsageError(f"Beam refuses an option: {said}") from None
    if standard.runner in (None, "DirectRunner"):
        if standard.runner:
            say("note: DirectRunner stands for Beam's FnApiRunner here: it runs locally and downloads nothing")
        standard.runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    try:
        create_runner(standard.runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise UsageError(f"--runner: got {standard.runner!r}, which Beam cannot make: {error}") from error
    if portable.job_endpoint and portable.job_endpoint != "embed":
        _check_job_service(portable.job_endpoint)
    options.view_as(TypeOptions).pipeline_type_check = False
    return options


def _runner(options: PipelineOptions, corpus: Path) -> str | FnApiRunner:
    """The runner; one with worker processes is made here, so that Ctrl-C at the terminal does not reach those.

    Beam's own would lose them to the signal and then wait for them without end; and they would talk on the terminal.
    """
    direct, runner = options.view_as(DirectOptions), options.view_as(StandardOptions).runner
    if direct.direct_running_mode != "multi_processing" or not runner.endswith("FnApiRunner"):
        return str(runner)
    direct.direct_running_mode = "in_memory"  # which leaves the environment as it is given
    program = f"{shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main"
    log = shlex.quote(str(state_folder(corpus) / "workers.log"))
    environment = SubprocessSDKEnvironment.from_command_string(f"exec setsid {program} 2>> {log}")
    return FnApiRunner(default_environment=environment)


def _check_job_service(endpoint: str) -> None:
    """A job service that is not there would be waited for without end."""
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise EnvironmentTrouble(
            f"--job_endpoint: nothing listens on {endpoint} ({error}): start the job service, then run this again"
        ) from error
