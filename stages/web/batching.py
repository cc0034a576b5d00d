"""Concurrent queries answered together: a queue, and one thread that asks the engine."""

import asyncio
import itertools
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from pipeline.card.markdown import public
from pipeline.errors import EnvironmentTrouble, UsageError
from stages.web.limits import Limits, Problem

if TYPE_CHECKING:
    from stages.retrieval.engine import Finder, Hit

REFRESH_S = 1.0  # between two looks whether the index was published anew


class How(NamedTuple):
    """What queries must have in common to go in one call."""

    k: int
    hybrid: float | None
    corpus: str | None
    split: str | None
    media_type: str | None


@dataclass(eq=False)
class Job:
    """One request's queries, and where their answer goes."""

    queries: Sequence[str | Image.Image]
    how: How
    answer: asyncio.Future = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """Answers queries for as long as its `async with` lasts. While one batch is being answered the next one gathers."""

    def __init__(self, finder: "Finder", limits: Limits):
        self.finder, self.limits = finder, limits
        self.trouble = ""  # why nothing can be answered until the service is started again
        self.waiting = 0  # queries not yet answered
        self._jobs: asyncio.Queue[Job] = asyncio.Queue()
        self._looked = -REFRESH_S

    async def __aenter__(self) -> "Batcher":
        self._thread = ThreadPoolExecutor(1, "search")
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown()

    async def find(self, queries: Sequence[str | Image.Image], how: How) -> "list[list[Hit]]":
        """Raises Problem 503 where too many wait already, 422 where the engine cannot answer."""
        if stopped := self._stopped():
            raise stopped
        if self.waiting + len(queries) > self.limits.waiting:
            wanted = f"at most {self.limits.waiting:,}"
            raise Problem(503, "more queries than can wait", wanted, "try again in 1 s", {"Retry-After": "1"})
        job = Job(queries, how)
        self.waiting += len(queries)
        self._jobs.put_nowait(job)
        try:
            return await job.answer
        finally:
            self.waiting -= len(queries)

    async def _run(self) -> None:
        while True:
            jobs = await self._gathered()
            await self._refresh()
            groups: dict[How, list[Job]] = {}
            for job in jobs:
                groups.setdefault(job.how, []).append(job)
            for how, group in groups.items():
                await self._answer(how, group)

    async def _gathered(self) -> list[Job]:
        """One job at least, and those that came while the last batch was being answered. To wait for more would cost
        a lone query its time, and gain nothing: at 50 clients batches are as large, and answers as many, without."""
        jobs = [await self._jobs.get()]
        while sum(len(job.queries) for job in jobs) < self.limits.batch and not self._jobs.empty():
            jobs.append(self._jobs.get_nowait())
        return jobs

    async def _answer(self, how: How, jobs: list[Job]) -> None:
        queries = [query for job in jobs for query in job.queries]
        outcome: Any = self._stopped()
        if outcome is None:
            outcome = await self._in_thread(lambda: self.finder.find(queries, **how._asdict()))
        if isinstance(outcome, UsageError) and len(jobs) > 1:  # one of them is at fault: the others go on without it
            for job in jobs:
                await self._answer(how, [job])
            return
        found = None if isinstance(outcome, BaseException) else iter(outcome)
        for job in jobs:
            if job.answer.done():  # its client has gone
                continue
            if found is None:
                job.answer.set_exception(_problem(outcome))
            else:
                job.answer.set_result(list(itertools.islice(found, len(job.queries))))

    async def _in_thread(self, work: Any) -> Any:
        """What it returns, or the exception that it raises: a fault of the engine must not end the queue."""
        loop = asyncio.get_running_loop()
        outcomes = await asyncio.gather(loop.run_in_executor(self._thread, work), return_exceptions=True)
        return outcomes[0]

    async def _refresh(self) -> None:
        """Now and then, what was published since. An index that cannot be read at the moment is left for the next
        time; one of another model ends the answers: to go on would give wrong ones."""
        if time.monotonic() - self._looked < REFRESH_S:
            return
        outcome = await self._in_thread(self.finder.refresh)
        self._looked = time.monotonic()
        if isinstance(outcome, BaseException):
            print(f"error: the index was not looked at again: {outcome}", file=sys.stderr, flush=True)
        if isinstance(outcome, UsageError):
            self.trouble = public(str(outcome))

    def _stopped(self) -> Problem | None:
        wanted = "the index that the service was started with"
        return Problem(503, self.trouble, wanted, "start the service again") if self.trouble else None


def _problem(error: BaseException) -> BaseException:
    """What of the engine's errors a client is told: nothing of a fault in the program."""
    if isinstance(error, UsageError):
        return Problem(422, public(str(error)), "a query that this index can answer", "change the query")
    if isinstance(error, EnvironmentTrouble):
        print(f"error: {error}", file=sys.stderr, flush=True)
        return Problem(503, "an index that cannot be read", "one that is whole", "try again later")
    return error
