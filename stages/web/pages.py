"""The search page for people: HTML made on the server, without scripts. Every text of a corpus or a user is escaped.

Nothing is loaded from other servers. Pictures are found by corpus and item id and are encoded anew: no part of a
request becomes a path.
"""

import asyncio
import base64
from pathlib import Path
from typing import Annotated, Any

import jinja2
from fastapi import APIRouter, Form, Query, Request, Response, UploadFile
from fastapi.responses import HTMLResponse
from markdown_it import MarkdownIt
from PIL import Image
from pydantic import AfterValidator, BaseModel

from pipeline.card.markdown import public
from pipeline.errors import EnvironmentTrouble, MediaError, PipelineError, UsageError
from pipeline.media.images import encode_jpeg
from pipeline.media.images import frames as sampled_frames
from stages.retrieval.corpus_items import Browser, read_card
from stages.retrieval.engine import MAX_CHARACTERS, Filters, Hit
from stages.web.language import language_note
from stages.web.problems import Problem
from stages.web.service import Service, Terms

TEMPLATES = Path(__file__).with_name("templates")
PAGE_ITEMS = 24  # items on a page of a corpus
MAX_RESULTS = 50
SIDE = 480  # pixels of a picture's longer side
SHEET, SHEET_PIXELS = "contact-sheet.png", 4_000_000  # next to a card
CACHED = {"Cache-Control": "private, max-age=300"}
_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals["root"] = ""


def set_root(path: str) -> None:
    """Put this path of a proxy before every link of every page."""
    _environment.globals["root"] = path


def render(template: str, status: int = 200, **values: Any) -> Response:
    """A page from a template."""
    return HTMLResponse(_environment.get_template(template).render({"corpora": (), **values}), status)


class SearchForm(BaseModel):
    """The fields of the search form; `k` is brought into its range."""

    q: str = ""
    k: Annotated[int, AfterValidator(lambda k: min(max(k, 1), MAX_RESULTS))] = 12
    corpus: str = ""
    split: str = ""
    kind: str = ""

    @property
    def terms(self) -> Terms:
        """What to ask the engine."""
        return Terms(self.k, None, Filters(self.corpus or None, self.split or None, self.kind or None))


class PictureForm(SearchForm):
    """The same form, sent with a picture."""

    picture: UploadFile | None = None


def routes(service: Service) -> APIRouter:
    """The routes of the page."""
    router, finder = APIRouter(include_in_schema=False), service.finder

    def page(template: str, **values: Any) -> Response:
        return render(template, corpora=list(finder.corpora), **values)

    def results(form: SearchForm, hits: list[Hit], message: str, note: str = "", picture: str = "") -> Response:
        details = []
        for hit in hits:
            try:
                details.append((hit, finder.record(hit.corpus, hit.item_id)["texts"]))
            except KeyError:  # removed from the index since the search
                details.append((hit, []))
        facts = {"items": len(finder), "splits": finder.splits, "languages": finder.space.languages}
        limits = {"characters": MAX_CHARACTERS, "max_results": MAX_RESULTS}
        values = {"form": form, "results": details, "message": message, "note": note, "picture": picture}
        return page("search.html", **values, **facts, **limits)

    async def answer(form: SearchForm, query: str | Image.Image, note: str = "", picture: str = "") -> Response:
        try:
            (hits,) = await service.find([query], form.terms)
        except Problem as problem:
            if problem.status_code != 422:
                raise
            return results(form, [], f"This query cannot be searched: {problem.given}.", note, picture)
        message = f"{len(hits)} results, best first. Select a result for details." if hits else (
            "Nothing was found. Remove a filter, or use other words."
        )  # fmt: skip
        return await asyncio.to_thread(results, form, hits, message, note, picture)

    @router.get("/")
    async def search_page(request: Request, form: Annotated[SearchForm, Query()]) -> Response:
        if "q" not in request.query_params:
            return results(form, [], f"{len(finder):,} items to search.")
        if not form.q.strip():
            return results(form, [], "Nothing to search for yet: write a few words, or choose a picture.")
        service.admit(request)
        note = await asyncio.to_thread(language_note, form.q, finder.space.tags)
        return await answer(form, form.q, note)

    @router.post("/")
    async def search_with_picture(request: Request, form: Annotated[PictureForm, Form()]) -> Response:
        service.admit(request)
        picture = form.picture
        if picture is None or not picture.size:
            return results(form, [], "There is no picture yet: choose a file, then search with it.")
        try:
            query = await service.picture(await picture.read())
        except Problem as problem:
            return results(form, [], f"The file cannot be searched for: {problem.given}. Choose a JPEG or PNG picture.")
        thumbnail = query.convert("RGB")
        thumbnail.thumbnail((SIDE, SIDE))
        url = f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(thumbnail)).decode()}"
        return await answer(form, query, picture=url)

    @router.get("/item/{corpus}")
    def item_page(corpus: str, item: str) -> Response:
        try:
            details = _browser(service, corpus).item(item)
        except KeyError as error:
            raise _not_found("item", item) from error
        return page("item.html", corpus=corpus, item=details)

    @router.get("/corpus/{corpus}")
    def corpus_page(corpus: str, page_number: int = 1) -> Response:
        browser = _browser(service, corpus)
        last = max(1, -(-len(browser) // PAGE_ITEMS))
        number = min(max(page_number, 1), last)
        rows = browser.page((number - 1) * PAGE_ITEMS, PAGE_ITEMS)
        return page("corpus.html", corpus=corpus, rows=rows, number=number, last=last, total=len(browser))

    @router.get("/corpus/{corpus}/card")
    def card_page(corpus: str) -> Response:
        folder = _folder(service, corpus)
        text = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image").render(read_card(folder))
        return page("card.html", corpus=corpus, text=text, has_sheet=(folder / SHEET).is_file())

    @router.get("/corpus/{corpus}/figure/contact-sheet")
    def contact_sheet(corpus: str) -> Response:
        try:
            with (_folder(service, corpus) / SHEET).open("rb") as stream:
                return _jpeg(sampled_frames(stream, "image", max_pixels=SHEET_PIXELS, count=1)[0].image)
        except (OSError, MediaError) as error:
            raise _not_found("contact sheet", corpus) from error

    @router.get("/media/{corpus}")
    def media(corpus: str, item: str) -> Response:
        try:
            return _jpeg(finder.picture(corpus, item, SIDE))
        except KeyError as error:
            raise _not_found("item", item) from error
        except (MediaError, PipelineError):  # its texts are still of use
            return _jpeg(Image.new("RGB", (SIDE, SIDE), "#c9ccd0"))

    @router.get("/style.css")
    def style() -> Response:
        return Response((TEMPLATES / "style.css").read_bytes(), media_type="text/css", headers=CACHED)

    return router


def _folder(service: Service, corpus: str) -> Path:
    if corpus not in service.finder.corpora:
        raise _not_found("corpus", corpus)
    return service.finder.corpora[corpus]


def _browser(service: Service, corpus: str) -> Browser:
    folder = _folder(service, corpus)
    try:
        return Browser(folder)
    except (UsageError, EnvironmentTrouble) as error:
        raise Problem(503, public(str(error)), "a corpus that can be read", "try again later") from error


def _not_found(kind: str, name: str) -> Problem:
    return Problem(404, f"no {kind} {name[:100]!r}", f"an {kind} of this index", "start from the search page")


def _jpeg(picture: Image.Image) -> Response:
    return Response(encode_jpeg(picture, 85), media_type="image/jpeg", headers=CACHED)
