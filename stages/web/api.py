"""The API for programs: POST /search, GET /health, and /docs.

A picture comes in base64 within the JSON, not as multipart: one kind of body, described by one schema and bounded
before anything of it is parsed; the price is a third more bytes. An item goes by its id within its corpus, never by its
path.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, FastAPI, Request, Response
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.retrieval.engine import MAX_CHARACTERS, Filters
from stages.web.batching import Terms
from stages.web.limits import Limits, Problem, client_of, decode_picture, read_body
from stages.web.pages import render

if TYPE_CHECKING:
    from stages.web.server import Service

EXAMPLES: dict[str, dict[str, Any]] = {
    "one query": {"query": "eine Katze auf dem Sofa", "k": 5},
    "several queries": {"queries": ["un gato", "一只猫", "قطة"], "split": "test", "media_type": "image"},
    "a picture": {"picture": "iVBORw0KGgo…", "k": 5},
}


class SearchRequest(BaseModel):
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
    """A result. `view` and `text`: the item's description nearest to the query, empty where it has none."""

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


class SearchResponse(BaseModel):
    """Of each query its results, best first."""

    results: list[list[Result]]


class Health(BaseModel):
    """What is searched, and whether it can be."""

    status: Literal["ok", "stopped"]
    items: int
    corpora: list[str]
    splits: list[str]
    languages: str
    waiting: int


class Refusal(BaseModel):
    """Why a request was refused: what was given, what is expected, what to do."""

    got: str
    wanted: str
    do: str


class ErrorResponse(BaseModel):
    """The body of every error."""

    error: Refusal


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": text}
    for status, text in {
        408: "The body came too slowly",
        413: "The body is too large",
        415: "The body is not JSON",
        422: "The search is not valid, or beyond a limit",
        429: "Too many queries of one client: Retry-After says when to come back",
        503: "Too many queries at once, or an index that cannot be used",
    }.items()
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/SearchRequest"},
                "examples": {name: {"value": value} for name, value in EXAMPLES.items()},
            }
        },
    }
}


def routes(service: "Service") -> APIRouter:
    """The routes of the API."""
    router, finder, limits, batcher = APIRouter(), service.finder, service.limits, service.batcher

    @router.post("/search", response_model=SearchResponse, responses=REFUSALS, openapi_extra=BODY, summary="Search")
    async def search(request: Request) -> Response:
        service.buckets.take(client_of(request))
        asked = _parse(await read_body(request, "application/json", limits))
        _check(asked, limits)
        if asked.queries is not None:
            service.buckets.take(client_of(request), len(asked.queries) - 1)
        queries: Sequence[str | Image.Image] = asked.queries or [asked.query or ""]
        if asked.picture is not None:
            async with service.pictures:
                queries = [await asyncio.to_thread(_picture, asked.picture, limits)]
        terms = Terms(asked.k, asked.hybrid, Filters(asked.corpus, asked.split, asked.media_type))
        lists = await batcher.find(queries, terms)
        answer = SearchResponse(results=[[Result.model_validate(hit) for hit in hits] for hits in lists])
        return Response(answer.model_dump_json(), media_type="application/json")

    @router.get("/health", response_model=Health, summary="What is searched, and whether it can be")
    async def health() -> Response:
        answer = Health(
            status="stopped" if batcher.trouble else "ok",
            items=len(finder),
            corpora=list(finder.corpora),
            splits=finder.splits,
            languages=finder.space.languages,
            waiting=batcher.waiting,
        )
        return Response(answer.model_dump_json(), 503 if batcher.trouble else 200, media_type="application/json")

    @router.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        calls = {name: json.dumps(body, ensure_ascii=False) for name, body in EXAMPLES.items()}
        return render("docs.html", description=description(limits), calls=calls)

    return router


def describe_body(app: FastAPI) -> None:
    """Add the schema of POST /search, whose body is read by hand within limits."""
    app.openapi()["components"]["schemas"]["SearchRequest"] = SearchRequest.model_json_schema()


def description(limits: Limits) -> str:
    """What the API does and its limits, for OpenAPI and /docs."""
    return (
        f"Finds images and videos by a text in any language that the index knows, or by a picture. Limits: "
        f"{MAX_CHARACTERS:,} characters a text, {limits.queries} queries a request, {limits.results} results a "
        f"query, {limits.body_bytes:,} bytes a request, {limits.picture_bytes:,} bytes and {limits.picture_pixels:,} "
        f"pixels a picture, {limits.burst} queries of one client at once and {limits.rate:g} a second (429), "
        f"{limits.waiting:,} queries waiting (503). Errors are JSON: what was given, what is expected, what to do."
    )


def _parse(body: bytes) -> SearchRequest:
    """Raises Problem 422 naming the first thing that is wrong."""
    try:
        return SearchRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        expected = first["msg"].removeprefix("Input should be ")
        raise Problem(422, f"{where} = {_short(first['input'])}", expected, "see /docs for examples") from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _check(asked: SearchRequest, limits: Limits) -> None:
    """Raises Problem 422 for a search that is well formed and cannot be answered."""
    given = [name for name in ("query", "queries", "picture") if getattr(asked, name) is not None]
    if len(given) != 1:
        got, expected = " and ".join(given) or "no query", "one of query, queries and picture"
        raise Problem(422, got, expected, "send one request for each kind")
    if not 1 <= asked.k <= limits.results:
        raise Problem(422, f"k = {asked.k}", f"1 to {limits.results}", "ask for fewer results")
    if asked.queries is not None and not 1 <= len(asked.queries) <= limits.queries:
        raise Problem(422, f"{len(asked.queries):,} queries", f"1 to {limits.queries}", "send them in several requests")


def _picture(text: str, limits: Limits) -> Image.Image:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        got, do = "a picture that is not base64", "send a picture file in base64"
        raise Problem(422, got, "a picture file in base64", do) from error
    return decode_picture(data, limits)
