"""The search server: one application with the page for people and the API for programs."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, Histogram, generate_latest
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from stages.retrieval.engine import Index
from stages.web import api, pages
from stages.web.problems import Limits, Problem
from stages.web.service import Service

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
ROUTES = "GET /, POST /search, GET /health, GET /metrics, GET /docs or GET /openapi.json"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'self'; script-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}


@dataclass(frozen=True)
class Access:
    """Who may use a server.

    Attributes:
        host: Name or address that it listens on.
        is_local: Whether that is only for this machine.
        names: Further names that it answers to, such as that of a proxy in front of it. With names, or if it is local,
            it answers only under these, its host, and this machine's names.
        origins: Origins of other sites whose pages may call the API.
        token: What a client must know; "" for nothing.
    """

    host: str = "127.0.0.1"
    is_local: bool = True
    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    token: str = ""


def create_app(finder: Index, *, limits: Limits, access: Access = Access(), root_path: str = "") -> FastAPI:
    """The application.

    Args:
        finder: The engine.
        limits: What clients may request.
        access: Who they may be.
        root_path: Path under which a proxy has it, without a slash at the end.
    """
    pages.set_root(root_path)
    service = Service(finder, limits)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    app = FastAPI(title="Search", description=api.description(limits), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.root_path = root_path
    if access.origins:
        methods, headers = ("GET", "POST"), ("Content-Type", "Authorization")
        app.add_middleware(CORSMiddleware, allow_origins=access.origins, allow_methods=methods, allow_headers=headers)
    registry = CollectorRegistry()
    Gauge("leccr_items", "Items in the index", registry=registry).set_function(lambda: len(finder))
    waiting = Gauge("leccr_queries_waiting", "Queries not yet answered", registry=registry)
    waiting.set_function(lambda: service.waiting)
    names = ("route", "status")
    seconds = Histogram("leccr_request_seconds", "Seconds from a request to its answer", names, registry=registry)
    app.add_middleware(Guard, access=access, limits=limits, seconds=seconds)
    for kind in (HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, refuse)
    app.include_router(api.routes(service))

    @app.get("/metrics", summary="Figures for Prometheus")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    app.include_router(pages.routes(service, show_paths=access.is_local and not access.names))
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


class Guard:
    """ASGI middleware: refuses clients without the token and pages of other sites, limits bodies, adds headers.

    A page of another site can have its own name resolved to 127.0.0.1 and read what a server there answers (DNS
    rebinding): the request then names that site as its host, not this machine. It can also send a form here: the
    request then names that site as its origin, or says that it is from another site.

    Args:
        app: The application.
        access: Who may use the server.
        limits: What a request's body may be, and all of them together.
        seconds: Where the duration of each request goes, by its route and status.
    """

    def __init__(self, app: Any, access: Access, limits: Limits, seconds: Histogram):
        self.app, self.access, self.limits, self.seconds = app, access, limits, seconds
        self.names = (*LOCAL_NAMES, access.host, *access.names)
        self.received = 0  # bytes of the bodies of all requests that are not answered yet

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seconds, size, status, began = self.limits.body_seconds, 0, 500, time.perf_counter()
        deadline = asyncio.get_running_loop().time() + seconds

        async def receive_limited() -> Any:
            nonlocal size
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise Problem(408, "half a body", f"all of it in {seconds:g} s", "send it again") from error
            received = len(message.get("body", b""))
            size += received
            self.received += received
            if self.received > self.limits.total_bytes:
                allowed = f"at most {self.limits.total_bytes:,} bytes of all clients"
                raise Problem(503, "larger bodies at once", allowed, "try again in 1 s", {"Retry-After": "1"})
            if size > self.limits.body_bytes:
                allowed = f"at most {self.limits.body_bytes:,} bytes"
                raise Problem(413, "a larger body", allowed, "send fewer queries, or a smaller picture")
            return message

        async def send_with_headers(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope)
        try:
            await (self._refusal(request) or self.app)(scope, receive_limited, send_with_headers)
        finally:
            self.received -= size
            route = getattr(scope.get("route"), "path", "none")  # a refused request has none
            self.seconds.labels(route, status).observe(time.perf_counter() - began)

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that goes no further, or None."""
        headers, access, do = request.headers, self.access, "open the printed address"
        host, origin = headers.get("host", ""), headers.get("origin")
        if (access.is_local or access.names) and _host_name(host) not in self.names:
            allowed = f"one of {', '.join(dict.fromkeys(self.names))}, or of --allow-host"
            return refuse(request, Problem(400, f"a request for {host[:100]!r}", allowed, do))
        if origin is not None:
            address = origin.partition("://")[2].lower()
            is_own = address == host.lower() or _host_name(address) in access.names or origin in access.origins
        else:
            is_link = request.method == "GET" and headers.get("sec-fetch-mode") == "navigate"
            is_own = is_link or headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        if not is_own:
            given = f"a request of {origin[:100]!r}" if origin else "a request of another site"
            return refuse(request, Problem(403, given, "one of its own page", do))
        if not access.token or (request.method == "OPTIONS" and origin):  # which carries no token
            return None
        cookie = f"token-{(request.scope['server'] or ('', ''))[1]}"  # browsers have one set of cookies for all ports
        if self._is_token(request.query_params.get("token", "")):
            query = request.url.remove_query_params("token").query
            answer = RedirectResponse(f"?{query}", 303)  # to the same path, whatever a proxy calls it
            answer.set_cookie(cookie, access.token, httponly=True, samesite="lax")
            return answer
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if self._is_token(token if scheme.lower() == "bearer" else request.cookies.get(cookie, "")):
            return None
        do = "open the printed address, or send the header Authorization: Bearer TOKEN"
        problem = Problem(401, "a request without the token", "the token printed at the start", do)
        return refuse(request, problem)

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self.access.token.encode())


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # brackets that do not match
        return None
