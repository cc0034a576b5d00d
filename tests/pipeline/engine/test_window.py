"""The window slides across shards, stays within its bounds, and ends at once and cleanly when it must."""

import asyncio
import concurrent.futures
import dataclasses
import errno
import gc
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pyarrow as pa
import pytest

from pipeline.corpus import shards
from pipeline.corpus.table import read_shard, shard_name, write_json
from pipeline.engine import window
from pipeline.engine.run_state import read_progress, request_stop, run_folder, stop_request
from pipeline.engine.stage import Failure, Outcome, Run, Stage
from pipeline.engine.window import Engine
from pipeline.errors import BudgetSpent, EnvironmentTrouble, Interrupted

PLAN = pa.schema([pa.field("item_id", pa.string())])


@dataclasses.dataclass
class FakeStage(Stage):
    """Its items wait for `work` and give one caption each; counts what is under way."""

    work: Callable[[str], Awaitable[None]]
    ahead: int = 4
    opening: Exception | None = None
    name: str = "fake"
    tables: tuple[str, ...] = ("captions",)
    started: dict[str, Any] = dataclasses.field(default_factory=dict)
    under_way: int = 0
    most: int = 0
    opened: int = 0
    closed: int = 0

    parents, records_per_item, fingerprint = ("plan",), 1, "f"

    async def open(self, run, progress):
        self.opened += 1
        await asyncio.sleep(0.05)
        if self.opening:
            raise self.opening
        return self

    async def item(self, row, joined, previous, retrying):
        name = row["item_id"]
        self.started[name] = previous, retrying
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.work(name)
        finally:
            self.under_way -= 1
        if name.endswith("x"):
            return Outcome({}, [Failure(name, "unreadable", "broken")])
        texts = {"caption_id": name, "language": "en", "text": name, "origin": "human", "split": "train"}
        return Outcome({"captions": [{**texts, "item_id": name}]})

    async def close(self):
        assert self.under_way == 0
        self.closed += 1


class FakeShardStage(FakeStage):
    """The same, a whole shard at a time."""

    async def shard(self, task):
        return [await self.item(row, {}, task.previous.get(row["item_id"], {}), task.retrying) for row in task.rows]


@pytest.fixture(autouse=True)
def quiet_loop(caplog):
    """asyncio has nothing to complain about: no task lost, no exception that nobody asked for."""
    with caplog.at_level(logging.WARNING, "asyncio"):
        yield
        gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


@pytest.fixture
def plan(tmp_path):
    def make(num_shards, size, names=lambda shard, number: f"{shard}-{number}"):
        run_folder(tmp_path).mkdir(parents=True)
        write_json(run_folder(tmp_path) / "token.json", "token")
        rows = [{"item_id": names(shard, number)} for shard in range(num_shards) for number in range(size)]
        entries = shards.write_plan(tmp_path, shards.in_parts(rows, size), PLAN)
        write_json(tmp_path / ".state" / "plan" / "plan.json", {"shards": entries})
        return Run("token", tmp_path, num_shards, tmp_path)

    return make


@pytest.fixture
def started():
    """Start engines that are closed at the test's end."""
    engines = []

    def start(run, *stages):
        engines.append(Engine(run, stages))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def with_a_broken_item(shard, number):
    return f"{shard}-{number}" + "x" * (shard == number == 1)


async def at_once(_name):
    pass


async def for_ever(_name):
    await asyncio.Event().wait()


def texts(run, index):
    return read_shard(run.corpus / "captions" / shard_name(index, run.num_shards)).column("text").to_pylist()


def submit(engine, count):
    return [engine.submit(index).finished for index in range(count)]


def wait(futures, timeout=10):
    for future in futures:
        future.result(timeout)


def window_threads():
    return [thread for thread in threading.enumerate() if thread.name == "window"]


def until(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def committed(run):
    return [index for index in range(run.num_shards) if shards.read_sidecar(run.corpus, "fake", index)]


def test_one_slow_item_holds_back_its_own_shard_only(plan, started):
    release = threading.Event()

    async def work(name):
        if name == "0-1":
            await asyncio.to_thread(release.wait, 10)
        await asyncio.sleep(0.01)

    run, stage = plan(4, 5), FakeStage(work, ahead=3)
    futures = submit(started(run, stage), 4)  # all at once, as from several threads of Beam
    wait(futures[1:])
    assert not futures[0].done()
    release.set()
    wait(futures[:1])
    in_order = [[f"{shard}-{number}" for number in range(5)] for shard in range(4)]
    assert [texts(run, index) for index in range(4)] == in_order
    assert list(stage.started) == [name for shard in in_order for name in shard]
    assert stage.most == 3


def test_a_shard_passes_through_all_stages_and_an_earlier_stage_works_ahead(plan, started):
    release = threading.Event()

    async def slow(_name):
        await asyncio.to_thread(release.wait, 10)

    run, later = plan(3, 2), FakeStage(slow, ahead=2, name="later", tables=("descriptions",))
    futures = submit(started(run, FakeStage(at_once), later), 3)
    until(lambda: committed(run) == [0, 1, 2] and len(later.started) == 2)  # the later stage has room for two
    release.set()
    wait(futures)
    assert sorted(later.started) == [f"{shard}-{number}" for shard in range(3) for number in range(2)]
    assert later.most == 2


def test_a_worker_on_whole_shards_has_as_many_in_work_as_it_says(plan, started):
    async def work(_name):
        await asyncio.sleep(0.005)

    run, stage = plan(5, 4, with_a_broken_item), FakeShardStage(work, ahead=2)
    wait(submit(started(run, stage), 5))
    assert stage.most == 2
    assert [texts(run, index) for index in (0, 1)] == [["0-0", "0-1", "0-2", "0-3"], ["1-0", "1-2", "1-3"]]
    failures = [shards.read_sidecar(run.corpus, "fake", index)["failures"] for index in range(5)]
    assert [lines[0]["id"] for lines in failures if lines] == ["1-1x"]


def test_a_shard_that_is_current_is_not_made_again_and_one_with_failures_is_when_asked_for(plan, started):
    run = plan(2, 3, with_a_broken_item)
    wait(submit(started(run, FakeStage(at_once)), 2))
    again = FakeStage(at_once)
    wait(submit(started(run, again), 2))
    assert not again.started
    retry = FakeStage(at_once)
    write_json(run_folder(run.corpus) / "token.json", "next")
    wait(submit(started(dataclasses.replace(run, token="next"), retry), 2))
    assert list(retry.started) == ["1-0", "1-1x", "1-2"]
    assert retry.started["1-0"][0]["captions"][0]["text"] == "1-0"
    assert retry.started["1-1x"] == ({}, True)


def test_an_error_of_the_program_is_raised_as_it_is_and_other_shards_are_made(plan, started):
    async def work(name):
        await asyncio.sleep(0.02)
        if name == "1-2":
            raise ZeroDivisionError("a bug")

    run, stage = plan(3, 6), FakeStage(work, ahead=2)
    futures = submit(started(run, stage), 3)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        futures[1].result(5)
    wait([futures[0], futures[2]])
    assert committed(run) == [0, 2]
    assert not stop_request(run.corpus)
    assert stage.most == 2


def test_an_error_that_ends_the_run_ends_it_before_the_rest_of_its_shard_is_fed(plan, started):
    async def work(name):
        if name == "0-3":
            raise BudgetSpent("too many")
        await asyncio.sleep(0.05)

    run, stage = plan(2, 500), FakeStage(work, ahead=3)
    engine = started(run, stage)
    wait(submit(engine, 2), 2)
    assert committed(run) == []
    assert len(stage.started) <= 6
    assert isinstance(stop_request(run.corpus), BudgetSpent)
    late = engine.submit(1)
    late.finished.result(5)
    assert late.fed.is_set() and committed(run) == []


@pytest.mark.parametrize("trouble", ["full disk", "broken parent", "no server"])
def test_trouble_around_a_shard_ends_the_run(plan, started, monkeypatch, trouble):
    def full(*_):
        raise OSError(errno.ENOSPC, "", "part-00000.arrow")

    run, stage = plan(2, 2), FakeStage(at_once)
    if trouble == "full disk":
        monkeypatch.setattr(shards, "commit", full)
    elif trouble == "broken parent":
        (run.corpus / ".state" / "plan" / "part-00000.arrow").write_bytes(b"broken")
    else:
        stage.opening = EnvironmentTrouble("no server answers")
    wait(submit(started(run, stage), 2))
    assert 0 not in committed(run)
    request = stop_request(run.corpus)
    assert isinstance(request, EnvironmentTrouble)
    assert ("part-00000.arrow" in str(request)) == (stage.opening is None)


def test_a_stop_request_is_obeyed_within_a_second(plan, started):
    run, stage = plan(3, 4), FakeStage(for_ever, ahead=6)
    futures = submit(started(run, stage), 3)
    time.sleep(0.3)
    assert (stage.under_way, [future.done() for future in futures]) == (6, [False] * 3)
    began = time.monotonic()
    request_stop(run.corpus, Interrupted("Ctrl-C"))
    wait(futures)
    assert time.monotonic() - began < 1
    assert stage.under_way == 0 and committed(run) == []


def test_close_during_work_ends_every_future_and_waits_for_a_shard_being_written(plan, monkeypatch):
    writing, written = threading.Event(), threading.Event()

    def slow_commit(*_):
        writing.set()
        time.sleep(0.4)
        written.set()

    async def work(name):
        if name.startswith("1"):
            await for_ever(name)

    monkeypatch.setattr(shards, "commit", slow_commit)
    run, stage = plan(3, 2), FakeStage(work, ahead=3)
    engine = Engine(run, [stage])
    futures = submit(engine, 3)
    assert writing.wait(5)
    engine.close()
    assert written.is_set()
    wait(futures, 1)
    assert (stage.under_way, stage.closed) == (0, 1)
    assert not engine._thread.is_alive()


def test_threads_of_one_process_share_one_engine_which_ends_with_its_run(plan):
    run, stage = plan(8, 5), FakeStage(at_once)

    def work(index):
        engine = window.engine(run, [stage])
        engine.submit(index).finished.result(10)
        return engine

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        engines = list(pool.map(work, range(8)))
    assert len(set(engines)) == 1 and committed(run) == list(range(8))
    window.close_engine("another run's token")
    assert (stage.opened, stage.closed) == (1, 0)
    window.close_engine(run.token)
    assert (stage.opened, stage.closed) == (1, 1)
    assert read_progress(run.corpus)["fake"].counts == {"items": 40, "shards": 8}


def test_an_engine_of_a_worker_process_closes_itself_when_its_run_is_over(plan):
    run, stage = plan(1, 2), FakeStage(for_ever)
    finished = window.engine(run, [stage]).submit(0).finished
    time.sleep(0.1)
    write_json(run_folder(run.corpus) / "token.json", "another")
    finished.result(5)
    until(lambda: not window_threads())
    assert stage.closed == 1
