"""What the service says of itself: a page without anything from elsewhere, and the examples of its OpenAPI."""

import html
import json
from typing import Any

from stages.web.limits import Limits

EXAMPLES: dict[str, dict[str, Any]] = {
    "one query": {"query": "eine Katze auf dem Sofa", "k": 5},
    "several queries": {"queries": ["un gato", "一只猫", "قطة"], "split": "test", "media_type": "image"},
    "a picture": {"picture": "iVBORw0KGgo…", "k": 5},
}
_STYLE = "body{font:16px/1.5 system-ui,sans-serif;max-width:50em;margin:2em auto;padding:0 1em}pre{overflow-x:auto}"


def described(limits: Limits) -> str:
    return (
        f"Finds images and videos by a text in any language that the index knows, or by a picture. Limits: "
        f"{limits.characters:,} characters a text, {limits.queries} queries a request, {limits.results} results a "
        f"query, {limits.body_bytes:,} bytes a request, {limits.picture_bytes:,} bytes and {limits.picture_pixels:,} "
        f"pixels a picture, {limits.burst} queries of one client at once and {limits.rate:g} a second (429), "
        f"{limits.waiting:,} queries waiting (503). Errors are JSON: what was got, what was wanted, what to do."
    )


def page(limits: Limits) -> str:
    """The page /docs, in HTML."""
    calls = [
        "curl http://HOST:PORT/search -H 'Content-Type: application/json' \\\n"
        f"  -d '{json.dumps(body, ensure_ascii=False)}'"
        for body in EXAMPLES.values()
    ]
    examples = "".join(
        f"<h2>POST /search: {html.escape(name)}</h2><pre>{html.escape(call)}</pre>"
        for name, call in zip(EXAMPLES, calls, strict=True)
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Search</title><style>{_STYLE}</style>"
        f"<h1>Search</h1><p>{html.escape(described(limits))}</p>{examples}"
        "<h2>GET /health</h2><p>What is searched: items, corpora, splits, languages; 503 where it cannot be.</p>"
        "<p>All fields and answers: <a href=openapi.json>openapi.json</a></p></html>"
    )
