"""The search page for people: HTML made on the server, where every text of a corpus or a user is escaped.

Everything works without scripts: static/page.js only adds the keyboard, and more results as one scrolls. Nothing is
loaded from other servers. Media are found by corpus and item id: no part of a request becomes a path.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import jinja2
from fastapi import APIRouter, Form, Request, Response, UploadFile
from fastapi import Query as Parameters
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from markdown_it import MarkdownIt
from markupsafe import Markup
from PIL import Image
from pydantic import AfterValidator, BaseModel

from pipeline.card.markdown import public
from pipeline.errors import EnvironmentTrouble, MediaError, PipelineError, UsageError
from pipeline.media.images import encode_jpeg
from pipeline.media.images import frames as sampled_frames
from pipeline.media.uri import open_media
from pipeline.options import option_fields
from stages.retrieval.corpus_items import Browser, read_card
from stages.retrieval.engine import MAX_CHARACTERS, MAX_RESULTS, Hit, Query
from stages.retrieval.filters import Filters
from stages.web.problems import Problem
from stages.web.service import Service, Terms

HERE = Path(__file__).parent
PAGE_ITEMS = 48  # on a page of results or of a corpus; a multiple of what a row may hold
SIMILAR = 12
PICTURES = 20  # that were searched with, of a megapixel at most: as long as they are kept, more results can be shown
SIDE, LARGE = 576, 1_600  # pixels of a picture's longer side: as --stage pack stores 3:2, so that none is resized
SEPARATORS = re.compile(r"[\s!-/:-@\[-`{-~\u2000-\u206f\u3000-\u303f\uff01-\uff0f\uff1a-\uff1f]+")  # between words
NO_SPACES = "\u0e00"  # Thai, the first of the scripts that are written without spaces
SHEET, SHEET_PIXELS = "contact-sheet.png", 4_000_000  # next to a card
CACHED = {"Cache-Control": "private, max-age=300"}
_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals["root"] = ""


def mark(text: str, query: str) -> Markup:
    """A text with the words of a query marked: equal words, of three letters or more where words have spaces.

    >>> str(mark("Two cats & a cat.", "a CAT!"))
    'Two cats &amp; a <mark>cat</mark>.'
    """
    words = [word for word in SEPARATORS.split(query) if len(word) > 2 or word >= NO_SPACES]
    patterns = [re.escape(word) if word >= NO_SPACES else rf"(?<!\w){re.escape(word)}(?!\w)" for word in words]
    parts = re.split(f"({'|'.join(patterns)})", text, flags=re.IGNORECASE) if words else [text]
    marked = [Markup("<mark>{}</mark>").format(part) if number % 2 else part for number, part in enumerate(parts)]
    return Markup("").join(marked)


_environment.filters["mark"] = mark
_environment.filters["clock"] = lambda seconds: f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def set_root(path: str) -> None:
    """Put this path of a proxy before every link of every page."""
    _environment.globals["root"] = path


def render(template: str, status: int = 200, **values: Any) -> Response:
    """A page from a template."""
    values = {"corpora": (), "form": SearchForm(), "characters": MAX_CHARACTERS, **values}
    return HTMLResponse(_environment.get_template(template).render(values), status)


class SearchForm(BaseModel):
    """The fields of the search form, and a place in its results; `k` and `offset` are brought into their range.

    Attributes:
        q: The words.
        k: Results on the page.
        offset: Results before it.
        exclude: What the results should not show.
        corpus: A filter, as all up to `until`; empty for all.
        like: The name of a picture that was sent.
        item: Of the item's page, its id.
        rank: Of the item's page, its place in the results; 0 if it was reached in another way.
    """

    q: str = ""
    k: Annotated[int, AfterValidator(lambda k: min(max(k, 1), MAX_RESULTS))] = PAGE_ITEMS
    offset: Annotated[int, AfterValidator(lambda offset: min(max(offset, 0), MAX_RESULTS - 1))] = 0
    exclude: str = ""
    corpus: str = ""
    split: str = ""
    kind: str = ""
    folder: str = ""
    camera: str = ""
    place: str = ""
    since: str = ""
    until: str = ""
    like: str = ""
    item: str = ""
    rank: int = 0

    @property
    def terms(self) -> Terms:
        """What to ask the engine."""
        values = {**self.model_dump(), "media_type": self.kind}
        filters = Filters(**{name: values[name] or None for name in option_fields(Filters)})
        return Terms(min(self.k, MAX_RESULTS - self.offset), None, filters, self.offset)

    def link(self, **place: Any) -> str:
        """The query part of a link to a place in the results of this search."""
        values = {**self.model_dump(exclude={"k", "offset", "item", "rank", "picture"}), **place}
        return urlencode({name: value for name, value in values.items() if value})


class PictureForm(SearchForm):
    """The same form, sent with a picture."""

    picture: UploadFile | None = None


def routes(service: Service, *, show_paths: bool) -> APIRouter:
    """The routes of the page.

    Args:
        service: Answers the queries.
        show_paths: Whether its users may know where on the server's machine the originals are.
    """
    router, finder = APIRouter(include_in_schema=False), service.finder
    pictures: dict[str, Image.Image] = {}  # that were searched with last

    def query_of(form: SearchForm) -> Query:
        return Query(form.q.strip(), pictures.get(form.like), form.exclude.strip())

    def page(template: str, **values: Any) -> Response:
        return render(template, corpora=list(finder.corpora), **values)

    def results(form: SearchForm, hits: list[Hit], message: str, note: str = "") -> Response:
        seen = form.offset + len(hits)
        has_more = hits and len(hits) == form.terms.k and seen < MAX_RESULTS
        answer = page(
            "search.html",
            form=form,
            hits=hits,
            message=message,
            note=note,
            picture=_data_url(pictures[form.like]) if form.like in pictures else "",
            more=form.link(offset=seen) if has_more else "",
            here=form.link(k=seen),
            facets=finder.facets,
            languages=finder.space.languages,
        )
        answer.headers["Cache-Control"] = "private, no-cache"  # a browser that goes back shows it as it was
        return answer

    @router.get("/")
    async def search_page(request: Request, form: Annotated[SearchForm, Parameters()]) -> Response:
        if "q" not in request.query_params and not form.like:
            return results(form, [], f"{len(finder):,} items to search.")
        query = query_of(form)
        if not (query.words or query.picture):
            return results(form, [], "Nothing to search for: write a few words, or choose a picture.")
        service.admit(request)
        note = await asyncio.to_thread(finder.note, query.words)
        try:
            (hits,) = await service.find([query], form.terms)
        except Problem as problem:
            if problem.status_code != 422:
                raise
            return results(form, [], f"This query cannot be searched: {problem.given}.", note)
        message = "Nothing was found. Remove a filter, or use other words."
        if hits:
            first, last = hits[0].rank, hits[-1].rank
            message = f"Results {first} to {last}" if form.offset else f"{last} results, best first"
            if all(hit.fits is False for hit in hits):
                message = "Nothing fits well. These are the nearest."
        elif form.offset:
            message = "There are no more results"
        return results(form, hits, message, note)

    @router.post("/")
    async def search_with_picture(request: Request, form: Annotated[PictureForm, Form()]) -> Response:
        service.admit(request)
        if form.picture is None or not form.picture.size:
            return results(form, [], "There is no picture yet: choose a file, then search with it.")
        data = await form.picture.read()
        try:
            picture = await service.picture(data)
        except Problem as problem:
            return results(form, [], f"The file cannot be searched for: {problem.given}. Choose a JPEG or PNG picture.")
        form.like = hashlib.sha256(data).hexdigest()[:16]
        pictures[form.like] = picture
        if len(pictures) > PICTURES:
            del pictures[next(iter(pictures))]
        return RedirectResponse(f"?{form.link()}", 303)

    @router.get("/item/{corpus}")
    async def item_page(request: Request, corpus: str, form: Annotated[SearchForm, Parameters()]) -> Response:
        service.admit(request)
        near: list[list[Hit]] = [[]]
        if form.rank > 0:
            with contextlib.suppress(Problem):  # the item is there, whatever the query is
                first = min(max(form.rank - 2, 0), MAX_RESULTS - 3)
                near = await service.find([query_of(form)], form.terms._replace(offset=first, k=3))
        return await asyncio.to_thread(item_answer, corpus, form, {hit.rank: hit for hit in near[0]})

    def item_answer(corpus: str, form: SearchForm, by_rank: dict[int, Hit]) -> Response:
        try:
            item = _browser(service, corpus).item(form.item)
        except KeyError as error:
            raise _not_found("item", form.item) from error
        record, similar = None, list[Hit]()
        with contextlib.suppress(KeyError):  # it is not in the index
            record, similar = finder.record(corpus, form.item), finder.similar(corpus, form.item, SIMILAR)
        uri = record["uri"] if record else ""
        hit = by_rank.get(form.rank)
        return page(
            "item.html",
            corpus=corpus,
            form=form,
            item=item,
            record=record,
            hit=hit if hit and (hit.corpus, hit.item_id) == (corpus, form.item) else None,
            previous=by_rank.get(form.rank - 1),
            following=by_rank.get(form.rank + 1),
            similar=similar,
            back=form.link(k=-(-form.rank // PAGE_ITEMS) * PAGE_ITEMS),
            path=uri if show_paths else "",
            has_original=os.path.isfile(uri),  # noqa: PTH113 - Path.is_file refuses long names
        )

    @router.get("/corpus/{corpus}")
    def corpus_page(corpus: str, page_number: int = 1) -> Response:
        browser = _browser(service, corpus)
        last = max(1, -(-len(browser) // PAGE_ITEMS))
        number = min(max(page_number, 1), last)
        rows = browser.page((number - 1) * PAGE_ITEMS, PAGE_ITEMS)
        has_card = bool(read_card(_folder(service, corpus)))
        return page(
            "corpus.html", corpus=corpus, rows=rows, number=number, last=last, total=len(browser), has_card=has_card
        )

    @router.get("/corpus/{corpus}/card")
    def card_page(corpus: str) -> Response:
        folder = _folder(service, corpus)
        card = re.sub(r"(?m)^> \[!([A-Z]+)\]", r"> **\1:**", read_card(folder))  # an alert, as on GitHub
        text = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image").render(card)
        return page("card.html", corpus=corpus, text=text, has_sheet=(folder / SHEET).is_file())

    @router.get("/corpus/{corpus}/figure/contact-sheet")
    def contact_sheet(corpus: str) -> Response:
        try:
            with (_folder(service, corpus) / SHEET).open("rb") as stream:
                return _jpeg(sampled_frames(stream, "image", max_pixels=SHEET_PIXELS, count=1)[0].image)
        except (OSError, MediaError) as error:
            raise _not_found("contact sheet", corpus) from error

    @router.get("/media/{corpus}")
    def media(corpus: str, item: str, large: bool = False) -> Response:
        """A picture, encoded anew; a large one from the original, if it can be read."""
        try:
            if large:
                uri = finder.record(corpus, item)["uri"]
                with contextlib.suppress(MediaError, PipelineError), open_media(uri) as stream:
                    return _jpeg(sampled_frames(stream, "image", max_pixels=LARGE**2, count=1)[0].image)
            return _jpeg(finder.picture(corpus, item, SIDE))
        except KeyError as error:
            raise _not_found("item", item) from error
        except (MediaError, PipelineError):  # its texts are still of use
            return _jpeg(Image.new("RGB", (SIDE, SIDE), "#c9ccd0"))

    @router.get("/original/{corpus}")
    def original(corpus: str, item: str) -> Response:
        """The item's own file, to be saved or played: a browser never shows it as a page."""
        with contextlib.suppress(KeyError):
            uri = finder.record(corpus, item)["uri"]
            if os.path.isfile(uri):  # noqa: PTH113 - Path.is_file refuses long names
                return FileResponse(uri, filename=Path(uri).name)
        raise _not_found("original", item)

    @router.get("/static/{name}")
    def static(name: Literal["style.css", "page.js"]) -> Response:
        return FileResponse(HERE / "static" / name, headers=CACHED)

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
    return Problem(404, f"an unknown {kind}, {name[:100]!r}", "one of this index", "start from the search page")


def _data_url(picture: Image.Image) -> str:
    thumbnail = picture.convert("RGB")
    thumbnail.thumbnail((SIDE, SIDE))
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(thumbnail)).decode()}"


def _jpeg(picture: Image.Image) -> Response:
    return Response(encode_jpeg(picture, 85), media_type="image/jpeg", headers=CACHED)
