"""A sliding window of work: one event loop thread a worker process, items of several shards in flight at once.

A barrier (send a batch, wait for all of it) leaves a continuous-batching server idle while the slowest answer of the
batch comes. Here the next item starts as soon as one ends, across the borders of shards; each shard is committed when
its own last item is done.
"""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

from pipeline.corpus import shards
from pipeline.engine.run_state import Progress, ask_to_stop, asked_to_stop, disk_trouble
from pipeline.engine.stage import Outcome, Run, ShardTask, ShardWorker, Stage, Worker
from pipeline.errors import PipelineError

POLL_S = 0.2
Work = asyncio.Task[list[Outcome]]


class Engine:
    """Runs one stage's shards on an event loop of its own thread."""

    def __init__(self, run: Run, stage: Stage):
        self._run, self._stage = run, stage
        self._progress = Progress(run.folder, stage.name)
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._worker: Worker | ShardWorker
        self._stopped = self._opened = False
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"window-{stage.name}", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        except BaseException:
            self._end_loop()
            raise

    async def _open(self) -> None:
        self._feeding = asyncio.Lock()  # shards are fed one after the other, in the order in which they came
        try:
            self._worker = await self._stage.open(self._run, self._progress)
        except (PipelineError, OSError) as error:
            self._stop(error)
            return
        self._opened = True
        self._room = asyncio.Semaphore(self._worker.ahead)
        self._watch = self._loop.create_task(self._watch_over())

    def submit(self, index: int) -> tuple[threading.Event, concurrent.futures.Future[dict[str, Any] | None]]:
        """Start a shard. The event is set once all its items are under way (the moment to submit the next shard);
        the future gives the sidecar of a shard that was made, or None where none was: current already, or stopped."""
        fed = threading.Event()
        return fed, asyncio.run_coroutine_threadsafe(self._guarded(index, fed), self._loop)

    async def _guarded(self, index: int, fed: threading.Event) -> dict[str, Any] | None:
        task = asyncio.ensure_future(self._shard(index, fed))
        self._tasks.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            return None
        except (PipelineError, OSError) as error:
            self._stop(error)
            return None
        except ExceptionGroup as errors:
            self._stop(_first(errors))
            return None
        finally:
            self._tasks.discard(task)
            fed.set()

    async def _shard(self, index: int, fed: threading.Event) -> dict[str, Any] | None:
        run, stage = self._run, self._stage
        async with asyncio.TaskGroup() as group:  # an item's error ends the feeding of its shard, too
            async with self._feeding:
                if self._stopped:
                    return None
                if index not in run.retry.get(stage.name, ()) and shards.is_current(run.folder, stage, index):
                    return None
                task = await asyncio.to_thread(shards.load, run.folder, stage, index)
                if isinstance(self._worker, ShardWorker):
                    works = [await self._start(group, self._whole(self._worker, task))]
                else:
                    works = [await self._start(group, self._item(self._worker, row, task)) for row in task.rows]
            fed.set()
        outcomes = [outcome for work in works for outcome in work.result()]
        made = await asyncio.to_thread(shards.commit, run.folder, stage, index, run.num_shards, task, outcomes)
        self._progress.counts["shards"] += 1
        return made

    async def _start(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, list[Outcome]]) -> Work:
        """Start a piece of work as soon as there is room for it."""
        try:
            await self._room.acquire()
        except BaseException:
            work.close()
            raise
        started = group.create_task(work)
        started.add_done_callback(self._leave)
        return started

    async def _whole(self, worker: ShardWorker, task: ShardTask) -> list[Outcome]:
        outcomes = await worker.shard(task)
        self._note_failures(outcomes)
        return outcomes

    async def _item(self, worker: Worker, row: dict[str, Any], task: ShardTask) -> list[Outcome]:
        item_id = row["item_id"]
        joined, kept = task.joined.get(item_id, {}), task.kept.get(item_id, {})
        outcomes = [await worker.item(row, joined, kept, task.retrying)]
        self._progress.counts["items"] += 1
        self._note_failures(outcomes)
        return outcomes

    def _note_failures(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            for failure in outcome.failures:
                self._progress.failed(failure.kind, f"{failure.id}: {failure.message}")

    def _leave(self, _work: Work) -> None:
        self._room.release()

    async def _watch_over(self) -> None:
        """Show progress, and obey the word to stop whoever gave it."""
        while True:
            try:
                self._progress.show()
                if asked_to_stop(self._run.folder):
                    self._cancel()
            except OSError as error:
                self._stop(error)
            await asyncio.sleep(POLL_S)

    def _stop(self, error: Exception) -> None:
        """End the run for this error; one of the program itself is raised as it is."""
        trouble = disk_trouble(error, self._run.folder) if isinstance(error, OSError) else error
        if not isinstance(trouble, PipelineError):
            raise trouble
        ask_to_stop(self._run.folder, trouble)
        self._cancel()

    def _cancel(self) -> None:
        self._stopped = True
        for task in self._tasks:
            task.cancel()

    def close(self) -> None:
        """End the worker and the loop; shards still open are dropped, to be made by the next run."""
        try:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._opened:
            self._watch.cancel()
            with contextlib.suppress(OSError):
                self._progress.show()
            await self._worker.close()
        await self._loop.shutdown_default_executor()  # a shard being written is written to its end


def _first(error: Exception) -> Exception:
    """A worker may have groups of its own, so groups nest."""
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


_engines: dict[tuple[str, str], Engine] = {}
_engines_lock = threading.Lock()


def engine(run: Run, stage: Stage) -> Engine:
    """The one engine of this process for this run and stage: Beam may run several worker threads in one process."""
    with _engines_lock:
        key = (run.token, stage.name)
        if key not in _engines:
            _engines[key] = Engine(run, stage)
        return _engines[key]


def close_engines(token: str) -> None:
    """End the engines that a run left in this process. Other worker processes end theirs by ending."""
    with _engines_lock:
        for key in [key for key in _engines if key[0] == token]:
            _engines.pop(key).close()
