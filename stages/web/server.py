"""The search server: one application with the page for people and the API for programs."""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from stages.retrieval.engine import Finder
from stages.web import api, pages
from stages.web.problems import Limits, Problem
from stages.web.service import Service

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
ROUTES = "GET /, POST /search, GET /health, GET /docs or GET /openapi.json"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
}


def create_app(
    finder: Finder,
    *,
    limits: Limits,
    host: str = "127.0.0.1",
    allowed_hosts: Sequence[str] = (),
    root_path: str = "",
    cors: Sequence[str] = (),
) -> FastAPI:
    """The application.

    Args:
        finder: The engine.
        limits: What clients may request.
        host: Address to listen on. On loopback it answers only requests for this machine's names.
        allowed_hosts: Further names under which it answers, such as that of a proxy.
        root_path: Path under which a proxy has it, without a slash at the end.
        cors: Origins of other sites whose pages may use the API.
    """
    pages.set_root(root_path)
    service = Service(finder, limits)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    app = FastAPI(title="Search", description=api.description(limits), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.root_path = root_path
    origins = {*cors, *(f"{scheme}://{name}" for name in allowed_hosts for scheme in ("http", "https"))}
    app.add_middleware(Guard, names=own_names(host, allowed_hosts), origins=origins, limits=limits)
    if cors:
        app.add_middleware(CORSMiddleware, allow_origins=cors, allow_methods=["GET", "POST"], allow_headers=["*"])
    for kind in (HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, refuse)
    app.include_router(api.routes(service))
    app.include_router(pages.routes(service))
    return app


def refuse(request: Request, error: Exception) -> Response:
    """The answer to a request that failed: a page for a browser, else JSON.

    It reveals nothing about a fault in the program, whose traceback goes to the operator's standard error.
    """
    if isinstance(error, Problem):
        problem = error
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:])) or "the body"
        expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        problem = Problem(422, f"{where} = {repr(first['input'])[:100]}", expected, "see /docs for examples")
    elif isinstance(error, HTTPException):
        given = f"{request.method} {request.url.path[:100]} ({error.detail})"
        problem = Problem(error.status_code, given, ROUTES, "see /docs", error.headers)
    else:
        problem = Problem(500, "a fault of the server", "an answer", "report it to the operator")
    if "text/html" in request.headers.get("accept", ""):
        response = pages.render("problem.html", problem.status_code, problem=problem)
        response.headers.update(problem.headers or {})
        return response
    body = {"error": {"got": problem.given, "wanted": problem.expected, "do": problem.remedy}}
    return JSONResponse(body, problem.status_code, problem.headers)


def own_names(host: str, allowed_hosts: Sequence[str] = ()) -> tuple[str, ...] | None:
    """Names under which a server on this host answers; None, for any, if it listens beyond this machine.

    With `allowed_hosts` it answers only under these and its own names.
    """
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    return (*LOCAL_NAMES, host, *allowed_hosts) if local or allowed_hosts else None


class Guard:
    """ASGI middleware: refuses requests made by pages of other sites, limits bodies, adds headers to every answer.

    A page of another site can have its own name resolved to 127.0.0.1 and read what a server there answers (DNS
    rebinding): the request then names that site as its host, not this machine. It can also send a form here: the
    request then names that site as its origin.

    Args:
        app: The application.
        names: See `own_names`.
        origins: Other sites whose pages may send requests.
        limits: What a request's body may be.
    """

    def __init__(self, app: Any, names: tuple[str, ...] | None, origins: Collection[str], limits: Limits):
        self.app, self.names, self.origins, self.limits = app, names, origins, limits

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seconds, size = self.limits.body_seconds, 0
        deadline = asyncio.get_running_loop().time() + seconds

        async def receive_limited() -> Any:
            nonlocal size
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise Problem(408, "half a body", f"all of it in {seconds:g} s", "send it again") from error
            size += len(message.get("body", b""))
            if size > self.limits.body_bytes:
                allowed = f"at most {self.limits.body_bytes:,} bytes"
                raise Problem(413, "a larger body", allowed, "send fewer queries, or a smaller picture")
            return message

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        app, request = self.app, Request(scope)
        host, origin, do = request.headers.get("host", ""), request.headers.get("origin"), "open the printed address"
        if self.names is not None and _host_name(host) not in self.names:
            do += ", or start the server with --allow-host"
            app = refuse(request, Problem(400, f"a request for {host[:100]!r}", " or ".join(self.names), do))
        elif origin not in (None, *self.origins) and urlsplit(origin).netloc.lower() != host.lower():
            app = refuse(request, Problem(403, f"a request of {origin[:100]!r}", "one of its own page", do))
        await app(scope, receive_limited, send_with_headers)


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # brackets that do not match
        return None
