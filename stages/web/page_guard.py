"""What of Gradio's own requests the page lets through: its routes that the page needs, its files that it made.

Gradio takes any dictionary that looks like one of its files, in place of any input, and copies the file at its path,
or fetches its address, into the folder that it serves. Its check of the path is left out where its app is mounted in
another (6.31), and addresses are always fetched. So neither reaches it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.web.server import refuse

MOST_BYTES = 1_000_000  # of an event: a query and its filters
EVENT = "/gradio_api/queue/join"
# Gradio has more: to fetch URLs, to run functions by name, to edit the page.
ROUTES = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json")
FOLDERS = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/")
API = ("queue/join", "queue/data", "upload", "upload_progress", "startup-events", "reset", "cancel", "info")
FILE = "/gradio_api/file="


def served(path: str, cache: Path) -> bool:
    """Whether a request's path is one of the page's own: of files, those in the cache alone."""
    if path.startswith(FILE):
        return inside(path.removeprefix(FILE), cache)
    known = path in ROUTES or path.removeprefix("/gradio_api/") in API or path.startswith(FOLDERS)
    return known and ".." not in path.split("/")


def inside(name: str, cache: Path) -> bool:
    path = Path(name)
    return path.is_absolute() and ".." not in path.parts and path.is_relative_to(cache)


class EventGuard:
    """ASGI middleware that refuses events in which a file is named that is not in the cache."""

    def __init__(self, app: Any, cache: Path):
        self.app, self.cache = app, cache

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != EVENT:
            await self.app(scope, receive, send)
            return
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MOST_BYTES:
                await refuse(send, 413, "a larger event", f"at most {MOST_BYTES:,} bytes")
                return
        try:
            event = json.loads(body)
            strange = [path for path in _paths(event) if not inside(path, self.cache)]
        except (ValueError, RecursionError):
            await refuse(send, 400, "an event that is no JSON", "one of the page's own")
            return
        if strange:
            await refuse(send, 403, "an event that names a file", "one that was uploaded here")
            return
        # what was checked goes on, not what was sent: another parser might read that otherwise
        checked = json.dumps(event).encode()
        headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"transfer-encoding")]
        scope = {**scope, "headers": [*headers, (b"content-length", str(len(checked)).encode())]}
        parts = iter([{"type": "http.request", "body": checked, "more_body": False}])

        async def again() -> Any:
            return next(parts, None) or await receive()

        await self.app(scope, again, send)


def _paths(value: Any) -> Iterator[str]:
    """Whatever stands under `path`, at any depth."""
    if isinstance(value, dict):
        if "path" in value:
            yield str(value["path"])
        for one in value.values():
            yield from _paths(one)
    elif isinstance(value, list):
        for one in value:
            yield from _paths(one)
