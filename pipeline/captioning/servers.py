"""Chat servers as a user names them: their addresses, their key, and the model they serve."""

import contextlib
import os
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp

from pipeline.captioning.chat_client import (
    KEY_VARIABLE,
    NO_BACKEND,
    PROBE_TIMEOUT_S,
    RUN_ENDING,
    decode,
    error_text,
    read_body,
    request_headers,
)
from pipeline.errors import EnvironmentTrouble, UsageError

KEY_FILE = "mllm.key"
MAX_LISTED = 20  # models of a server in a message


def base_url(url: str) -> str:
    """`http://host:8000`, `…/v1` and `…/v1/chat/completions` all name the same server: `…/v1`."""
    with contextlib.suppress(ValueError):
        parts = urllib.parse.urlsplit(url)
        if "@" in parts.netloc:
            raise UsageError(f"--mllm-url: the URL holds a password; give the key in {KEY_VARIABLE} instead")
        if parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment):
            url = url.rstrip("/").removesuffix("/chat/completions")
            return url if url.count("/") > 2 else f"{url}/v1"
    raise UsageError(f"--mllm-url: {url!r} is not a URL such as http://127.0.0.1:8000/v1")


def api_key(run_folder: Path) -> str:
    """The key for the servers: that of the server this run has started, else the user's."""
    own = run_folder / KEY_FILE
    return own.read_text() if own.exists() else environment_key()


def environment_key() -> str:
    """The user's key, which no message shows."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"${KEY_VARIABLE} holds characters that an HTTP header cannot carry; use printable ASCII")
    return key


async def served_model(urls: Sequence[str], name: str, say: Callable[[str], None]) -> str:
    """The model that all available servers serve.

    Args:
        urls: The servers.
        name: The model asked for; empty for the only one served. With a name, a server needs no list of models.
        say: Prints a line about each server that does not answer, or has no list.

    Returns:
        The model's name.

    Raises:
        EnvironmentTrouble: No server answers, or one rejects the key.
        UsageError: The servers do not all serve this model, or without a name, one does not list what it serves.
    """
    models: dict[str, list[str]] = {}
    silent: list[str] = []
    unlisted: list[str] = []
    timeout, connector = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S), aiohttp.TCPConnector(force_close=True)
    headers = request_headers(environment_key())
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
        for url in map(base_url, urls):
            try:
                async with session.get(f"{url}/models") as response:
                    raw = await read_body(response)
            except (aiohttp.ClientError, OSError) as error:
                silent.append(f"{url}: {error or type(error).__name__}")
                continue
            message = f"{url}/models answered {response.status}: {error_text(raw)}"
            if response.status == 401 or (response.status == 403 and not name):
                raise EnvironmentTrouble(f"{message}: {RUN_ENDING[response.status]}")
            if response.status in NO_BACKEND:
                silent.append(message)
            elif response.status == 200 and (ids := model_ids(raw)):
                models[url] = ids
            else:
                unlisted.append(message)
    if unlisted and not name:
        raise UsageError(
            f"--mllm-url: {'; '.join(unlisted)}. That is not a list of models. Give the address of an "
            "OpenAI-compatible server, such as http://127.0.0.1:8000/v1; if it lists no models, name one with --mllm"
        )
    if not models and not unlisted:
        raise EnvironmentTrouble(
            f"no server answers: {'; '.join(silent)}. Start it or correct its address, or leave out --mllm-url to have "
            "one started, then run the same command again"
        )
    for trouble in silent:
        say(f"note: a server does not answer, and is not asked until it does: {trouble}")
    for trouble in unlisted:
        say(f"note: a server lists no models, so --mllm {name} is not checked: {trouble}")
    common = sorted(set.intersection(*map(set, models.values()))) if models else [name]
    if name in common or (not name and len(common) == 1):
        return name or common[0]
    listing = "; ".join(
        f"{url} serves {', '.join(served[:MAX_LISTED])}{' …' if served[MAX_LISTED:] else ''}"
        for url, served in models.items()
    )
    problem = f"not every server serves {name!r}" if name else "the servers do not serve one model only"
    raise UsageError(f"--mllm: {problem}: name a model that every server serves. {listing}")


def model_ids(raw: bytes) -> list[str]:
    """The ids in a list of models, in any form seen; entries without a usable one are left out."""
    body = decode(raw)
    listed = body.get("data") or body.get("models") if isinstance(body, dict) else body
    entries = listed if isinstance(listed, list) else []
    ids = [entry.get("id") or entry.get("name") if isinstance(entry, dict) else entry for entry in entries]
    return [model for model in ids if isinstance(model, str) and model.strip() and model.isprintable()]
