"""The search server: one application with the page for people and the API for programs."""

import asyncio
import contextlib
import ipaddress
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from stages.retrieval.engine import Finder
from stages.web import api, pages
from stages.web.batching import Batcher
from stages.web.limits import Buckets, Limits, Problem

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
}


@dataclass(frozen=True)
class Service:
    """What the routes share."""

    finder: Finder
    limits: Limits
    batcher: Batcher
    buckets: Buckets
    pictures: asyncio.Semaphore  # that are decoded at once


def create_app(finder: Finder, *, limits: Limits, host: str = "127.0.0.1") -> FastAPI:
    """The application.

    Args:
        finder: The engine.
        limits: What clients may ask.
        host: Where it will listen. On loopback it answers only requests for this machine's names.
    """
    service = Service(
        finder,
        limits,
        Batcher(finder, limits),
        Buckets(limits.rate, limits.burst),
        asyncio.Semaphore(limits.pictures),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.batcher:
            yield

    app = FastAPI(title="Search", description=api.description(limits), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, names=own_names(host))
    app.add_exception_handler(Problem, _refused)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(Exception, _broken)
    app.include_router(api.routes(service))
    app.include_router(pages.routes(service))
    api.describe_body(app)
    return app


def _refused(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    if "text/html" in request.headers.get("accept", ""):
        return pages.problem_page(problem)
    return JSONResponse(problem.body(), problem.status, dict(problem.headers))


def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    got = f"{request.method} {request.url.path[:100]}"
    routes = "GET /, POST /search, GET /health, GET /docs or GET /openapi.json"
    return _refused(request, Problem(error.status_code, got, routes, "see /docs", error.headers or {}))


def _broken(request: Request, error: Exception) -> Response:
    """Answer without the traceback, which goes to the operator's standard error."""
    return _refused(request, Problem(500, "a fault of the server", "an answer", "tell who runs it"))


def own_names(host: str) -> tuple[str, ...] | None:
    """Names by which a server on this host may be asked; None, for any, where it listens beyond this machine."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    return (*LOCAL_NAMES, host) if local else None


class Guard:
    """ASGI middleware that refuses requests made by pages of other sites, and adds headers to every answer.

    A page of another site can have its own name resolved to 127.0.0.1 and read what a server there answers (DNS
    rebinding): the request then names that site as its host, not this machine. It can also send a form here: the
    request then names that site as its origin.

    Args:
        app: The application.
        names: See `own_names`.
    """

    def __init__(self, app: Any, names: tuple[str, ...] | None):
        self.app, self.names = app, names

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":  # there is no websocket
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                more = [(name, value) for name, value in added if name not in names]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        problem = None
        if self.names is not None and name.lower() not in self.names:
            problem = Problem(400, f"a request for {name[:100]!r}", " or ".join(self.names), "open the printed address")
        elif origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            problem = Problem(403, f"a request of {origin[:100]!r}", "one of its own page", "open the printed address")
        if problem is None:
            await self.app(scope, receive, send_with_headers)
            return
        body = json.dumps(problem.body()).encode()
        start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send_with_headers({"type": "http.response.start", "status": problem.status, "headers": start})
        await send({"type": "http.response.body", "body": body})
