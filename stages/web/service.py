"""What the page and the API share: admission of clients, pictures as queries, and queries answered in batches."""

import asyncio
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from PIL import Image
from starlette.requests import Request

from pipeline.card.markdown import public
from pipeline.errors import EnvironmentTrouble, MediaError, UsageError
from pipeline.media.images import Limits as MediaLimits
from stages.retrieval.engine import Hit, Index, Query, check_queries, open_picture
from stages.retrieval.filters import Filters
from stages.web.problems import MAX_QUERIES, Buckets, Limits, Problem

T = TypeVar("T")
REFRESH_S = 1.0  # between two checks whether the index was published anew
PICTURE_PIXELS, DECODED_PICTURES = 25_000_000, 2  # largest uploaded picture, and how many are decoded at once


class Terms(NamedTuple):
    """What queries must have in common to be answered in one call; see `Index.find`."""

    k: int
    hybrid: float | None
    filters: Filters
    offset: int = 0


@dataclass(eq=False)
class Job:
    """One request's queries, and where their answer goes."""

    queries: Sequence[Query]
    terms: Terms
    answer: "asyncio.Future[list[list[Hit]]]"


class Service:
    """Answers queries for as long as its `async with` lasts. While one batch is being answered the next one gathers.

    Attributes:
        finder: The engine, asked by one thread.
        limits: What a client may request.
        trouble: Why nothing can be answered until the server is started again; empty if it can.
        waiting: Queries not yet answered.
    """

    def __init__(self, finder: Index, limits: Limits):
        self.finder, self.limits = finder, limits
        self.trouble, self.waiting = "", 0
        self._buckets, self._decoding = Buckets(limits), asyncio.Semaphore(DECODED_PICTURES)
        self._jobs: asyncio.Queue[Job] = asyncio.Queue()
        self._checked_at = -REFRESH_S

    async def __aenter__(self) -> "Service":
        self._thread = ThreadPoolExecutor(1, "search")
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown()

    def admit(self, request: Request, queries: int = 1) -> None:
        """Raise Problem 429 if the client has exceeded its rate."""
        self._buckets.take(request.client.host if request.client else "", queries)

    async def picture(self, data: bytes) -> Image.Image:
        """A picture query, upright and shrunk. Raises Problem 422 if it is not a picture, or too large."""
        try:
            async with self._decoding:
                return await asyncio.to_thread(open_picture, data, MediaLimits(PICTURE_PIXELS))
        except MediaError as error:
            do = "send a JPEG, PNG, WebP, GIF, TIFF or BMP file"
            raise Problem(422, f"no usable picture: {error}", "a picture", do) from error

    async def find(self, queries: Sequence[Query], terms: Terms) -> list[list[Hit]]:
        """The hits of one request's queries.

        Raises:
            Problem: 503 if too many queries are waiting, 422 if the engine cannot answer.
        """
        try:
            check_queries(queries, terms.k, terms.hybrid, terms.offset)
        except UsageError as error:
            raise _problem(error) from error
        if self.waiting + len(queries) > self.limits.waiting:
            allowed = f"at most {self.limits.waiting:,}"
            raise Problem(503, "more queries than can wait", allowed, "try again in 1 s", {"Retry-After": "1"})
        job = Job(queries, terms, asyncio.get_running_loop().create_future())
        self.waiting += len(queries)
        self._jobs.put_nowait(job)
        try:
            return await job.answer
        finally:
            self.waiting -= len(queries)

    async def _run(self) -> None:
        while True:
            # Take the first job and all that arrived during the last batch, but do not wait for more: that would delay
            # a single query, and measured with 50 clients, batches did not get larger by it.
            jobs = [await self._jobs.get()]
            while sum(len(job.queries) for job in jobs) < MAX_QUERIES and not self._jobs.empty():
                jobs.append(self._jobs.get_nowait())
            await self._refresh()
            groups: dict[Terms, list[Job]] = {}
            for job in jobs:
                groups.setdefault(job.terms, []).append(job)
            for terms, group in groups.items():
                await self._answer(terms, group)

    async def _answer(self, terms: Terms, jobs: list[Job]) -> None:
        queries = [query for job in jobs for query in job.queries]
        outcome: list[list[Hit]] | BaseException
        if self.trouble:
            do = "start the server again"
            outcome = Problem(503, self.trouble, "the index that the server was started with", do)
        else:
            outcome = await self._in_thread(lambda: self.finder.find(queries, **terms._asdict()))
        if isinstance(outcome, UsageError) and len(jobs) > 1:  # one of them is at fault: the others do not fail with it
            for job in jobs:
                await self._answer(terms, [job])
            return
        hits = iter([] if isinstance(outcome, BaseException) else outcome)
        for job in jobs:
            if job.answer.done():  # its client has gone
                continue
            if isinstance(outcome, BaseException):
                job.answer.set_exception(_problem(outcome))
            else:
                job.answer.set_result(list(itertools.islice(hits, len(job.queries))))

    async def _in_thread(self, work: Callable[[], T]) -> T | BaseException:
        """The result of the work, or the exception it raised: a fault of the engine must not end the queue."""
        loop = asyncio.get_running_loop()
        (outcome,) = await asyncio.gather(loop.run_in_executor(self._thread, work), return_exceptions=True)
        return outcome

    async def _refresh(self) -> None:
        """Switch to a newer generation of the index, checked once per REFRESH_S.

        If the index cannot be read at the moment, the next check tries again. If it was made with another model, the
        service stops answering, because its answers would be wrong.
        """
        if time.monotonic() - self._checked_at < REFRESH_S:
            return
        outcome = await self._in_thread(self.finder.refresh)
        self._checked_at = time.monotonic()
        if isinstance(outcome, BaseException):
            print(f"error: the index was not refreshed: {outcome}", file=sys.stderr, flush=True)
        if isinstance(outcome, UsageError):
            self.trouble = public(str(outcome))


def _problem(error: BaseException) -> BaseException:
    """The error as a client may see it. A fault in the program is passed on, and its text stays on the server."""
    if isinstance(error, UsageError):
        return Problem(422, public(str(error)), "a query that this index can answer", "change the query")
    if isinstance(error, EnvironmentTrouble):
        print(f"error: {error}", file=sys.stderr, flush=True)
        return Problem(503, "an index that cannot be read", "one that is whole", "try again later")
    return error
