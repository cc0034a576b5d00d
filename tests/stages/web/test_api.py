"""The API over real loopback HTTP, with an engine of coloured squares."""

import base64
import concurrent.futures
import contextlib
import io
import json
import socket
import time
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from PIL import Image

from pipeline.errors import EnvironmentTrouble, UsageError
from stages.web.api import EXAMPLES, SearchRequest
from stages.web.problems import Buckets, Limits, Problem
from stages.web.server import create_app
from tests.stages.fake_finder import FakeFinder
from tests.stages.servers import call, running

FREE = Limits(rate=1e6)  # nobody is refused for asking too often


def request(url, method, path, body=None, headers=None):
    """(status, JSON or text of the answer, its headers)."""
    status, data, response = call(url, method, path, body, headers)
    answer = json.loads(data) if response.get_content_type() == "application/json" else data.decode()
    return status, answer, response


def search(url, **fields):
    return request(url, "POST", "/search", json.dumps(fields), {"Content-Type": "application/json"})


def first(url, **fields):
    status, answer, _ = search(url, **fields)
    assert status == 200, answer
    return [hits[0]["item_id"] for hits in answer["results"]]


def png(colour, size=(16, 16)):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


@pytest.fixture(scope="module")
def url():
    with running(create_app(FakeFinder(), limits=FREE)) as url:
        yield url


def test_a_text_several_texts_and_a_picture_find_their_items(url):
    assert first(url, query="ein rotes Quadrat, also rot") == ["red.jpg"]
    assert first(url, queries=["vert", "蓝", "أحمر"]) == ["green.jpg", "blue.jpg", "red.jpg"]
    assert first(url, picture=png((30, 170, 50))) == ["green.jpg"]
    between = png((130, 105, 35))  # words decide between red and green, and without them the picture decides
    assert first(url, queries=["rot", "vert"], picture=between) == ["red.jpg", "green.jpg"]
    assert first(url, query="something", picture=png((30, 170, 50))) == ["green.jpg"]


def test_an_answer_holds_ranks_and_no_path(url):
    status, answer, _ = search(url, query="rot", k=3, split="test", media_type="image", corpus="squares", hybrid=0.5)
    assert status == 200 and [hit["rank"] for hit in answer["results"][0]] == [1, 2, 3]
    assert answer["results"][0][0] == {
        "rank": 1, "score": 1.0, "corpus": "squares", "item_id": "red.jpg", "split": "test", "media_type": "image",
        "view": "short", "text": "A red square.", "matched": "picture",
        "taken": None, "camera": None, "place": None, "moment_s": None, "fits": None,
    }  # fmt: skip
    assert "/nowhere" not in json.dumps(answer)
    assert search(url, query="nothing")[1] == {"results": [[]], "notes": [""]}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "the body = {}"),
        ({"query": "rot", "queries": ["rot"]}, "the body = {"),
        ({"query": "\u200b\x00\n"}, "no letter"),
        ({"queries": ["rot", "x" * 2_001]}, "2,001 characters"),
        ({"queries": ["rot"] * 65}, "queries = ['rot'"),
        ({"query": "rot", "k": 101}, "k = 101"),
        ({"query": "rot", "hybrid": float("nan")}, "hybrid"),
        ({"query": "rot", "corpus": "../etc"}, "corpus: "),
        ({"query": "rot", "kay": 3}, "kay = 3"),
        ({"picture": base64.b64encode(b"%!PS-Adobe").decode()}, "no usable picture"),
        ({"picture": png("red", (5_001, 5_000))}, "5,001 x 5,000 pixels"),
        ({"query": "refuse"}, "…/index cannot answer"),
    ],
)
def test_a_search_that_cannot_be_answered_is_refused_with_reasons(url, body, reason):
    status, answer, _ = search(url, **body)
    assert status == 422 and set(answer["error"]) == {"got", "wanted", "do"}
    assert reason in answer["error"]["got"] and all(answer["error"].values())
    assert "/nowhere" not in json.dumps(answer)


def test_large_and_slow_bodies_are_refused():
    with running(create_app(FakeFinder(), limits=replace(FREE, body_bytes=1_000, body_seconds=0.5))) as url:
        assert search(url, query="x" * 2_000)[0] == 413
        chunks = (b'{"query": "' + b"x" * 500 for _ in range(10))
        status, answer, _ = request(url, "POST", "/search", chunks, {"Content-Type": "application/json"})
        assert status == 413 and "1,000 bytes" in answer["error"]["wanted"]
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
            head = f"POST /search HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: 20\r\n\r\n{{".encode())
            assert b"408" in client.recv(100)


HALVES = {
    "nothing": "",
    "half a head": "GET / HTTP/1.1\r\n",
    "half a body": "POST /search HTTP/1.1\r\nContent-Length: 9\r\nHost: 127.0.0.1\r\n\r\n{",
}


@pytest.mark.parametrize("half", HALVES)
def test_half_open_connections_keep_nobody_out(half, monkeypatch):
    monkeypatch.setattr("stages.web.connections.MAX_CONNECTIONS", 20)
    with running(create_app(FakeFinder(), limits=FREE)) as url, contextlib.ExitStack() as stack:
        parts = urlsplit(url)
        for _ in range(60):
            client = stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=10))
            client.sendall(HALVES[half].encode())
        assert first(url, query="rot") == ["red.jpg"]
        client.setblocking(False)
        with pytest.raises(BlockingIOError):  # the newest is still open
            client.recv(1)


def test_all_bodies_together_are_bounded():
    with running(create_app(FakeFinder(), limits=replace(FREE, total_bytes=5_000))) as url:
        parts = urlsplit(url)
        head = f"POST /search HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
            client.sendall(f"{head}Content-Length: 9000\r\n\r\n{'x' * 4_000}".encode())
            time.sleep(0.2)
            assert search(url, queries=["a rather long query"] * 64)[0] == 503
        time.sleep(0.2)
        assert search(url, queries=["a rather long query"] * 64)[0] == 200


def test_a_fault_of_the_engine_is_reported_without_its_traceback_and_ends_nothing(capfd):
    with running(create_app(FakeFinder(), limits=FREE)) as url:
        status, answer, _ = search(url, query="bug")
        assert status == 500 and set(answer["error"]) == {"got", "wanted", "do"}
        assert "secret" not in json.dumps(answer) and "ZeroDivision" not in json.dumps(answer)
        assert first(url, query="rot") == ["red.jpg"]
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_refused_query_does_not_fail_its_neighbours():
    finder = FakeFinder(call_s=0.1)
    with running(create_app(finder, limits=FREE)) as url, concurrent.futures.ThreadPoolExecutor(8) as pool:
        search(url, query="rot")
        answers = list(pool.map(lambda text: search(url, query=text)[0], ["rot", "refuse", *["blau"] * 6]))
        assert answers == [200, 422, *[200] * 6]
        assert max(finder.calls) > 1


def test_concurrent_queries_are_answered_in_few_calls():
    finder = FakeFinder(call_s=0.05)
    words = {"rot": "red.jpg", "grün": "green.jpg", "blau": "blue.jpg"}
    with running(create_app(finder, limits=FREE)) as url, concurrent.futures.ThreadPoolExecutor(30) as pool:
        asked = list(words) * 10
        items = list(pool.map(lambda word: first(url, query=word, k=3 if word == "rot" else 5), asked))
        assert items == [[words[word]] for word in asked]  # each client its own answer
        assert sum(finder.calls) == 30 and len(finder.calls) <= 15


def test_more_queries_than_can_wait_are_refused_at_once():
    finder = FakeFinder(call_s=1.0)
    limits = replace(FREE, waiting=2)
    with running(create_app(finder, limits=limits)) as url, concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = sorted(pool.map(lambda _: search(url, query="rot")[::2], range(6)), key=lambda answer: answer[0])
        assert [status for status, _ in answers] == [200, 200, 503, 503, 503, 503]
        assert answers[-1][1]["Retry-After"] == "1"


def test_the_index_is_refreshed_and_another_models_ends_the_answers(capfd, monkeypatch):
    finder = FakeFinder()
    with running(create_app(finder, limits=FREE)) as url:
        for _ in range(5):
            search(url, query="rot")
        assert finder.refreshes == 1  # at most once a second
        monkeypatch.setattr("stages.web.service.REFRESH_S", 0.0)
        finder.trouble = EnvironmentTrouble("being written")
        assert first(url, query="rot") == ["red.jpg"] and finder.refreshes == 2  # the old answers
        finder.trouble = UsageError("the index /nowhere/index was made again with another model")
        status, answer, _ = search(url, query="rot")
        assert status == 503 and "…/index was made again" in answer["error"]["got"]
        finder.trouble = None
        assert search(url, query="rot")[0] == 503 and request(url, "GET", "/health")[0] == 503
    assert "being written" in capfd.readouterr().err


def test_health_and_docs(url):
    status, answer, _ = request(url, "GET", "/health")
    assert status == 200 and answer == {
        "status": "ok", "items": 5, "corpora": ["squares"], "splits": ["test", "train"],
        "languages": "German, English and French", "waiting": 0,
    }  # fmt: skip
    _, answer, _ = request(url, "GET", "/openapi.json")
    assert {"429", "503"} <= set(answer["paths"]["/search"]["post"]["responses"])
    for example in ("one query", "several queries"):
        SearchRequest.model_validate(EXAMPLES[example])
    status, text, headers = request(url, "GET", "/docs")
    assert status == 200 and "eine Katze" in text and "://" not in text.replace("http://HOST", "")
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_metrics_count_requests_by_route_and_status():
    with running(create_app(FakeFinder(), limits=FREE)) as url:
        for query in ("rot", "grün", "refuse", "bug"):
            search(url, query=query, offset=1, k=1)
        call(url, "GET", "/elsewhere/1")
        _, text, _ = request(url, "GET", "/metrics")
    for route, status, count in (("/search", 200, 2), ("/search", 422, 1), ("/search", 500, 1), ("none", 404, 1)):
        assert f'leccr_request_seconds_count{{route="{route}",status="{status}"}} {count}.0' in text
    assert "leccr_queries_waiting 0.0" in text and "leccr_items 5.0" in text


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ("{", "application/json", 422),
        ("[" * 100_000, "application/json", 400),
        (b'{"query": "\\ud800"}', "application/json", 422),
        ('{"query": "rot"}', "text/plain", 422),  # which a page of another site may send without asking first
    ],
)
def test_bodies_that_are_not_json_are_refused(url, body, content_type, status):
    assert request(url, "POST", "/search", body, {"Content-Type": content_type})[0] == status


def test_a_client_that_asks_too_often_waits():
    with running(create_app(FakeFinder(), limits=Limits(rate=0.5))) as url:
        assert search(url, queries=["rot"] * 64)[0] == 200
        status, answer, headers = search(url, queries=["rot"] * 10)
        assert status == 429 and 1 <= int(headers["Retry-After"]) <= 20 and "64 at once" in answer["error"]["wanted"]


def test_buckets_fill_again_and_each_client_has_one():
    now = [0.0]
    buckets = Buckets(Limits(rate=20), clock=lambda: now[0])
    buckets.take("a", 80)
    buckets.take("b", 80)
    with pytest.raises(Problem) as caught:
        buckets.take("a", 30)
    assert caught.value.headers["Retry-After"] == "2"  # thirty tokens at twenty a second
    now[0] = 1.5
    buckets.take("a", 30)
    with pytest.raises(Problem):
        buckets.take("a", 1)
