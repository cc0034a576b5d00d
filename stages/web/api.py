"""The API for programs: POST /search, GET /health, and /docs.

A picture is sent as base64 within the JSON, not as multipart, so that one schema describes every body; it costs a third
more bytes. An item is named by its id within its corpus, never by its path.
"""

import asyncio
import dataclasses
import json
from typing import Any, Literal, Self

from fastapi import APIRouter, Request, Response
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, create_model, model_validator

from pipeline.options import option_fields
from stages.retrieval.engine import MAX_CHARACTERS, Hit, Query
from stages.retrieval.filters import Filters
from stages.web.pages import render
from stages.web.problems import MAX_QUERIES, MAX_RESULTS, Limits
from stages.web.service import PICTURE_PIXELS, Service, Terms

EXAMPLES: dict[str, dict[str, Any]] = {
    "one query": {"query": "eine Katze auf dem Sofa", "k": 5},
    "several queries": {"queries": ["un gato", "一只猫", "قطة"], "split": "test", "media_type": "image"},
    "a picture, and what it should show as well": {"picture": "iVBORw0KGgo…", "query": "at night", "k": 5},
}


filters: dict[str, Any] = {
    name: (str | None, Field(None, description=of.metadata["help"])) for name, of in option_fields(Filters).items()
}
FilterFields = create_model("FilterFields", **filters)
parts: dict[str, Any] = {of.name: (of.type, ...) for of in dataclasses.fields(Hit) if of.name != "uri"}
Result = create_model("Result", **parts)  # a hit, without where its original lies


class SearchRequest(FilterFields):  # type: ignore[misc, valid-type]
    """A search: `query`, `queries`, `picture`, or words with the picture, and the options of all its queries."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": list(EXAMPLES.values())})

    query: str | None = Field(None, description="one text, in any language that the index knows")
    queries: list[str] | None = Field(None, min_length=1, max_length=MAX_QUERIES, description="several texts")
    picture: Base64Bytes | None = Field(None, strict=False, description="a picture file in base64, for each text")
    k: int = Field(10, ge=1, le=MAX_RESULTS, description="results of each query")
    offset: int = Field(0, ge=0, description="how many of the best results are left out")
    hybrid: float | None = Field(None, ge=0, le=1, description="share of the descriptions in the score")
    exclude: str = Field("", description="words for what the results should not show; moves it down")

    @model_validator(mode="after")
    def _has_a_query(self) -> Self:
        if (self.query or self.queries or self.picture) is None or None not in (self.query, self.queries):
            raise ValueError("query or queries, picture, or both")
        return self


class SearchResponse(BaseModel):
    """The results of each query, best first; notes on queries whose language the index does not know, else ""."""

    results: list[list[Result]]  # type: ignore[valid-type]
    notes: list[str]


class Health(BaseModel):
    """What is searched, and whether it can be."""

    status: Literal["ok", "stopped"]
    items: int
    corpora: list[str]
    splits: list[str]
    languages: str
    waiting: int


REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"description": "The server asks for a token: send the header Authorization: Bearer TOKEN"},
    413: {"description": "The body is too large"},
    422: {"description": "The search is not valid, or beyond a limit"},
    429: {"description": "Too many queries of one client: try again after Retry-After"},
    503: {"description": "Too many queries at once, or an index that cannot be used"},
}


def routes(service: Service) -> APIRouter:
    """The routes of the API."""
    router, finder = APIRouter(), service.finder

    @router.post("/search", response_model=SearchResponse, responses=REFUSALS, summary="Search")
    async def search(request: Request, terms: SearchRequest) -> Response:
        texts = terms.queries or [terms.query or ""]
        service.admit(request, len(texts))
        picture = None if terms.picture is None else await service.picture(terms.picture)
        filters = Filters(**{name: getattr(terms, name) for name in option_fields(Filters)})
        queries = [Query(text, picture, terms.exclude) for text in texts]
        results = await service.find(queries, Terms(terms.k, terms.hybrid, filters, terms.offset))
        notes = [await asyncio.to_thread(finder.note, text) for text in texts]
        answer = SearchResponse.model_validate({"results": results, "notes": notes}, from_attributes=True)
        return Response(answer.model_dump_json(), media_type="application/json")

    @router.get("/health", summary="What is searched, and whether it can be")
    async def health(response: Response) -> Health:
        response.status_code = 503 if service.trouble else 200
        return Health(
            status="stopped" if service.trouble else "ok",
            items=len(finder),
            corpora=list(finder.corpora),
            splits=finder.splits,
            languages=finder.space.languages,
            waiting=service.waiting,
        )

    @router.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        calls = {name: json.dumps(body, ensure_ascii=False) for name, body in EXAMPLES.items()}
        return render("docs.html", description=description(service.limits), calls=calls)

    return router


def description(limits: Limits) -> str:
    """What the API does and its limits, for OpenAPI and /docs."""
    return (
        f"Finds images and videos by a text in any language that the index knows, a picture, or both. Limits: "
        f"{MAX_CHARACTERS:,} characters per text, {MAX_QUERIES} queries per request, {MAX_RESULTS} results per "
        f"query, {limits.body_bytes:,} bytes per request, {PICTURE_PIXELS:,} "
        f"pixels per picture, {limits.burst} queries of one client at once and {limits.rate:g} per second (429), "
        f"{limits.waiting:,} queries waiting (503). Beyond its own machine the server "
        "asks for the header Authorization: Bearer TOKEN (401). Errors are JSON: what was given, what is expected, "
        "what to do."
    )
