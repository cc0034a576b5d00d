"""A search page for the browser, on this machine alone: words in any language, or a picture, find items of an index.

    python stages/page.py --index INDEX [--host 127.0.0.1] [--port 7860]

Nothing is fetched from elsewhere, nothing is told to anybody, and only pictures of the index are served.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.quality.languages import needs
from stages.processes import Parser, run_program
from stages.web.page_guard import EventGuard, served
from stages.web.page_language import load
from stages.web.server import Guard, add_options, address, end_on_sigterm, listen, own_names, server_of

if TYPE_CHECKING:
    from stages.retrieval.engine import Finder

CACHE = "GRADIO_TEMP_DIR"  # where Gradio keeps pictures between making and sending them, and uploads
KEPT_S = 3_600
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
STYLE = """
.told {border-collapse: collapse; width: 100%}
.told th, .told td {border: 1px solid var(--border-color-primary); padding: .3em .6em; text-align: start}
.told td {overflow-wrap: anywhere; white-space: pre-wrap}
.told tbody th {width: 12em}
.told td:first-child {overflow-wrap: normal}
.caption-label {inset: auto 0 0 0 !important; max-width: 100% !important; white-space: normal !important}
@media (max-width: 640px) {.grid-container {grid-template-columns: repeat(2, minmax(0, 1fr)) !important}}
button:focus-visible {outline: 3px solid var(--color-accent); outline-offset: 2px}
"""


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    end_on_sigterm()
    with contextlib.closing(listen(options.host, options.port)) as bound, private_cache() as cache:
        from stages.retrieval.engine import open_finder  # late: mistakes are told before the model's libraries load

        finder = open_finder(options.index, options.checkpoint, options.data)
        app = create_app(finder, cache, options.host)
        load()
        told = f"{len(finder):,} items: open {address(bound, options.host)}, Ctrl-C ends it"
        print(told, file=sys.stderr, flush=True)
        server_of(app).run(sockets=[bound])
    return 0


def create_app(finder: "Finder", cache: Path, host: str = "127.0.0.1") -> Any:
    """The page as an ASGI app. `cache`: of `private_cache`, the one folder whose files it serves."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read as Gradio is imported
    try:
        import gradio as gr
        from fastapi import FastAPI
    except ImportError as error:
        raise needs("page", "the search page", error) from error
    from stages.web.page_tabs import card_tab, corpus_tab, search_tab

    with gr.Blocks(title="Search", analytics_enabled=False, delete_cache=(KEPT_S, KEPT_S)) as blocks:
        gr.Markdown("# Search")
        with gr.Tab("Search"):
            search_tab(finder)
        with gr.Tab("Corpus"):
            corpus_tab(finder, blocks)
        with gr.Tab("Card"):
            card_tab(finder, blocks)
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        path="/",
        allowed_paths=[],
        footer_links=[],
        show_error=False,
        max_file_size="32mb",
        ssr_mode=False,
        enable_monitoring=False,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
    )
    blocks.has_launched = True  # Gradio looks at this before it checks which files an event may name
    guarded = EventGuard(app, cache)
    return Guard(guarded, names=own_names(host), allowed=lambda path: served(path, cache), headers=HEADERS)


@contextlib.contextmanager
def private_cache() -> Any:
    """A folder of this program's own for what Gradio keeps, gone with it; Gradio's default is one of all users'."""
    before = os.environ.get(CACHE)
    with tempfile.TemporaryDirectory(prefix="search-page-", ignore_cleanup_errors=True) as folder:
        os.environ[CACHE] = str(Path(folder).resolve())
        try:
            yield Path(folder).resolve()
        finally:
            os.environ.pop(CACHE)
            if before is not None:
                os.environ[CACHE] = before


def parser() -> argparse.ArgumentParser:
    made = Parser("page.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    add_options(made, 7860)
    return made


if __name__ == "__main__":
    sys.exit(run_program(main))
