"""The limits of the search server for a client, and the error for a request that is refused."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException

from pipeline.errors import UsageError

MAX_CLIENTS = 10_000  # buckets kept; the one unused for longest is dropped first
MAX_QUERIES, MAX_RESULTS = 64, 100  # queries per request, results per query


@dataclass(frozen=True)
class Limits:
    """The limits of a server.

    Attributes:
        rate: Queries per second of one client, in the long run.
        body_bytes: Largest body of a request; base64 makes a picture a third larger.
        body_seconds: Time in which a request's body must arrive.
        total_bytes: Bodies of all requests that are not answered yet.
        waiting: Queries in the queue.
    """

    rate: float = 50.0
    body_bytes: int = 12 * 2**20
    body_seconds: float = 30.0
    total_bytes: int = 128 * 2**20
    waiting: int = 1_000

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise UsageError(f"--rate {self.rate} is not possible: give a number above 0")

    @property
    def burst(self) -> int:
        """Queries of one client at once, after a pause: four seconds' worth, and a full request in any case."""
        return max(MAX_QUERIES, int(4 * self.rate))


class Problem(HTTPException):
    """A request that is refused.

    Args:
        status: HTTP status of the answer.
        given: What was given.
        expected: What is expected.
        remedy: What to do about it, as an imperative.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, given: str, expected: str, remedy: str, headers: Mapping[str, str] | None = None):
        super().__init__(status, f"{given}; expected {expected}: {remedy}", headers)
        self.given, self.expected, self.remedy = given, expected, remedy


class Buckets:
    """A token bucket for each client.

    Args:
        limits: The rate at which a bucket fills, and what it holds.
        clock: Seconds, for tests.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic):
        self.rate, self.burst, self.clock = limits.rate, limits.burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, client: str, count: int = 1) -> None:
        """Take tokens of a client. Raises Problem 429, and takes none, if there are too few."""
        now = self.clock()
        tokens, then = self._buckets.pop(client, (float(self.burst), now))
        tokens = min(float(self.burst), tokens + (now - then) * self.rate)
        missing = count - tokens
        self._buckets[client] = (tokens if missing > 0 else tokens - count, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if missing > 0:
            wait = str(math.ceil(missing / self.rate))
            allowed = f"{self.burst} at once and {self.rate:g} a second"
            given = "more queries than one client may ask"
            raise Problem(429, given, allowed, f"try again in {wait} s", {"Retry-After": wait})
