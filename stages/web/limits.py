"""What one client may ask of the search server, and the errors that say so."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from PIL import Image
from starlette.requests import ClientDisconnect, Request

from pipeline.errors import MediaError, UsageError
from pipeline.media.images import Limits as MediaLimits
from stages.retrieval.engine import open_picture

MAX_CLIENTS = 10_000  # whose buckets are kept; the one unheard of longest goes first


@dataclass(frozen=True)
class Limits:
    """Every limit of the server.

    Attributes:
        queries: Of a request.
        results: Of a query.
        body_bytes: Of a request; base64 makes a picture a third larger.
        body_seconds: In which a request's body must arrive.
        picture_bytes: Of an uploaded picture.
        picture_pixels: Of an uploaded picture.
        pictures: Decoded at once.
        rate: Queries a second of one client, in the long run.
        burst: Queries of one client at once, after a pause.
        waiting: Queries in the queue.
        batch: Queries of one call of the engine; one request's stay together.
    """

    queries: int = 64
    results: int = 100
    body_bytes: int = 12 * 2**20
    body_seconds: float = 30.0
    picture_bytes: int = 8 * 2**20
    picture_pixels: int = 25_000_000
    pictures: int = 2
    rate: float = 50.0
    burst: int = 200
    waiting: int = 1_000
    batch: int = 64

    @classmethod
    def of_rate(cls, rate: float) -> "Limits":
        """The limits with `rate` queries a second of one client, and four seconds' worth of them at once."""
        if not 0 < rate < math.inf:
            raise UsageError(f"--rate: got {rate}, expected a number above 0")
        return cls(rate=rate, burst=max(cls.queries, int(4 * rate)))  # so that a full request can pass


class Problem(Exception):
    """A request that is refused.

    Args:
        status: HTTP status of the answer.
        got: What was given.
        wanted: What is expected.
        do: What to do about it.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, got: str, wanted: str, do: str, headers: Mapping[str, str] = MappingProxyType({})):
        super().__init__(f"got {got}, expected {wanted}: {do}")
        self.status, self.got, self.wanted, self.do, self.headers = status, got, wanted, do, headers

    def body(self) -> dict[str, dict[str, str]]:
        """The answer's JSON."""
        return {"error": {"got": self.got, "wanted": self.wanted, "do": self.do}}


class Buckets:
    """A token bucket for each client.

    Args:
        rate: Queries a second in the long run.
        burst: Queries at once.
        clock: Seconds, for tests.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic):
        self.rate, self.burst, self.clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, client: str, count: int = 1) -> None:
        """Take tokens of a client. Raises Problem 429, and takes none, where it has fewer."""
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
            got = "more queries than one client may ask"
            raise Problem(429, got, allowed, f"try again in {wait} s", {"Retry-After": wait})


def client_of(request: Request) -> str:
    """Whose bucket: the client's address."""
    return request.client.host if request.client else ""


async def read_body(request: Request, content_type: str, limits: Limits) -> bytes:
    """Read a request's body.

    Raises:
        Problem: 415 for another content type, 413 for a body that is too large, 408 for one that is too slow.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != content_type:  # JSON cannot be sent by a page of another site without asking first
        raise Problem(415, f"content type {given[:100]!r}", content_type, f"send {content_type}")
    allowed = f"at most {limits.body_bytes:,} bytes"
    too_large = Problem(413, "a larger body", allowed, "send fewer queries, or a smaller picture")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body_bytes:
                    raise too_large
    except TimeoutError as error:
        raise Problem(408, "half a body", f"all of it in {limits.body_seconds:g} s", "send it again") from error
    except ClientDisconnect as error:
        raise Problem(400, "half a body", "all of it", "send it again") from error
    return bytes(body)


def decode_picture(data: bytes, limits: Limits) -> Image.Image:
    """A picture query, upright and shrunk. Raises Problem 422 where it is not a picture, or too large."""
    try:
        return open_picture(data, MediaLimits(limits.picture_pixels, limits.picture_bytes))
    except MediaError as error:
        do = "send a JPEG, PNG, WebP, GIF, TIFF or BMP file"
        raise Problem(422, f"no usable picture: {error}", "a picture", do) from error
