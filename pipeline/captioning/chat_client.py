"""A lean client of OpenAI-compatible chat servers: several servers, retries, and whose fault a failure is.

One aiohttp session per worker process: a request with a photo costs about a fifth of the CPU of the `openai` package,
which matters because the client shares its cores with image decoding.

A failure that ends the connection makes the server suspect. If it still answers a probe, the record is charged with an
attempt. If not, the server is down: its requests wait for it, or go to another one, free of charge until `patience_s`
has passed, which ends the run and not the records.
"""

import asyncio
import base64
import contextlib
import dataclasses
import email.utils
import json
import os
import random
import time
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp

from pipeline.captioning.prompts import Answer, View
from pipeline.errors import EnvironmentTrouble, UsageError

KEY_VARIABLE = "LECCR_MLLM_API_KEY"
KEY_FILE = "mllm.key"

# What the status of a response means. A status in none of these sets is permanent: it fails the record.
TRANSIENT = {408, 409, 425, 429, 500, *range(502, 600)}
OVERLOAD = "http_429"  # not about this record: it costs time but no attempt while others are answered
SUSPECT = {"refused", "timeout", "connection", "http_500", "http_502", "http_503"}  # the server may be down: probe it
RUN_ENDING = {  # no record could succeed
    **dict.fromkeys((401, 403), f"the server rejects the key: set {KEY_VARIABLE}"),
    404: "give --mllm a model that this server serves",
    **dict.fromkeys((*range(300, 400), 405), "give --mllm-url the address of the chat server itself"),
}

PROBE_TIMEOUT_S = 10.0
PROBE_EVERY_S = 1.0
KEEP_ALIVE_S = 4.0  # vLLM closes an idle connection after 5 s: one reused after that would be cut
HOME_ADVANTAGE = 8  # requests: how much busier a server may be and still get the other views of a picture it has seen
MAX_CRASHES = 3  # servers that may die while they work on one record before it is taken for the cause


class RequestFailed(Exception):
    """A request failed for good, or worth another attempt, not before `wait_s` if the server asks for it."""

    def __init__(self, kind: str, message: str, attempts: int = 1, permanent: bool = False, wait_s: float = 0.0):
        super().__init__(message)
        self.kind, self.attempts, self.permanent, self.wait_s = kind, attempts, permanent, wait_s


@dataclasses.dataclass(frozen=True)
class Retries:
    """How long to try: `attempts` per record, `timeout_s` per request.

    The run ends if all servers are down for `patience_s`, or if one asks for a longer pause (Retry-After).
    """

    attempts: int = 8
    timeout_s: float = 300.0
    patience_s: float = 300.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0

    def wait_s(self, attempt: int, asked_s: float) -> float:
        """Jittered exponential backoff after attempt `attempt`, never shorter than the server asked for."""
        ceiling = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(attempt - 1, 64))
        wait_s = random.uniform(ceiling / 2, ceiling)  # noqa: S311 - spreads load, not a secret
        return max(wait_s, asked_s * random.uniform(1, 1.25))  # noqa: S311


@dataclasses.dataclass(eq=False)
class Endpoint:
    """One server: its load, and whether it is up."""

    url: str
    in_flight: int = 0
    up: bool = True
    probing: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)
    probed_s: float = 0.0


@dataclasses.dataclass
class Media:
    """One item's frames as JSON content parts (each ends in a comma), and the server that saw them first."""

    parts: bytes
    home: Endpoint | None = None


def media_of(jpegs: Sequence[bytes]) -> Media:
    """Content parts of frames in order, as data URLs: the server fetches nothing by itself."""
    head, tail = b'{"type":"image_url","image_url":{"url":"data:image/jpeg;base64,', b'"}},'
    return Media(b"".join(part for jpeg in jpegs for part in (head, base64.b64encode(jpeg), tail)))


class ChatClient:
    """Sends chat requests to the least loaded of the servers that are up. Belongs to one event loop.

    Args:
        urls: Addresses of the servers.
        model: Name of the model to ask for.
        window: Most requests in flight.
        retries: How long to try.
        api_key: Key for all servers; empty for none.
    """

    def __init__(self, urls: Sequence[str], model: str, window: int, retries: Retries, api_key: str = ""):
        self._endpoints = [Endpoint(base_url(url)) for url in urls]
        self._head = b'{"model":%s,"messages":[{"role":"user","content":[' % json.dumps(model).encode()
        self._retries = retries
        self._room = asyncio.Semaphore(window)
        self._suspects = asyncio.Lock()
        self._answered, self._trouble = 0, ""
        self._revived = asyncio.Event()
        self._revivals: set[asyncio.Task[None]] = set()
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
        timeout = aiohttp.ClientTimeout(total=retries.timeout_s, sock_connect=10)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=_headers(api_key))

    async def close(self) -> None:
        """End the session and all waiting for servers."""
        for task in self._revivals:
            task.cancel()
        await asyncio.gather(*self._revivals, return_exceptions=True)
        await self._session.close()

    async def ask(self, view: View, prompt: str, media: Media) -> Answer:
        """Ask one view of one item, again after transient failures.

        Args:
            view: Limits of the answer.
            prompt: The question.
            media: The item's frames.

        Returns:
            The answer as the model gave it.

        Raises:
            RequestFailed: This record has failed.
            EnvironmentTrouble: No record could succeed.
        """
        tail = b']}],"max_tokens":%d,"temperature":%s,"seed":0}' % (view.max_tokens, repr(view.temperature).encode())
        text = json.dumps({"type": "text", "text": prompt}).encode()
        body = b"".join((self._head, media.parts, text, tail))
        faults = overloads = stalled = crashes = 0  # stalled: overloads since another record was last answered
        answered = self._answered
        endpoint: Endpoint | None = None
        while True:
            # Records that have seen as many crashes as they may go one at a time: only the cause sees another one.
            turn = self._suspects if crashes == MAX_CRASHES - 1 else contextlib.nullcontext()
            async with turn, self._room:
                endpoint = await self._choose(media, endpoint)
                try:
                    return await self._send(endpoint, body)
                except RequestFailed as error:
                    failure = error
            if failure.permanent:
                failure.attempts = faults + stalled + 1
                raise failure
            if failure.kind in SUSPECT and not await self._is_up(endpoint, failure):
                crashes += failure.kind != "refused"
                if crashes >= MAX_CRASHES:
                    message = f"the server died {crashes} times while it worked on this: {failure}"
                    raise RequestFailed("server_died", message, faults + stalled + crashes)
                continue
            if failure.kind == OVERLOAD:
                overloads += 1
                stalled = stalled + 1 if self._answered == answered else 0
            else:
                faults += 1
            answered, failure.attempts = self._answered, faults + stalled
            if failure.wait_s > self._retries.patience_s:
                raise EnvironmentTrouble(
                    f"{failure}. The server asks for a pause of {failure.wait_s:.0f} s, longer than --patience "
                    f"({self._retries.patience_s:g} s). Finished work is kept: run the same command again later"
                )
            if failure.attempts >= self._retries.attempts:
                raise failure
            await asyncio.sleep(self._retries.wait_s(faults + overloads, failure.wait_s))

    async def _send(self, endpoint: Endpoint, body: bytes) -> Answer:
        endpoint.in_flight += 1
        url = f"{endpoint.url}/chat/completions"
        try:
            async with self._session.post(url, data=body, allow_redirects=False) as response:
                raw = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            refused = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
            kind = "refused" if refused else "timeout" if isinstance(error, TimeoutError) else "connection"
            raise RequestFailed(kind, f"no answer from {endpoint.url}: {type(error).__name__} {error}") from error
        finally:
            endpoint.in_flight -= 1
        status = response.status
        if status == 200:
            answer = parse_answer(raw)
            self._answered += 1
            return answer
        message = f"{endpoint.url} answered {status}: {error_text(raw)}"
        if status in RUN_ENDING:
            raise EnvironmentTrouble(f"{message}: {RUN_ENDING[status]}")
        wait_s = retry_after_s(response.headers.get("Retry-After", ""))
        raise RequestFailed(f"http_{status}", message, permanent=status not in TRANSIENT, wait_s=wait_s)

    async def _choose(self, media: Media, failed: Endpoint | None) -> Endpoint:
        """The server that has this item's picture in its caches, unless it is down or busier; else the least loaded.

        The server that `failed` this request is asked again only if there is no other: one that answers errors at
        once has the least load of all.
        """
        while not any(endpoint.up for endpoint in self._endpoints):
            try:
                async with asyncio.timeout(self._retries.patience_s):
                    await self._revived.wait()
            except TimeoutError:
                raise EnvironmentTrouble(
                    f"no server has answered for {self._retries.patience_s:g} s ({self._trouble}). Finished work is "
                    "kept: start the server, then run the same command again"
                ) from None
        up = [endpoint for endpoint in self._endpoints if endpoint.up]
        candidates = [endpoint for endpoint in up if endpoint is not failed] or up
        best = min(candidates, key=lambda endpoint: endpoint.in_flight)
        home = media.home
        if home is None or home not in candidates or home.in_flight > best.in_flight + HOME_ADVANTAGE:
            media.home = home = best
        return home

    async def _is_up(self, endpoint: Endpoint, failure: Exception) -> bool:
        """Whether the server answers a probe; requests that fail at the same time share it."""
        failed_s = time.monotonic()
        async with endpoint.probing:
            if endpoint.up and endpoint.probed_s < failed_s:
                endpoint.up = await self._answers(endpoint)
                endpoint.probed_s = time.monotonic()
                if not endpoint.up:
                    self._trouble = str(failure)
                    self._revived.clear()
                    self._revivals.add(asyncio.create_task(self._await_revival(endpoint)))
            return endpoint.up

    async def _await_revival(self, endpoint: Endpoint) -> None:
        while not await self._answers(endpoint):  # noqa: ASYNC110 - the server is another process
            await asyncio.sleep(PROBE_EVERY_S)
        endpoint.up = True
        self._revived.set()

    async def _answers(self, endpoint: Endpoint) -> bool:
        """A server that lists its models and does not call itself ill is up, even one that rejects the key."""
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        try:
            for url in (f"{endpoint.url}/models", f"{endpoint.url.removesuffix('/v1')}/health"):
                async with self._session.get(url, timeout=timeout) as response:
                    await response.read()
                    if response.status >= 500:
                        return False
        except (aiohttp.ClientError, OSError):
            return False
        return True


def parse_answer(raw: bytes) -> Answer:
    """The answer in the body of a response; one that is malformed or empty is asked for again."""
    try:
        body = json.loads(raw)
        choice = body["choices"][0]
        finish_reason, text = str(choice.get("finish_reason") or ""), choice["message"]["content"] or ""
        text = text.encode("utf-8", "replace").decode()  # JSON can spell halves of characters, tables cannot
        usage = body.get("usage") or {}
        counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        message = f"the answer is not a chat completion ({type(error).__name__}: {error}): {raw[:200]!r}"
        raise RequestFailed("unparsable", message) from error
    if not text.strip():
        raise RequestFailed("empty", f"the answer has no text (finish_reason {finish_reason!r})")
    prompt_tokens, completion_tokens = (count if isinstance(count, int) else None for count in counts)
    return Answer(text, finish_reason, prompt_tokens, completion_tokens)


def error_text(raw: bytes) -> str:
    """The message in the body of an error response, else the body; at most 300 characters."""
    with contextlib.suppress(ValueError, LookupError, TypeError):
        return str(json.loads(raw)["error"]["message"])[:300]
    return raw[:300].decode("utf-8", "replace").strip() or "(no text)"


def retry_after_s(value: str) -> float:
    """Seconds of a Retry-After header, given as seconds or as an HTTP date; 0 if there is none to honour."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


def base_url(url: str) -> str:
    """`http://host:8000`, `…/v1` and `…/v1/chat/completions` all name the same server: `…/v1`."""
    with contextlib.suppress(ValueError):
        parts = urllib.parse.urlsplit(url)
        if "@" in parts.netloc:
            raise UsageError(f"--mllm-url: the URL holds a password; give the key in {KEY_VARIABLE} instead")
        if parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment):
            url = url.rstrip("/").removesuffix("/chat/completions")
            return url if url.count("/") > 2 else f"{url}/v1"
    raise UsageError(f"--mllm-url: {url!r} is not a URL such as http://127.0.0.1:8000/v1")


def api_key(run_folder: Path) -> str:
    """The key for the servers: that of the server this run has started, else the user's."""
    own = run_folder / KEY_FILE
    return own.read_text() if own.exists() else environment_key()


def environment_key() -> str:
    """The user's key, which no message shows."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"${KEY_VARIABLE} holds characters that an HTTP header cannot carry; use printable ASCII")
    return key


def _headers(key: str) -> dict[str, str]:
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


async def served_model(urls: Sequence[str], name: str, say: Callable[[str], None]) -> str:
    """The model that all available servers serve.

    Args:
        urls: The servers.
        name: The model asked for; empty for the only one served.
        say: Prints a line about each server that does not answer.

    Returns:
        The model's name.

    Raises:
        EnvironmentTrouble: No server answers, or one rejects the key.
        UsageError: The servers do not all serve this model.
    """
    models: dict[str, list[str]] = {}
    silent: list[str] = []
    timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
    async with aiohttp.ClientSession(headers=_headers(environment_key()), timeout=timeout) as session:
        for url in map(base_url, urls):
            try:
                async with session.get(f"{url}/models") as response:
                    raw = await response.read()
                message = f"{url} answered {response.status}: {error_text(raw)}"
                if response.status in (401, 403):
                    raise EnvironmentTrouble(f"{message}: {RUN_ENDING[response.status]}")
                if response.status != 200:
                    silent.append(message)
                    continue
                models[url] = [model["id"] for model in json.loads(raw)["data"]]
            except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError) as error:
                silent.append(f"{url}: {error or type(error).__name__}")
    if not models:
        raise EnvironmentTrouble(
            f"no server answers: {'; '.join(silent)}. Start it, or leave out --mllm-url to have one started, "
            "then run the same command again"
        )
    for trouble in silent:
        say(f"note: a server does not answer, and is not asked until it does: {trouble}")
    common = sorted(set.intersection(*map(set, models.values())))
    if name in common or (not name and len(common) == 1):
        return name or common[0]
    listing = "; ".join(f"{url} serves {', '.join(served)}" for url, served in models.items())
    problem = f"not every server serves {name!r}" if name else "the servers do not serve one model only"
    raise UsageError(f"--mllm: {problem}: name a model that every server serves. {listing}")
