"""What the search page and the search service share: the socket they listen on, and a guard before their app."""

import argparse
import ipaddress
import json
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from pipeline.errors import EnvironmentTrouble, UsageError

MOST_CONNECTIONS = 1_000  # at once; uvicorn answers 503 to more
GRACE_S = 5  # that open requests have once the program is asked to end
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


def add_options(made: argparse.ArgumentParser, port: int) -> None:
    """Those of both programs."""
    add = made.add_argument
    add("--index", required=True, type=Path, help="folder that index.py made")
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    add("--port", type=int, default=port, help=f"port to listen on, 0 for one that is free ({port})")
    add("--checkpoint", help="where the index's model is by now (where it was)")
    add("--data", action="append", type=Path, default=[], help="where a corpus of the index is by now (where it was)")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the address; port 0 takes a free one. Raises UsageError for what is no address of this
    machine, and EnvironmentTrouble for a port that is taken."""
    if not 0 <= port <= 65535:
        raise UsageError(f"--port: got {port}, wanted 0 to 65535, 0 for one that is free")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"--host: got {host!r}, wanted a name or an address of this machine") from error
    # named TCP, or asyncio leaves TCP_NODELAY off for its connections, and each answer waits 40 ms for an ACK
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen()  # or another program could bind to it too, and fail once its model is loaded
    except OSError as error:
        bound.close()
        raise EnvironmentTrouble(
            f"{host}:{port} cannot be listened on: {error.strerror}: give another --port"
        ) from error
    return bound


def address(bound: socket.socket, host: str) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{bound.getsockname()[1]}"


def server_of(app: Any) -> uvicorn.Server:
    """`proxy_headers` is off: a client could name itself as it likes, and so pass its limit of requests."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


def end_on_sigterm() -> None:
    """SIGTERM ends the program as Ctrl-C does: what its `with` opened is closed. Otherwise it is not told."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def own_names(host: str) -> tuple[str, ...] | None:
    """Names by which a server on this host may be asked; None, for any, where it listens beyond this machine."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    return (*LOCAL_NAMES, host) if local else None


class Guard:
    """ASGI middleware that refuses requests by name and by path, and adds headers to every answer.

    A page of another site can have its own name resolved to 127.0.0.1 and read what a server there answers (DNS
    rebinding): the request then names that site, not this machine. `names`: see `own_names`; `allowed`: of a path,
    whether there is anything.
    """

    def __init__(
        self,
        app: Any,
        names: tuple[str, ...] | None,
        allowed: Callable[[str], bool],
        headers: Mapping[str, str],
    ):
        self.app, self.names, self.allowed = app, names, allowed
        self.headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *self.headers]}
            await send(message)

        if scope["type"] != "http":  # neither program has a websocket
            return
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self.names is not None and name.lower() not in self.names:
            await refuse(with_headers, 400, f"a request for {name[:100]!r}", f"one for {' or '.join(self.names)}")
        elif not self.allowed(scope["path"]):
            await refuse(with_headers, 404, "a path that is not here", "one of this program's own")
        else:
            await self.app(scope, receive, with_headers)


async def refuse(send: Any, status: int, got: str, wanted: str) -> None:
    """Answer a request over ASGI's `send`, without any app."""
    body = json.dumps({"error": {"got": got, "wanted": wanted, "do": "open the address that the program printed"}})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body.encode())).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
