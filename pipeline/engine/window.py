"""A sliding window of work: one event loop per worker process, items of several shards in flight at once.

    shard → each stage in turn: load its parents' rows → an outcome for every item → commit

A barrier (send a batch, wait for all of it) leaves a continuous-batching server idle while the slowest answer of the
batch arrives. Here the next item starts as soon as one ends, across the borders of shards, and each shard is committed
when its own last item is done.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import threading
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.corpus import shards
from pipeline.engine.run_state import as_disk_error, request_stop, run_token, stop_request, write_progress
from pipeline.engine.stage import Outcome, Progress, Row, Run, ShardTask, ShardWorker, Stage, Worker, current_shard
from pipeline.errors import EnvironmentTrouble, PipelineError
from pipeline.storage.files import pause

POLL_S = 0.2


@dataclasses.dataclass
class _OpenStage:
    """A stage at work in this process.

    `feeding` lets one shard after the other start its items, in the order in which they came; `room` bounds the items
    (or whole shards) in work.
    """

    stage: Stage
    worker: Worker | ShardWorker
    progress: Progress
    room: asyncio.Semaphore
    feeding: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)


class Submission(NamedTuple):
    """A shard in work.

    Attributes:
        fed: Is set once all items of its last stage have started, which is the moment to submit the next shard.
        finished: Ends when the shard is committed, or dropped because the run has to stop.
    """

    fed: threading.Event
    finished: concurrent.futures.Future[None]


class Engine:
    """Takes the shards of one run through all its stages, on an event loop in a thread of its own."""

    def __init__(self, run: Run, stages: Sequence[Stage]):
        self._run, self._stages = run, stages
        self._open: list[_OpenStage] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="window", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._open_stages(), self._loop).result()
        except BaseException:
            self.close()
            raise

    def submit(self, index: int) -> Submission:
        """Start a shard."""
        fed = threading.Event()
        return Submission(fed, asyncio.run_coroutine_threadsafe(self._run_shard(index, fed), self._loop))

    async def _run_shard(self, index: int, fed: threading.Event) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        current_shard.set(index)
        try:
            for at_work in self._open:
                is_last = at_work is self._open[-1]
                await self._make_shard(at_work, index, fed if is_last else threading.Event())
        except asyncio.CancelledError:
            pass
        except (PipelineError, OSError) as error:
            self._stop(error)
        except ExceptionGroup as errors:
            self._stop(_first(errors))
        finally:
            self._tasks.discard(task)
            fed.set()

    async def _make_shard(self, at_work: _OpenStage, index: int, fed: threading.Event) -> None:
        """Make one shard of one stage, unless it is current."""
        run, stage = self._run, at_work.stage
        async with asyncio.TaskGroup() as group:  # an item's error also ends the feeding of its shard
            async with at_work.feeding:
                if self._stopped or await asyncio.to_thread(shards.is_current, run, stage, index):
                    return
                task = await asyncio.to_thread(shards.load, run.corpus, stage, index, run.num_shards)
                pieces = [None] if isinstance(at_work.worker, ShardWorker) else task.rows
                works = [await self._start(group, at_work, task, row) for row in pieces]
            fed.set()
        outcomes = [outcome for work in works for outcome in work.result()]
        if await asyncio.to_thread(shards.commit, run, stage, task, outcomes):
            at_work.progress.counts["shards"] += 1
        else:
            await self._make_shard(at_work, index, fed)

    async def _start(
        self, group: asyncio.TaskGroup, at_work: _OpenStage, task: ShardTask, row: Row
    ) -> asyncio.Task[list[Outcome]]:
        """Start an item, or the whole shard if `row` is None, as soon as there is room for it."""
        await at_work.room.acquire()
        started = group.create_task(self._work(at_work, task, row))
        started.add_done_callback(lambda _: at_work.room.release())
        return started

    async def _work(self, at_work: _OpenStage, task: ShardTask, row: Row) -> list[Outcome]:
        worker, progress = at_work.worker, at_work.progress
        if isinstance(worker, ShardWorker):
            outcomes = await worker.shard(task)
        else:
            joined, previous = (of.get(row["item_id"], {}) for of in (task.joined, task.previous))
            outcomes = [await worker.item(row, joined, previous, task.retrying)]
            progress.counts["items"] += 1
        if failed := [outcome for outcome in outcomes if outcome.failures]:
            progress.add_failures(failed)
        return outcomes

    async def _open_stages(self) -> None:
        self._watch = self._loop.create_task(self._watch_run())
        try:
            for stage in self._stages:
                progress = Progress()
                worker = await stage.open(self._run, progress)
                self._open.append(_OpenStage(stage, worker, progress, asyncio.Semaphore(worker.ahead)))
        except (PipelineError, OSError) as error:
            self._stop(error)

    async def _watch_run(self) -> None:
        """Write the progress for the driver, obey its stop request, and end with its run."""
        while True:
            try:
                if await asyncio.to_thread(run_token, self._run.corpus) != self._run.token:
                    self._cancel()
                    # A worker process on another host outlives the run. Close from a thread that is not the loop's own.
                    threading.Thread(target=close_engine, args=(self._run.token,), daemon=True).start()
                    return
                await asyncio.to_thread(self._write_progress)
                if await asyncio.to_thread(stop_request, self._run.corpus):
                    self._cancel()
            except EnvironmentTrouble:  # the store is away. The shards that need it end the run
                pass
            except OSError as error:
                self._stop(error)
            await asyncio.sleep(pause(self._run.corpus, POLL_S))

    def _write_progress(self) -> None:
        write_progress(
            self._run.corpus, self._run.token, {at_work.stage.name: at_work.progress for at_work in self._open}
        )

    def _stop(self, error: Exception) -> None:
        """End the run for this error. An error of the program itself is raised again."""
        reason = as_disk_error(error, self._run.corpus) if isinstance(error, OSError) else error
        if not isinstance(reason, PipelineError):
            raise reason
        request_stop(self._run.corpus, reason, self._run.token)
        self._cancel()

    def _cancel(self) -> None:
        self._stopped = True
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()

    def close(self) -> None:
        """End the workers and the loop. Shards that are not committed are dropped, to be made by the next run."""
        try:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _close(self) -> None:
        self._cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._watch.cancel()
        with contextlib.suppress(OSError):
            self._write_progress()
        for at_work in self._open:
            await at_work.worker.close()
        await self._loop.shutdown_default_executor()  # a shard being written is written to its end


def _first(error: Exception) -> Exception:
    """The first error of a group. Groups nest, because a worker may have groups of its own."""
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


_engines: dict[str, Engine] = {}
_engines_lock = threading.Lock()


def engine(run: Run, stages: Sequence[Stage]) -> Engine:
    """The one engine of this process for this run: Beam may run several bundles at once in the threads of a process."""
    with _engines_lock:
        if run.token not in _engines:
            _engines[run.token] = Engine(run, stages)
        return _engines[run.token]


def close_engine(token: str) -> None:
    """End the engine of a run in this process, if there is one."""
    with _engines_lock:
        if token in _engines:
            _engines.pop(token).close()
