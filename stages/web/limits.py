"""What one client may ask of the search service, and the errors that say so."""

import asyncio
import base64
import binascii
import io
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from PIL import Image
from starlette.requests import ClientDisconnect, Request

from pipeline.errors import MediaError, UsageError
from pipeline.media.images import Limits as MediaLimits
from pipeline.media.images import frames

MOST_CLIENTS = 10_000  # whose buckets are kept; the one unheard of longest goes first
QUERY_PIXELS = 1024 * 1024  # that a picture is shrunk to before it is encoded


@dataclass(frozen=True)
class Limits:
    """Every limit of the service. Raises UsageError where one is not above 0, or they contradict each other."""

    characters: int = 2_000  # of a text
    queries: int = 64  # of a request
    results: int = 100  # of a query
    body_bytes: int = 12 * 2**20  # of a request: base64 makes a picture a third larger
    body_seconds: float = 30.0  # in which a request's body must be here
    picture_bytes: int = 8 * 2**20
    picture_pixels: int = 25_000_000
    pictures: int = 2  # decoded at once
    rate: float = 50.0  # queries a second of one client, in the long run
    burst: int = 200  # queries of one client at once, after a pause
    waiting: int = 1_000  # queries in the queue
    batch: int = 64  # queries of one call of the engine; one request's stay together

    def __post_init__(self) -> None:
        for field in fields(self):
            if not (math.isfinite(value := getattr(self, field.name)) and value > 0):
                raise UsageError(f"limit {field.name}: got {value}, wanted a number above 0")
        if self.queries > min(self.burst, self.waiting):
            raise UsageError(
                f"limit queries: got {self.queries}, wanted at most the burst ({self.burst}) and what may wait "
                f"({self.waiting}): a full request would never pass"
            )


class Problem(Exception):
    """A request that is refused: the answer's status, and what was got, wanted, and to be done."""

    def __init__(self, status: int, got: str, wanted: str, do: str, headers: Mapping[str, str] = MappingProxyType({})):
        super().__init__(f"got {got}, wanted {wanted}: {do}")
        self.status, self.got, self.wanted, self.do, self.headers = status, got, wanted, do, headers

    def told(self) -> dict[str, dict[str, str]]:
        return {"error": {"got": self.got, "wanted": self.wanted, "do": self.do}}


class Buckets:
    """A token bucket a client: `burst` queries at once, `rate` a second in the long run."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic):
        self.rate, self.burst, self.clock = rate, burst, clock
        self._kept: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, client: str, count: int) -> None:
        """`count` tokens of the client's. Raises Problem 429, and takes none, where it has fewer."""
        now = self.clock()
        tokens, then = self._kept.pop(client, (float(self.burst), now))
        tokens = min(float(self.burst), tokens + (now - then) * self.rate)
        missing = count - tokens
        self._kept[client] = (tokens if missing > 0 else tokens - count, now)
        if len(self._kept) > MOST_CLIENTS:
            self._kept.popitem(last=False)
        if missing > 0:
            wait = math.ceil(missing / self.rate)
            raise Problem(
                429,
                "more queries than one client may ask",
                f"{self.burst} at once and {self.rate:g} a second",
                f"try again in {wait} s",
                {"Retry-After": str(wait)},
            )


def client_of(request: Request) -> str:
    """Whose bucket: the address, of IPv6 its network of 64 bits, which one user has for himself."""
    host = request.client.host if request.client else ""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else host


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body. Raises Problem 415 for what is no JSON, 413 for what is too large, 408 for what is too slow."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which no page of another site can send without being asked for leave
        raise Problem(415, f"content type {kind[:100]!r}", "application/json", "send JSON")
    large = Problem(
        413, "a larger body", f"at most {limits.body_bytes:,} bytes", "send fewer queries, or a smaller picture"
    )
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body_bytes:
                    raise large
    except TimeoutError as error:
        raise Problem(408, "half a body", f"all of it in {limits.body_seconds:g} s", "send it again") from error
    except ClientDisconnect as error:
        raise Problem(400, "half a body", "all of it", "send it again") from error
    return bytes(body)


def decoded(picture: str, limits: Limits) -> Image.Image:
    """A picture in base64, upright and shrunk. Raises Problem 422 for what is none, or too large."""
    do = "send a JPEG, PNG, WebP, GIF, TIFF or BMP file in base64"
    try:
        data = base64.b64decode(picture, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(422, "a picture that is no base64", "a picture file in base64", do) from error
    try:
        own = MediaLimits(limits.picture_pixels, limits.picture_bytes)
        return frames(io.BytesIO(data), "image", max_pixels=QUERY_PIXELS, count=1, limits=own)[0].image
    except MediaError as error:
        raise Problem(422, f"no usable picture: {error}", "a picture", do) from error
