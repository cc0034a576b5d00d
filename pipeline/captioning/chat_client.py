"""A lean client of OpenAI-compatible chat servers: several servers, retries, and whose fault a failure is.

One aiohttp session per worker process: a request with a photo costs about a fifth of the CPU of the `openai` package,
which matters because the client shares its cores with image decoding.

A failure that ends the connection makes the server suspect. If it still answers a probe, the record is charged with an
attempt. If not, the server is down: its requests wait for it, or go to another one, free of charge until `patience_s`
has passed, which ends the run and not the records.

Every request has an id of its own, in `X-Request-Id`. vLLM repeats it in the answer's `id`, so the answer to another
request is noticed. Connections are kept alive only for servers that do. If a server does not repeat the id, or has once
mixed up answers, each request gets its own connection.
"""

import asyncio
import base64
import contextlib
import dataclasses
import email.utils
import itertools
import json
import random
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any

import aiohttp

from pipeline.captioning.cleaning import ending
from pipeline.captioning.prompts import Answer, View
from pipeline.errors import EnvironmentTrouble, printable

KEY_VARIABLE = "LECCR_MLLM_API_KEY"

# What the status of a response means. A status in none of these sets is permanent: it fails the record.
TRANSIENT = {408, 409, 425, 429, 500, *range(502, 600)}
OVERLOAD = "http_429"  # not about this record: it costs time but no attempt while others are answered
SUSPECT = {"refused", "timeout", "connection", "http_500", "http_502", "http_503"}  # the server may be down: probe it
RUN_ENDING = {  # statuses with which no record could succeed
    **dict.fromkeys((401, 403), f"the server rejects the key: set {KEY_VARIABLE}"),
    404: "give --mllm a model that this server serves, and --mllm-url its address up to and with /v1",
    **dict.fromkeys((*range(300, 400), 405), "give --mllm-url the address of the chat server itself"),
}
NO_BACKEND = (502, 503, 504)  # what a gateway answers while nothing runs behind it

PROBE_TIMEOUT_S = 10.0
PROBE_EVERY_S = 1.0
MAX_RESPONSE_BYTES = 1 << 22
KEEP_ALIVE_S = 4.0  # vLLM closes an idle connection after 5 s: one reused after that would be cut
HOME_ADVANTAGE = 8  # requests: how much busier a server may be and still get the other views of a picture it has seen
MAX_CRASHES = 3  # servers that may die while they work on one record before it is taken for the cause

ID_PREFIX = "leccr-"  # of request ids: an answer with such an id, but not that of its request, is another request's
LIMIT, NEW_LIMIT = "max_tokens", "max_completion_tokens"  # some servers take only the second
ADAPTABLE = {LIMIT, "seed"}  # parameters that are renamed, or left out, for a server that refuses them
_UNSUPPORTED = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|extra.(?:forbidden|inputs)|not permitted|unexpected|cannot find|"
    r"deprecated",
    re.IGNORECASE,
)
REMEDY = (
    """Turn thinking off, for example --extra-body '{"chat_template_kwargs": {"enable_thinking": false}}', or allow """
    """more tokens, --extra-body '{"max_tokens": 2000}'"""
)
RETRIED_ENDINGS = {"error", "abort", "aborted", "cancelled"}  # of an answer without text that may come next time


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


@dataclasses.dataclass(frozen=True)
class Extras:
    """What every request has besides the question: a system prompt, and a JSON object of parameters.

    A parameter that is null is left out of the request.
    """

    system_prompt: str = ""
    extra_body: str = ""

    def settings(self) -> dict[str, Any]:
        """What was given, to be recorded wherever an answer's origin is; empty if nothing was."""
        body = {"extra_body": json.loads(self.extra_body)} if self.extra_body else {}
        return body | ({"system_prompt": self.system_prompt} if self.system_prompt else {})


@dataclasses.dataclass(eq=False)
class Endpoint:
    """One server: its load, whether it is up, and its ways.

    `echoes` says whether it repeats request ids; None if that is not known yet. `refused` are the ADAPTABLE parameters
    that it does not take.
    """

    url: str
    in_flight: int = 0
    up: bool = True
    echoes: bool | None = None
    refused: set[str] = dataclasses.field(default_factory=set)
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
        urls: Addresses of the servers, up to and with `/v1`. Without any, every request fails at once.
        model: Name of the model to ask for.
        window: Most requests in flight.
        retries: How long to try.
        api_key: Key for all servers; empty for none.
        extras: What every request has besides the question.
    """

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        window: int,
        retries: Retries,
        api_key: str = "",
        extras: Extras = Extras(),
    ):
        self._endpoints = [Endpoint(url) for url in urls]
        system = {"role": "system", "content": extras.system_prompt}
        messages = f"{json.dumps(system)}," if extras.system_prompt else ""
        self._head = f'{{"messages":[{messages}{{"role":"user","content":['.encode()
        self._model, self._extra = model, extras.settings().get("extra_body", {})
        self._name, self._numbers = ID_PREFIX + secrets.token_hex(8), itertools.count()
        self._retries = retries
        self._room = asyncio.Semaphore(window)
        self._suspects = asyncio.Lock()
        self._answered, self._trouble = 0, ""
        self._revived = asyncio.Event()
        self._revivals: set[asyncio.Task[None]] = set()
        timeout = aiohttp.ClientTimeout(total=retries.timeout_s, sock_connect=10)
        self._keeping, self._closing = (
            aiohttp.ClientSession(connector=connector, timeout=timeout, headers=request_headers(api_key))
            for connector in (
                aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
                aiohttp.TCPConnector(limit=0, force_close=True),
            )
        )

    async def close(self) -> None:
        """End the session and all waiting for servers."""
        for task in self._revivals:
            task.cancel()
        await asyncio.gather(*self._revivals, return_exceptions=True)
        await self._keeping.close()
        await self._closing.close()

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
        if not self._endpoints:
            raise RequestFailed("unanswered", "no result answers this: export what is missing, or give --mllm-url")
        faults = overloads = stalled = crashes = 0  # stalled: overloads since another record was last answered
        answered = self._answered
        endpoint: Endpoint | None = None
        while True:
            # Records that have seen as many crashes as they may go one at a time: only the cause sees another one.
            turn = self._suspects if crashes == MAX_CRASHES - 1 else contextlib.nullcontext()
            async with turn, self._room:
                endpoint = await self._choose(media, endpoint)
                try:
                    return await self._send(endpoint, view, prompt, media)
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

    async def _send(self, endpoint: Endpoint, view: View, prompt: str, media: Media) -> Answer:
        """One attempt, made again at once if only the connection or the name of a parameter was wrong."""
        keep = bool(endpoint.echoes)
        while True:
            request_id = f"{self._name}-{next(self._numbers)}"
            parameters = self._parameters(endpoint, view)
            data = self._body(prompt, media, parameters)
            status, wait_s, raw = await self._post(endpoint, request_id, data, keep)
            body = decode(raw)
            answer_id = str(body.get("id") or "") if isinstance(body, dict) else ""
            own = answer_id.endswith(request_id)
            if keep and not own and status not in TRANSIENT:  # perhaps meant for the request before on this connection
                if answer_id:
                    endpoint.echoes = False
                keep = False
                continue
            if status == 200:
                break
            message = f"{endpoint.url} answered {status}: {error_text(raw)}"
            if status in (400, 422) and _UNSUPPORTED.search(message):
                names = {name for name in parameters if re.search(rf"\b{name}\b", message)} - self._extra.keys()
                if adaptable := names & ADAPTABLE:
                    endpoint.refused |= adaptable
                    continue
                if "temperature" in names:
                    raise EnvironmentTrouble(f"""{message}. To leave it out: --extra-body '{{"temperature": null}}'""")
            if status in RUN_ENDING:
                raise EnvironmentTrouble(f"{message}: {RUN_ENDING[status]}")
            raise RequestFailed(f"http_{status}", message, permanent=status not in TRANSIENT, wait_s=wait_s)
        if not own and ID_PREFIX in answer_id:
            raise RequestFailed("mixed_up", f"{endpoint.url} sent the answer to another request")
        limit = NEW_LIMIT if NEW_LIMIT in parameters else LIMIT
        answer = parse_answer(raw, f"{limit} {parameters.get(limit)}")
        if own and endpoint.echoes is None:
            endpoint.echoes = True
        self._answered += 1
        return answer

    def request(self, view: View, prompt: str, media: Media) -> bytes:
        """The body of a request, for a server whose ways are not known."""
        return self._body(prompt, media, self._parameters(Endpoint(""), view))

    def _body(self, prompt: str, media: Media, parameters: dict[str, Any]) -> bytes:
        text = json.dumps({"type": "text", "text": prompt}).encode()
        tail = b"]}]," + json.dumps({"model": self._model, **parameters})[1:].encode()
        return b"".join((self._head, media.parts, text, tail))

    def _parameters(self, endpoint: Endpoint, view: View) -> dict[str, Any]:
        parameters = {LIMIT: view.max_tokens, "temperature": view.temperature, "seed": 0}
        if LIMIT in endpoint.refused or self._extra.get(NEW_LIMIT):
            parameters[NEW_LIMIT] = parameters.pop(LIMIT)
        if "seed" in endpoint.refused:
            del parameters["seed"]
        return {name: value for name, value in (parameters | self._extra).items() if value is not None}

    async def _post(self, endpoint: Endpoint, request_id: str, data: bytes, keep: bool) -> tuple[int, float, bytes]:
        """Status, seconds to wait and body of the response; on a connection of its own unless `keep`."""
        endpoint.in_flight += 1
        url, headers = f"{endpoint.url}/chat/completions", {"X-Request-Id": request_id}
        session = self._keeping if keep else self._closing
        try:
            async with session.post(url, data=data, headers=headers, allow_redirects=False) as response:
                wait_s = retry_after_s(response.headers.get("Retry-After", ""))
                return response.status, wait_s, await read_body(response)
        except (aiohttp.ClientError, OSError) as error:
            refused = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
            kind = "refused" if refused else "timeout" if isinstance(error, TimeoutError) else "connection"
            message = f"no answer from {endpoint.url}: {type(error).__name__} {printable(str(error))}"
            raise RequestFailed(kind, message) from error
        finally:
            endpoint.in_flight -= 1

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
        """A server that does not call itself ill is up, also if it rejects the key or lists no models."""
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        try:
            for url in (f"{endpoint.url}/models", f"{endpoint.url.removesuffix('/v1')}/health"):
                async with self._closing.get(url, timeout=timeout) as response:
                    await read_body(response)
                    if response.status in NO_BACKEND or (response.status >= 500 and url.endswith("/health")):
                        return False
        except (aiohttp.ClientError, OSError):
            return False
        return True


def request_headers(key: str) -> dict[str, str]:
    """Headers of every request; `key` is empty for none."""
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """The body of a response; what comes after MAX_RESPONSE_BYTES is not read."""
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > MAX_RESPONSE_BYTES:
            break
    return bytes(raw)


def decode(raw: bytes) -> Any:
    """The JSON value in the body of a response; None if it is not JSON."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(raw)
    return None


def error_text(raw: bytes) -> str:
    """The message in the body of an error response, else the body; at most 300 characters, printable, on one line."""
    message = decode(raw)
    for name in ("error", "message"):
        message = message.get(name) if isinstance(message, dict) and name in message else message
    text = message if isinstance(message, str) else raw[:1_000].decode("utf-8", "replace")
    return printable(text[:1_000])[:300] or "(no text)"


def parse_answer(raw: bytes, limit: str) -> Answer:
    """The answer in the body of a response.

    Args:
        raw: The body.
        limit: The limit of tokens that the request named, for messages: `max_tokens 48`.

    Raises:
        RequestFailed: The body is not an answer, or has no text: for good if the model would do the same again.
    """
    try:
        body = json.loads(raw)
        choice = min(body["choices"], key=lambda choice: choice.get("index") or 0)
        message, finish_reason = choice["message"], str(choice.get("finish_reason") or "")[:64]
        content = message.get("content") or ""
        if isinstance(content, list):
            content = "".join(part["text"] for part in content if part.get("type") == "text")
        text = content.encode("utf-8", "replace").decode()  # JSON can spell halves of characters, tables cannot
        thoughts, refusal = message.get("reasoning_content") or message.get("reasoning"), message.get("refusal")
        usage = body.get("usage") or {}
        counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        problem = printable(f"{type(error).__name__}: {error}")[:200]
        message = f"the answer is not a chat completion ({problem}): {raw[:200]!r}"
        raise RequestFailed("unparsable", message) from error
    if not text.strip():
        end, reported = ending(finish_reason), f"finish_reason {finish_reason!r}"
        if refusal or not (end or finish_reason.lower() in RETRIED_ENDINGS):
            words = printable(str(refusal or ""))[:300]
            raise RequestFailed("declined", f"the model declined to answer ({reported}): {words}", permanent=True)
        if thoughts or end == "limit":
            doing = "thinking, with no answer" if thoughts else "without any text, perhaps on thinking"
            raise RequestFailed(
                "empty", f"the model spent its tokens {doing} ({limit}, {reported}). {REMEDY}", permanent=True
            )
        raise RequestFailed("empty", f"the answer has no text ({reported})")
    prompt_tokens, completion_tokens = (count if isinstance(count, int) else None for count in counts)
    return Answer(text, finish_reason, prompt_tokens, completion_tokens)


def retry_after_s(value: str) -> float:
    """Seconds of a Retry-After header, given as seconds or as an HTTP date; 0 if there is none to honour."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0
