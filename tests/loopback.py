"""A scripted OpenAI-compatible chat server on loopback, over the real protocol.

It answers with a digest of the pictures and the prompt of a request, so that a swapped answer is noticed. Latency and
faults are functions of (seed, request, attempt): a run can be repeated, and a request asked again may succeed.

    python -m tests.loopback PORT '{"slots": 64, "latency_s": 0.5, "sigma": 0.6}'

The program prints one line, its URL, once it listens, and ends when its standard input closes.
"""

import asyncio
import base64
import dataclasses
import hashlib
import json
import os
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from aiohttp import web

REFUSALS = ("429", "503")  # sent at once, without taking a slot
UNREADABLE = ("not_json", "truncated_json", "empty", "no_choices")
FAULTS = (*REFUSALS, "500", "reset_before", "reset_midway", "stall", *UNREADABLE)
MAX_BODY_BYTES = 1 << 28
JSON = "application/json"


@dataclasses.dataclass
class Settings:
    model: str = "loopback"
    host: str = "127.0.0.1"  # where it listens
    slots: int = 0  # requests served at once, the others queue in order; 0 means no limit
    latency_s: float = 0.0  # median of the log-normal time in a slot
    sigma: float = 0.0  # of the log-normal
    seed: int = 0
    api_key: str = ""  # "" asks for none
    fault_rate: float = 0.0  # fraction of attempts
    faults: tuple[str, ...] = FAULTS  # mixed evenly
    retry_after_s: float = 0.05  # sent with a 429
    stall_s: float = 3600.0  # until a stalled request is answered
    die_after: int = 0  # chat request N + 1 kills the process; 0 means never
    certificate: str = ""  # PEM file of certificate and key, for TLS
    echo: bool = True  # answers carry the id of their request, as vLLM's do
    surplus: int = 0  # every N-th answer is sent twice on its connection; 0 means none
    surplus_after_s: float = 0.0  # until the second time: the connection may be in use again by then
    unlike: bool = False  # every answer differs, also to a request that was answered before
    around: tuple[str, str] = ("", "")  # put before and after every answer's text
    space: str = " "  # between its words
    models: str = ""  # body of /v1/models, if it is not to list `model`
    models_status: int = 200
    digest: bool = True  # False neither parses requests nor decodes images: one answer for all, for benchmarks


def request_digest(images: list[bytes], prompt: str) -> str:
    """The key of a request in /stats. `prompt` is its text parts joined by newlines."""
    return hashlib.sha256(b"".join(images) + prompt.encode()).hexdigest()


def answer_text(images: list[bytes], prompt: str) -> str:
    """The answer to a request, of its images' encoded bytes in order and its prompt."""
    pictures = hashlib.sha256(b"".join(images)).hexdigest()[:16]
    return f"digest {pictures} prompt {hashlib.sha256(prompt.encode()).hexdigest()[:16]}."


def fate(settings: Settings, digest: str, attempt: int) -> tuple[float, str]:
    """Latency in seconds and the fault ("" for none) of one attempt: a pure function of its arguments."""
    generator = random.Random(f"{settings.seed}:{digest}:{attempt}")
    latency_s = settings.latency_s * generator.lognormvariate(0, settings.sigma)
    return latency_s, generator.choice(settings.faults) if generator.random() < settings.fault_rate else ""


def read_chat(body: bytes) -> tuple[str, list[bytes], str]:
    """Model, images and prompt of a chat request; raises ValueError, KeyError or TypeError if it is not one."""
    chat = json.loads(body)
    images, texts = [], []
    for message in chat["messages"]:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                header, _, data = part["image_url"]["url"].partition(",")
                if not (header.startswith("data:image/") and header.endswith(";base64")):
                    raise ValueError("an image is not a data URL")
                images.append(base64.b64decode(data, validate=True))
    return chat["model"], images, "\n".join(texts)


def completion(text: str, images: int, prompt: str) -> bytes:
    """An answer without an id."""
    usage = {"prompt_tokens": 64 * images + len(prompt.split()), "completion_tokens": len(text.split())}
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def with_id(body: bytes, request: web.BaseRequest) -> bytes:
    """The answer with the id that vLLM gives it."""
    return b'{"id": "chatcmpl-%s", ' % request.headers["X-Request-Id"].encode() + body[1:]


def error(status: int, message: str) -> web.Response:
    """An error in the form vLLM gives it."""
    return web.json_response({"error": {"message": message, "code": status}}, status=status)


def reset(request: web.BaseRequest) -> web.Response:
    """Ends the connection with a TCP reset; the response returned goes nowhere."""
    request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()


class Server:
    """State and handlers of one server process."""

    def __init__(self, settings: Settings):
        self.counts = dict.fromkeys(("requests", "answered", "max_concurrent"), 0)
        self.faults = dict.fromkeys(FAULTS, 0)
        self.seen: dict[str, list[int]] = {}  # digest: [asked, answered ok]
        self.connections: set = set()  # over which chat requests came, ended ones too
        self.in_flight = 0
        self.started_s = self.last_s = 0.0
        self.use(settings)

    def use(self, settings: Settings) -> None:
        self.settings = settings
        self.slots = asyncio.Semaphore(settings.slots or sys.maxsize)
        self.constant = completion(answer_text([], ""), 1, "")

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        route, settings = (request.method, request.path), self.settings
        key = f"Bearer {settings.api_key}"
        if settings.api_key and request.path.startswith("/v1/") and request.headers.get("Authorization") != key:
            return web.json_response({"error": "Unauthorized"}, status=401)
        if route == ("POST", "/v1/chat/completions"):
            return await self.chat(request)
        if route == ("GET", "/v1/models"):
            listed = json.dumps({"object": "list", "data": [{"id": settings.model, "object": "model"}]})
            return web.Response(text=settings.models or listed, status=settings.models_status)
        if route == ("GET", "/health"):
            return web.Response()
        if route == ("GET", "/stats"):
            return web.json_response(self.stats())
        if route == ("POST", "/script"):
            self.use(dataclasses.replace(settings, **json.loads(await request.read())))
            return web.Response()
        return web.json_response({"detail": "Not Found"}, status=404)

    def stats(self) -> dict:
        per_second = self.counts["answered"] / max(self.last_s - self.started_s, 1e-9)
        measures = {"per_second": per_second, "cpu_s": time.process_time()}
        measures["connections"] = len(self.connections)
        return self.counts | measures | {"faults": self.faults, "seen": self.seen}

    async def chat(self, request: web.BaseRequest) -> web.StreamResponse:
        counts = self.counts
        counts["requests"] += 1
        self.started_s = self.started_s or time.monotonic()
        self.in_flight += 1
        self.connections.add(request.transport)
        counts["max_concurrent"] = max(counts["max_concurrent"], self.in_flight)
        if 0 < self.settings.die_after < counts["requests"]:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return await self.answer(request, counts["requests"])
        finally:
            self.in_flight -= 1

    async def answer(self, request: web.BaseRequest, number: int) -> web.StreamResponse:
        settings = self.settings
        if settings.digest:
            try:
                model, images, prompt = read_chat(await request.read())
            except (ValueError, KeyError, TypeError) as fault:
                return error(400, f"not a chat request: {fault!r}")
            if model != settings.model:
                return error(404, f"The model `{model}` does not exist.")
            digest = request_digest(images, prompt)
            text = answer_text(images, prompt).replace(" ", settings.space).join(settings.around)
            if settings.unlike:
                text += f" Answer {number}."
            body = completion(text, len(images), prompt)
        else:
            while await request.content.readany():
                pass
            images, prompt, digest, body = [], "", str(number), self.constant
        if settings.echo and "X-Request-Id" in request.headers:
            body = with_id(body, request)
        tally = self.seen.setdefault(digest, [0, 0]) if settings.digest else [0, 0]
        tally[0] += 1
        latency_s, fault = fate(settings, digest, tally[0])
        if fault not in REFUSALS:
            async with self.slots:  # a client that leaves cancels this and frees its slot, as in vLLM
                await asyncio.sleep(latency_s)
        if fault:
            self.faults[fault] += 1
            response = await self.faulty(fault, request, body)
            if fault != "stall":
                return response
        tally[1] += 1
        self.counts["answered"] += 1
        self.last_s = time.monotonic()
        if settings.surplus and number % settings.surplus == 0:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
            # once more than asked for, after the response that is returned here
            asyncio.get_running_loop().call_later(
                settings.surplus_after_s + 0.002, request.transport.write, head.encode() + body
            )
        return web.Response(body=body, content_type=JSON)

    async def faulty(self, fault: str, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        if fault == "stall":
            await asyncio.sleep(self.settings.stall_s)
        elif fault in ("429", "500", "503"):
            refusal = error(int(fault), "scripted")
            if fault == "429":
                refusal.headers["Retry-After"] = f"{self.settings.retry_after_s:g}"
            return refusal
        elif fault == "reset_before":
            return reset(request)
        elif fault == "reset_midway":
            response = web.StreamResponse()
            response.content_length = len(body)
            await response.prepare(request)
            await response.write(body[: len(body) // 2])
            await asyncio.sleep(0.01)  # a reset at once would overtake the half that was written
            return reset(request)
        answer = json.loads(body)
        answer["choices"][0]["message"]["content"] = ""
        bodies = {
            "not_json": b"<html>Bad gateway</html>",
            "truncated_json": body[: len(body) // 2],
            "empty": json.dumps(answer).encode(),
            "no_choices": b'{"object": "chat.completion"}',
        }
        return web.Response(body=bodies.get(fault, body), content_type=JSON)


async def serve(port: int, settings: Settings) -> None:
    def new_request(*arguments):
        return web.BaseRequest(*arguments, asyncio.get_running_loop(), client_max_size=MAX_BODY_BYTES)

    server = Server(settings)
    handler = web.Server(server.handle, request_factory=new_request, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(handler)
    await runner.setup()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if settings.certificate else None
    if tls:
        tls.load_cert_chain(settings.certificate)
    site = web.TCPSite(runner, settings.host, port, backlog=4096, ssl_context=tls)
    await site.start()
    print(f"http{'s' if tls else ''}://{settings.host}:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)  # hung and stalled requests are not waited for


class Loopback:
    """Owns a server process: `with Loopback(slots=64, latency_s=0.5) as server: ... server.url`.

    The keyword arguments are the fields of `Settings`. `url` has no /v1.
    """

    def __init__(self, port: int = 0, **settings):
        self.port, self.settings = port, Settings(**settings)

    def __enter__(self):
        settings = json.dumps(dataclasses.asdict(self.settings))
        command = [sys.executable, "-m", "tests.loopback", str(self.port), settings]
        root = Path(__file__).resolve().parents[1]
        self.process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError(f"the loopback server ended with {self.process.wait()} before it listened")
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def stats(self) -> dict:
        with urllib.request.urlopen(f"{self.url}/stats", timeout=30) as response:
            return json.load(response)

    def script(self, **settings) -> None:
        """Changes some settings of the running server."""
        request = urllib.request.Request(f"{self.url}/script", json.dumps(settings).encode(), method="POST")
        urllib.request.urlopen(request, timeout=30).close()


if __name__ == "__main__":
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    asyncio.run(serve(int(sys.argv[1]), Settings(**json.loads(sys.argv[2]))))
