"""Chat servers whose every answer a test writes down, in the test's own loop, and clients that ask them."""

import asyncio
import contextlib
import json
import time

from aiohttp import web

from pipeline.captioning.chat_client import ChatClient, Extras, RequestFailed, Retries, media_of
from pipeline.captioning.prompts import View
from pipeline.errors import EnvironmentTrouble
from tests.loopback import answer_text

VIEW = View("short", "What is this?", 32)
QUICK = Retries(attempts=3, timeout_s=5.0, patience_s=5.0, first_wait_s=0.01, longest_wait_s=0.05)
ONCE = Retries(attempts=1, timeout_s=20.0, patience_s=20.0, first_wait_s=0.01, longest_wait_s=0.05)
CHAT = "/v1/chat/completions"


def reply(text="A cat.", **more):
    return {"text": json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}], **more})}


def echoing(text="A cat."):
    """A response with the id of its request."""
    return lambda request: reply(text, id=f"chatcmpl-{request.headers['X-Request-Id']}")


class Scripted:
    """A server in the test's own loop: gives the responses in order, the last one for ever.

    A request whose prompt is "killer" cuts every connection and shuts the door for `away_s`.
    """

    def __init__(self, *responses, latency_s=0.0, away_s=0.2, port=0):
        self.responses, self.latency_s, self.away_s, self.port = responses or (reply(),), latency_s, away_s, port
        self.url = f"http://127.0.0.1:{port}"
        self.chats, self.times, self.probes, self.health, self.deaths = [], [], 0, 200, 0

    async def __aenter__(self):
        self.runner = web.ServerRunner(web.Server(self.handle, access_log=None))
        await self.runner.setup()
        await self.open()
        return self

    async def __aexit__(self, *_):
        await self.runner.cleanup()

    async def open(self):
        self.site = web.TCPSite(self.runner, "127.0.0.1", self.port)
        await self.site.start()
        self.port = self.site._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def handle(self, request):
        if request.path != CHAT:
            self.probes += 1
            return web.Response(status=self.health)
        self.times.append(time.monotonic())
        body = json.loads(await request.read())
        self.chats.append((request.headers, body))
        response = self.responses[min(len(self.times), len(self.responses)) - 1]
        await asyncio.sleep(self.latency_s)
        if body["messages"][-1]["content"][-1]["text"] == "killer":
            await self.die()
        return web.Response(**(response(request) if callable(response) else response))

    async def die(self):
        self.deaths += 1
        await self.site.stop()
        for connection in self.runner.server.connections:
            if connection.transport:
                connection.transport.abort()
        self.reopening = asyncio.get_running_loop().create_task(self.reopen())

    async def reopen(self):
        await asyncio.sleep(self.away_s)
        await self.open()


@contextlib.asynccontextmanager
async def client_of(*servers, retries=QUICK, window=64, key="", model="loopback", extras=Extras()):  # noqa: B008
    client = ChatClient([f"{server.url}/v1" for server in servers], model, window, retries, key, extras)
    try:
        yield client
    finally:
        await client.close()


def ask_once(*responses, retries=QUICK, extras=Extras()):  # noqa: B008
    """What one request comes to at a server that gives these responses, and the server."""

    async def ask():
        async with Scripted(*responses) as server, client_of(server, retries=retries, extras=extras) as client:
            try:
                return await client.ask(VIEW, "What?", media_of([b"a jpeg"])), server
            except (RequestFailed, EnvironmentTrouble) as error:
                return error, server

    return asyncio.run(ask())


def ask_many(servers, count, retries=ONCE, window=16, views=1):
    """Ask `count` items of `views` views each, together; the answers' texts, or the errors, by item."""

    async def every():
        async with client_of(*servers, retries=retries, window=window) as client:

            async def item(number):
                media = media_of([b"%d" % number])
                return await asyncio.gather(
                    *(client.ask(VIEW, f"view {view}", media) for view in range(views)), return_exceptions=True
                )

            return await asyncio.gather(*map(item, range(count)))

    return [[getattr(reply, "text", reply) for reply in replies] for replies in asyncio.run(every())]


def expected(count, views=1):
    return [[answer_text([b"%d" % number], f"view {view}") for view in range(views)] for number in range(count)]
