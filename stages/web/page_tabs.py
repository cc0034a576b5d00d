"""The three tabs of the search page: search, the corpora, their cards.

A picture is handed over as pixels, never as a path.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from pipeline.card.markdown import public
from pipeline.errors import MediaError, PipelineError
from pipeline.media.images import Limits, frames
from stages.retrieval.corpus_browser import Browser, card
from stages.retrieval.engine import MOST_CHARACTERS, QUERY_PIXELS, Finder, Hit
from stages.web import page_html, page_language

SIDE = 320  # pixels of a picture's longer side
PER_PAGE = 24
UPLOADS = Limits(max_source_pixels=50_000_000, max_source_bytes=32 * 2**20)
FIGURE_PIXELS = 4_000_000
FIGURES = {
    "contact-sheet.png": "Pictures, and what was written about them",
    "quality.png": "Quality of the translations",
}
ANY = ""  # of a filter
# Nothing of the page is to be called by name; what is asked while an answer is under way is answered after it.
EVENT: dict[str, Any] = {"api_visibility": "private", "trigger_mode": "always_last"}


def search_tab(finder: Finder) -> None:
    found = gr.State([])
    with gr.Row():
        query = gr.Textbox(
            label="What to find", placeholder=f"in {finder.languages}", max_length=MOST_CHARACTERS, lines=1,
            scale=5, autofocus=True, elem_id="query",
        )  # fmt: skip
        button = gr.Button("Search", variant="primary", scale=1, elem_id="search")
    with gr.Accordion("Find what resembles a picture, and filters", open=False, elem_id="more"):
        with gr.Row():
            upload = gr.File(label="A picture, instead of words", type="binary", height=120, elem_id="upload")
            shown = gr.Image(label="Searched with", interactive=False, height=120, buttons=[], visible=False)
        with gr.Row():
            corpus = gr.Dropdown([("all", ANY), *((name, name) for name in finder.corpora)], value=ANY, label="Corpus")
            split = gr.Dropdown([("all", ANY), *((name, name) for name in finder.splits)], value=ANY, label="Split")
            kinds = [("all", ANY), ("images", "image"), ("videos", "video")]
            kind = gr.Dropdown(kinds, value=ANY, label="Kind")
            most = gr.Slider(1, 50, value=10, step=1, label="Results")
    status = gr.HTML(page_html.status(f"{len(finder):,} items to search."), elem_id="status", padding=False)
    language = gr.HTML("", elem_id="language", padding=False)
    gallery = gr.Gallery(
        label="Results", show_label=False, columns=5, height="auto", object_fit="contain", format="jpeg",
        allow_preview=False, interactive=False, buttons=[], elem_id="results",
    )  # fmt: skip
    chosen = gr.HTML("", elem_id="chosen")
    filters, answer = [corpus, split, kind, most], [gallery, found, status, chosen]

    def by_text(text: str, data: bytes | None, *filters: Any) -> Any:
        if not text.strip():  # then a picture that was given is what to search for
            return by_picture(data, *filters)
        return *results(finder, text, *filters), gr.Image(None, visible=False)

    def by_picture(data: bytes | None, *filters: Any) -> Any:
        if data is None:
            told = "Nothing to search for yet: write a few words, or give a picture."
            return *nothing(told), gr.Image(None, visible=False)
        try:
            picture = frames(io.BytesIO(data), "image", max_pixels=QUERY_PIXELS, count=1, limits=UPLOADS)[0].image
        except MediaError as error:
            told = f"That file cannot be searched with: {error}. Give a picture, such as a JPEG."
            return *nothing(told), gr.Image(None, visible=False)
        return *results(finder, picture, *filters), gr.Image(picture, visible=True)

    def seems(text: str) -> str:
        return page_html.status(page_language.told(text, finder.tags))

    for event in (query.submit, button.click):
        event(by_text, [query, upload, *filters], [*answer, shown], **EVENT)
        event(seems, query, language, show_progress="hidden", **EVENT)
    for event in (upload.upload, upload.clear):
        event(by_picture, [upload, *filters], [*answer, shown], **EVENT)

    def choose(hits: list[Any], event: gr.SelectData) -> str:  # Gradio reads these types: a quoted one would fail
        return details(finder, hits[event.index]) if 0 <= event.index < len(hits) else ""

    gallery.select(choose, found, chosen, show_progress="hidden", **EVENT)


def results(finder: Finder, query: str | Image.Image, corpus: str, split: str, kind: str, most: float) -> Any:
    try:
        finder.refresh()
        wanted: dict[str, Any] = {"corpus": corpus or None, "split": split or None, "media_type": kind or None}
        (hits,) = finder.find([query], int(most), **wanted)
    except PipelineError as error:
        return nothing(f"That could not be searched: {public(str(error))}")
    if not hits:
        return nothing("Nothing was found. Take a filter away, or use other words.")
    pictures = [(picture_of(finder, (hit.corpus, hit.item_id)), page_html.under(hit)) for hit in hits]
    told = f"{len(hits)} results, best first. Choose one to see what is known of it."
    return pictures, hits, page_html.status(told), details(finder, hits[0])


def nothing(why: str) -> Any:
    return [], [], page_html.status(why), ""


def details(finder: Finder, hit: Hit) -> str:
    """Of a result, also its other descriptions, where its corpus can be read."""
    try:
        written = Browser(finder.corpora[hit.corpus]).named(hit.item_id).descriptions
    except (KeyError, PipelineError):
        written = []
    return page_html.result(hit) + (page_html.descriptions(written) if written else "")


def picture_of(finder: Finder, key: tuple[str, str]) -> Image.Image:
    """Grey where there is none, or it cannot be read: its text is still of use."""
    try:
        return finder.picture(key, SIDE)
    except (KeyError, MediaError, PipelineError):
        return Image.new("RGB", (SIDE, SIDE), "#c9ccd0")


def corpus_tab(finder: Finder, blocks: gr.Blocks) -> None:
    with gr.Row():
        corpus = gr.Dropdown(list(finder.corpora), value=next(iter(finder.corpora), None), label="Corpus")
        before = gr.Button("Previous page", elem_id="before")
        page = gr.Number(1, label="Page", precision=0, minimum=1, elem_id="page")
        after = gr.Button("Next page", elem_id="after")
    status = gr.HTML("", elem_id="corpus-status", padding=False)
    gallery = gr.Gallery(
        label="Items", show_label=False, columns=8, height="auto", object_fit="contain", format="jpeg",
        allow_preview=False, interactive=False, buttons=[], elem_id="items",
    )  # fmt: skip
    chosen = gr.HTML("", elem_id="item")

    def turn(name: str, page: float | None, pages: int) -> Any:
        try:
            browser = Browser(finder.corpora[name])
            last = max(1, -(-len(browser) // PER_PAGE))
            number = min(max(1, int(page or 1) + pages), last)
            rows = browser.page((number - 1) * PER_PAGE, PER_PAGE)
        except (KeyError, PipelineError) as error:
            return 1, [], page_html.status(f"That corpus cannot be read: {public(str(error))}"), ""
        pictures = [(picture_of(finder, (name, row["item_id"])), f"{row['item_id']} · {row['split']}") for row in rows]
        told = f"Page {number:,} of {last:,}; {len(browser):,} items. Choose one to see what is known of it."
        return number, pictures, page_html.status(told), ""

    def choose(name: str, page: float, event: gr.SelectData) -> str:
        try:
            return page_html.item(Browser(finder.corpora[name]).item((int(page) - 1) * PER_PAGE + event.index))
        except (KeyError, IndexError, PipelineError) as error:
            return page_html.status(f"That item cannot be read: {public(str(error))}")

    inputs, outputs = [corpus, page], [page, gallery, status, chosen]
    for event, pages in ((before.click, -1), (after.click, 1), (page.submit, 0)):
        event(_turning(turn, pages), inputs, outputs, **EVENT)
    corpus.change(lambda name: turn(name, 1, 0), corpus, outputs, **EVENT)
    gallery.select(choose, inputs, chosen, show_progress="hidden", **EVENT)
    blocks.load(_turning(turn, 0), inputs, outputs, **EVENT)


def _turning(turn: Callable[..., Any], pages: int) -> Callable[..., Any]:
    return lambda name, page: turn(name, page, pages)


def card_tab(finder: Finder, blocks: gr.Blocks) -> None:
    first = next(iter(finder.corpora), None)
    corpus = gr.Dropdown(list(finder.corpora), value=first, label="Corpus")
    text = gr.Markdown("", sanitize_html=True, latex_delimiters=[], elem_id="card")
    figures = [gr.Image(label=label, interactive=False, buttons=[]) for label in FIGURES.values()]

    def show(name: str) -> Any:
        folder = finder.corpora.get(name)
        if folder is None:
            return ["There is no such corpus.", *(gr.Image(None, visible=False) for _ in FIGURES)]
        drawn = [figure(folder / file) for file in FIGURES]
        return [card(folder) or "This corpus has no card.", *(gr.Image(one, visible=one is not None) for one in drawn)]

    corpus.change(show, corpus, [text, *figures], **EVENT)
    blocks.load(show, corpus, [text, *figures], **EVENT)


def figure(path: Path) -> Image.Image | None:
    try:
        with path.open("rb") as stream:
            return frames(stream, "image", max_pixels=FIGURE_PIXELS, count=1)[0].image
    except (OSError, MediaError):
        return None
