"""Search over HTTP: the engine of an index behind POST /search and GET /health.

    python stages/serve.py --index INDEX [--host 127.0.0.1] [--port 7861] [--rate 50]

Queries of concurrent clients are answered together. A picture comes in base64 within the JSON, not as multipart: one
kind of body, described by one schema and bounded before anything of it is parsed, and no temporary files; the price
is a third more bytes. An item is told by its id within its corpus, never by where it lies.
"""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from stages.processes import Parser, run_program
from stages.web.batching import Batcher, How
from stages.web.limits import Buckets, Limits, Problem, client_of, decoded, read_body
from stages.web.server import Guard, add_options, address, end_on_sigterm, listen, own_names, server_of
from stages.web.service_docs import EXAMPLES, described, page

if TYPE_CHECKING:
    from stages.retrieval.engine import Finder


class Asked(BaseModel):
    """A search: one of `query`, `queries` and `picture`, and what holds for all of them."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": list(EXAMPLES.values())})

    query: str | None = Field(None, description="one text, in any language that the index knows")
    queries: list[str] | None = Field(None, description="several texts")
    picture: str | None = Field(None, description="a picture file in base64")
    k: int = Field(10, description="results of each query")
    hybrid: float | None = Field(None, ge=0, le=1, description="share of the descriptions in the score")
    corpus: str | None = Field(None, description="only items of this corpus")
    split: str | None = Field(None, description="only items of this split")
    media_type: Literal["image", "video"] | None = Field(None, description="only images, or only videos")


class Result(BaseModel):
    """An item that was found. `view` and `text`: its description nearest to the query, empty where it has none."""

    model_config = ConfigDict(from_attributes=True)

    rank: int
    score: float
    corpus: str
    item_id: str
    split: str
    media_type: str
    view: str
    text: str
    matched: str


class Found(BaseModel):
    """Of each query its results, best first."""

    results: list[list[Result]]


class Health(BaseModel):
    status: Literal["ok", "stopped"]
    items: int
    corpora: list[str]
    splits: list[str]
    languages: str
    waiting: int


class Trouble(BaseModel):
    got: str
    wanted: str
    do: str


class Refused(BaseModel):
    error: Trouble


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    limits = limits_of(options.rate)
    end_on_sigterm()
    with contextlib.closing(listen(options.host, options.port)) as bound:
        from stages.retrieval.engine import open_finder  # late: mistakes are told before the model's libraries load

        finder = open_finder(options.index, options.checkpoint, options.data)
        app = create_app(finder, limits=limits, host=options.host)
        say(
            f"{len(finder):,} items of {', '.join(finder.corpora)}: {address(bound, options.host)}/docs, Ctrl-C ends it"
        )
        server_of(app).run(sockets=[bound])
    return 0


def create_app(finder: "Finder", *, limits: Limits, host: str = "127.0.0.1") -> FastAPI:
    """The service. `host`: where it will listen; on this machine alone, it answers to this machine's names alone."""
    buckets, batcher = Buckets(limits.rate, limits.burst), Batcher(finder, limits)
    pictures = asyncio.Semaphore(limits.pictures)

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        async with batcher:
            yield

    app = FastAPI(title="Search", description=described(limits), lifespan=life, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, names=own_names(host), allowed=lambda path: True, headers=HEADERS)
    for kind, answer in ((Problem, refused), (HTTPException, unknown), (Exception, broken)):
        app.add_exception_handler(kind, answer)  # type: ignore[arg-type]

    @app.post("/search", response_model=Found, responses=REFUSALS, openapi_extra=BODY, summary="Find items")
    async def search(request: Request) -> Response:
        buckets.take(client_of(request), 1)
        asked = parsed(await read_body(request, limits))
        check(asked, finder, limits)
        if asked.queries is not None:
            buckets.take(client_of(request), len(asked.queries) - 1)
        queries: Sequence[str | Image.Image] = asked.queries or [asked.query or ""]
        if asked.picture is not None:
            async with pictures:
                queries = [await asyncio.to_thread(decoded, asked.picture, limits)]
        how = How(asked.k, asked.hybrid, asked.corpus, asked.split, asked.media_type)
        lists = await batcher.find(queries, how)
        found = Found(results=[[Result.model_validate(hit) for hit in hits] for hits in lists])
        return Response(found.model_dump_json(), media_type="application/json")

    @app.get("/health", response_model=Health, summary="What is searched, and whether it can be")
    async def health() -> Response:
        stopped = bool(batcher.trouble)
        told = Health(
            status="stopped" if stopped else "ok",
            items=len(finder),
            corpora=list(finder.corpora),
            splits=finder.splits,
            languages=finder.languages,
            waiting=batcher.waiting,
        )
        return Response(told.model_dump_json(), 503 if stopped else 200, media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page(limits))

    app.openapi()["components"]["schemas"]["Asked"] = (
        Asked.model_json_schema()
    )  # its body is read by hand, within limits
    return app


HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refused, "description": text}
    for status, text in {
        408: "The body came too slowly",
        413: "The body is too large",
        415: "The body is no JSON",
        422: "The search is none, or beyond a limit",
        429: "Too many queries of one client: Retry-After tells when to come back",
        503: "Too many queries at once, or an index that cannot be used",
    }.items()
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Asked"},
                "examples": {name: {"value": value} for name, value in EXAMPLES.items()},
            }
        },
    }
}


def parsed(body: bytes) -> Asked:
    """Raises Problem 422 naming the first thing that is wrong."""
    try:
        return Asked.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        got = f"{where} = {shown(first['input'])}"
        raise Problem(422, got, first["msg"].removeprefix("Input should be "), "see /docs for examples") from error


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def check(asked: Asked, finder: "Finder", limits: Limits) -> None:
    """Raises Problem 422 for a search that is well formed, but not to be answered."""
    given = [name for name in ("query", "queries", "picture") if getattr(asked, name) is not None]
    if len(given) != 1:
        got, wanted = " and ".join(given) or "no query", "one of query, queries and picture"
        raise Problem(422, got, wanted, "send one request for each kind")
    if not 1 <= asked.k <= limits.results:
        raise Problem(422, f"k = {asked.k}", f"1 to {limits.results}", "ask for fewer results")
    texts = asked.queries if asked.queries is not None else [asked.query] if asked.query is not None else []
    if asked.queries is not None and not 1 <= len(texts) <= limits.queries:
        raise Problem(422, f"{len(texts):,} queries", f"1 to {limits.queries}", "send them in several requests")
    for number, text in enumerate(texts):
        where = f"query {number}" if asked.queries is not None else "the query"
        if len(text) > limits.characters:
            wanted = f"at most {limits.characters:,}"
            raise Problem(422, f"{len(text):,} characters in {where}", wanted, "send a shorter text")
        if not any(letter.isprintable() and not letter.isspace() for letter in text):
            raise Problem(422, f"{where} without a letter", "a few words", "say what to look for")
    for name, has in (("corpus", list(finder.corpora)), ("split", finder.splits)):
        value = getattr(asked, name)
        if value is not None and value not in has:
            raise Problem(422, f"{name} = {shown(value)}", f"one of {', '.join(has)}", "see /health for what there is")


def refused(_: Request, problem: Problem) -> Response:
    return JSONResponse(problem.told(), problem.status, dict(problem.headers))


def unknown(request: Request, error: HTTPException) -> Response:
    got = f"{request.method} {request.url.path[:100]}"
    told = Problem(error.status_code, got, "POST /search, GET /health, GET /docs or GET /openapi.json", "see /docs")
    return JSONResponse(told.told(), told.status, error.headers)


def broken(_: Request, error: Exception) -> Response:
    """The traceback is the operator's: it goes to standard error, not to the client."""
    return JSONResponse(Problem(500, "a fault of the service", "an answer", "tell who runs it").told(), 500)


def limits_of(rate: float) -> Limits:
    """With `rate` queries a second of one client, and four seconds' worth of them at once."""
    limits = Limits(rate=rate)
    return replace(limits, burst=max(limits.queries, int(4 * rate)))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    made = Parser("serve.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    add_options(made, 7861)
    made.add_argument(
        "--rate", type=float, default=50.0, help="queries a second that one client, by its address, may ask (50)"
    )
    return made


if __name__ == "__main__":
    sys.exit(run_program(main))
