"""The scripted server: answers, faults, slots and counts that other tests rely on."""

import asyncio
import base64
import io
import json
import time
from pathlib import Path

import aiohttp
import pytest
from PIL import Image

from tests.loopback import FAULTS, Loopback, answer_text, request_digest

ROOT = Path(__file__).resolve().parents[1]


def jpeg(colour: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 24), (colour % 256, colour * 7 % 256, 90)).save(stream, "JPEG")
    return stream.getvalue()


def chat(images: list[bytes], prompt: str, model: str = "loopback") -> dict:
    urls = [f"data:image/jpeg;base64,{base64.b64encode(image).decode()}" for image in images]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [*parts, {"type": "text", "text": prompt}]
    return {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 16}


def ask(url: str, *chats: dict, timeout_s: float = 10, **headers: str) -> list:
    """(status, headers, body bytes) of each request, sent together; the exception of one that got no answer."""

    async def one(session, fields):
        async with session.post(f"{url}/v1/chat/completions", json=fields, headers=headers) as response:
            return response.status, response.headers, await response.read()

    async def every():
        timeout, connector = aiohttp.ClientTimeout(total=timeout_s), aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            return await asyncio.gather(*(one(session, fields) for fields in chats), return_exceptions=True)

    return asyncio.run(every())


def get(url: str, path: str, **headers: str) -> tuple[int, dict]:
    async def one():
        async with aiohttp.ClientSession() as session, session.get(url + path, headers=headers) as response:
            return response.status, await response.json() if response.content_length else {}

    return asyncio.run(one())


def said(answer) -> str:
    status, _, body = answer
    assert status == 200
    return json.loads(body)["choices"][0]["message"]["content"]


def test_each_answer_is_the_digest_of_what_was_sent():
    asked = [([jpeg(n)], f"Describe picture {n}.") for n in range(6)] + [([jpeg(1), jpeg(2), jpeg(3)], "A clip.")]
    with Loopback(latency_s=0.02, sigma=1.0) as server:
        answers = ask(server.url, *(chat(*request) for request in asked))
        stats = server.stats()
    assert [said(answer) for answer in answers] == [answer_text(*request) for request in asked]
    assert stats["seen"] == {request_digest(*request): [1, 1] for request in asked}
    assert (stats["requests"], stats["answered"]) == (7, 7)
    usage = json.loads(answers[-1][2])["usage"]
    assert usage == {"prompt_tokens": 64 * 3 + 2, "completion_tokens": 4}


def test_key_model_and_broken_requests_are_refused_as_vllm_does():
    with Loopback(model="tiny", api_key="secret") as server:
        right = {"Authorization": "Bearer secret"}
        assert get(server.url, "/health")[0] == 200
        assert get(server.url, "/v1/models")[0] == 401
        assert get(server.url, "/v1/models", **right)[1]["data"][0]["id"] == "tiny"
        assert ask(server.url, chat([], "Hello.", "tiny"), Authorization="Bearer wrong")[0][0] == 401
        linked = chat([jpeg(1)], "x", "tiny")
        linked["messages"][0]["content"][0]["image_url"]["url"] = "http://127.0.0.1/a.jpg"
        chats = chat([], "x", "other"), linked, {"model": "tiny"}, chat([jpeg(1)], "x", "tiny")
        assert [answer[0] for answer in ask(server.url, *chats, **right)] == [404, 400, 400, 200]
        stats = server.stats()
    assert (stats["refused"], stats["answered"], stats["requests"]) == (3, 1, 4)


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_what_its_name_says(kind):
    with Loopback(fault_rate=1.0, faults=(kind,), retry_after_s=0.25, stall_s=30) as server:
        answer = ask(server.url, chat([jpeg(5)], "What is this?"), timeout_s=0.3 if kind == "stall" else 10)[0]
        stats = server.stats()
    assert stats["faults"] == {name: int(name == kind) for name in FAULTS}
    assert stats["answered"] == 0
    assert list(stats["seen"].values()) == [[1, 0]]
    errors = {
        "stall": asyncio.TimeoutError,
        "reset_midway": (aiohttp.ClientPayloadError, aiohttp.ClientOSError),
        "reset_before": aiohttp.ClientConnectionError,
    }
    if kind in errors:
        assert isinstance(answer, errors[kind]) and not isinstance(answer, aiohttp.ClientConnectorError)
    elif kind in ("429", "500", "503"):
        assert answer[0] == int(kind)
        assert answer[1].get("Retry-After") == ("0.25" if kind == "429" else None)
    elif kind in ("not_json", "truncated_json"):
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            said(answer)
    else:
        assert said(answer) == "" if kind == "empty" else "choices" not in json.loads(answer[2])


def test_slots_bound_what_is_served_at_once_and_a_client_that_leaves_frees_its_slot():
    with Loopback(slots=2, latency_s=0.05) as server:
        start = time.monotonic()
        answers = ask(server.url, *(chat([jpeg(n)], "Queue.") for n in range(8)))
        assert time.monotonic() - start >= 0.2
        assert [answer[0] for answer in answers] == [200] * 8
        assert server.stats()["max_concurrent"] == 8
        server.script(slots=1, latency_s=60.0)
        assert isinstance(ask(server.url, chat([], "Gone."), timeout_s=0.2)[0], asyncio.TimeoutError)
        server.script(latency_s=0.0)
        assert ask(server.url, chat([], "Next."))[0][0] == 200
