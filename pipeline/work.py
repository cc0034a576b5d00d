"""Beam over shards: settings checked, shards planned, made by the workers, the tables closed.

    shards | Ingest | Captions      one element is the index of a shard; a later stage starts on a shard as soon as
                                    the earlier one has made it

DoFns do no work of their own: they hand shards to the process's window (pipeline.window) and wait.
"""

import collections
import concurrent.futures
import dataclasses
import importlib.metadata
import platform
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, TypeOptions
from apache_beam.utils.windowed_value import WindowedValue

from pipeline import corpus as corpora
from pipeline import shards, window
from pipeline.errors import UsageError
from pipeline.identity import differences
from pipeline.progress import Monitor
from pipeline.runstate import asked_to_stop, state_folder
from pipeline.window import Run, Stage

TOOLS = ("apache-beam", "pyarrow", "pillow", "av")


class OverShards(beam.DoFn):
    """Runs one stage over shard indices. `process` returns as soon as the window can take the next shard."""

    def __init__(self, run: Run, stage: Stage):
        self._run, self._stage = run, stage
        self._open: collections.deque[tuple[int, concurrent.futures.Future[dict[str, Any] | None]]]

    def start_bundle(self) -> None:
        self._open = collections.deque()

    def process(self, index: int) -> Iterable[int]:
        fed, done = window.engine(self._run, self._stage).submit(index)
        self._open.append((index, done))
        fed.wait()
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


@dataclasses.dataclass(frozen=True)
class State:
    """Where one stage of a corpus stands before a run: shards to make, shards finished with failures."""

    todo: frozenset[int]
    retry: frozenset[int]

    @property
    def open(self) -> frozenset[int]:
        return self.todo | self.retry


def check_settings(corpus: Path, stage: Stage) -> None:
    """Refuse to mix: a stage's settings must be those with which its tables here were begun."""
    stored = stored_settings(corpus, stage)
    differing = [
        f"{name} is {_shown(theirs)} there and {_shown(ours)} now"
        for name, theirs, ours in differences(stored or stage.settings(), stage.settings())
    ]
    if differing:
        raise UsageError(
            f"{corpus} was begun with other settings of stage {stage.name}: {'; '.join(differing)}: "
            "give the same settings, another --output, or --overwrite to make it again"
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def stored_settings(corpus: Path, stage: Stage | type[Stage]) -> dict[str, Any] | None:
    """The settings with which a stage's tables were begun, or None where it has none."""
    settings = corpora.read_json(state_folder(corpus) / stage.name / "settings.json")
    if settings is None and corpora.complete(corpus, stage.tables[0]):
        settings = corpora.Table(corpus, stage.tables[0]).manifest["settings"]
    return settings


def discard(corpus: Path, stage: Stage) -> None:
    """Remove a stage's tables and state; the answers in the cache stay."""
    for table in stage.tables:
        (corpus / table / corpora.MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(corpus / table, ignore_errors=True)
    shutil.rmtree(state_folder(corpus) / stage.name, ignore_errors=True)
    if stage.parent == shards.PLAN:
        shutil.rmtree(state_folder(corpus) / shards.PLAN, ignore_errors=True)


def begin(corpus: Path, stages: Sequence[Stage], num_shards: int) -> dict[str, State]:
    """Note the stages' settings, before their first shard, and tell where each stage stands."""
    for stage in stages:
        folder = state_folder(corpus) / stage.name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "settings.json").exists():
            corpora.write_json(folder / "settings.json", stage.settings())
        if all(corpora.complete(corpus, table) for table in stage.tables):
            shards.restore_sidecars(corpus, stage.name, stage.tables)
    return {stage.name: _state_of(corpus, stage, num_shards) for stage in stages}


def _state_of(corpus: Path, stage: Stage, num_shards: int) -> State:
    todo, retry = set(), set()
    for index in range(num_shards):
        if not shards.is_current(corpus, stage.name, stage.fingerprint, stage.parent, index):
            todo.add(index)
        elif (shards.read_sidecar(corpus, stage.name, index) or {})["failures"]:
            retry.add(index)
    return State(frozenset(todo), frozenset(retry))


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
            pipeline = beam.Pipeline(options=options)
            build(pipeline, run, stages, todo)
            result = pipeline.run()
            result.wait_until_finish()
    finally:
        window.close_engines(run.token)
    if error := asked_to_stop(corpus):
        raise error
    return counters(result.metrics())


def close(corpus: Path, stage: Stage, num_shards: int) -> None:
    """Write the manifests of a stage whose shards are all made; nothing where they are there already."""
    sidecars = [shards.read_sidecar(corpus, stage.name, index) for index in range(num_shards)]
    failures = [failure for sidecar in sidecars for failure in sidecar["failures"]]
    parents = () if stage.parent == shards.PLAN else (stage.parent,)
    for table in reversed(stage.tables):  # the first table is the stage's mark of completeness
        entries = [
            {**sidecar["tables"][table], "parent": sidecar["parent"], "items": sidecar["items"]} for sidecar in sidecars
        ]
        corpora.write_manifest(
            corpus,
            table,
            stage=stage.name,
            settings=stage.settings(),
            fingerprint=stage.fingerprint,
            tools=tools(),
            parents=parents,
            shards=entries,
            failures=failures if table == stage.tables[0] else [],
        )


def tools() -> dict[str, str]:
    """Versions of what decides a table's bytes."""
    found = {"python": platform.python_version()}
    for package in TOOLS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def counters(metrics: Any) -> dict[str, int]:
    """Beam's counters by name, for example `captions/rows.descriptions`."""
    return {
        f"{entry.key.metric.namespace}/{entry.key.metric.name}": entry.committed
        for entry in metrics.query()["counters"]
    }


def beam_options(arguments: Sequence[str], say: Callable[[str], None]) -> PipelineOptions:
    """Beam's options. Without a runner, and for DirectRunner (which would download a binary), FnApiRunner runs."""
    options = PipelineOptions(list(arguments))
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        if standard.runner:
            say("note: DirectRunner stands for Beam's FnApiRunner here: it runs locally and downloads nothing")
        standard.runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    options.view_as(TypeOptions).pipeline_type_check = False
    return options
