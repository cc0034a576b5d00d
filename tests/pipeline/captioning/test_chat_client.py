"""The chat client against one server on loopback: whose fault a failure is, what is asked again, and when."""

import asyncio
import base64
import email.utils
import json
import math
import time

import pytest

from pipeline.captioning import chat_client as module
from pipeline.captioning.chat_client import Retries, base_url, media_of
from pipeline.captioning.prompts import View
from pipeline.errors import EnvironmentTrouble, UsageError
from tests.loopback import Loopback
from tests.pipeline.captioning.scripted import Scripted, ask_many, ask_once, client_of, expected, reply


@pytest.fixture(scope="module")
def loopback():
    with Loopback() as server:
        yield server


def test_the_request_has_the_pictures_first_and_the_key_in_its_header_only():
    async def ask():
        async with (
            Scripted() as server,
            client_of(server, key="geheim", model='a "model" of 100 %s') as client,
        ):
            answer = await client.ask(View("v", "unused", 77, 0.5), 'Wer? "日本"', media_of([b"one", b"two"]))
            return answer, *server.chats[0]

    answer, headers, body = asyncio.run(ask())
    assert answer.text == "A cat."
    assert headers["Authorization"] == "Bearer geheim"
    assert "geheim" not in json.dumps(body)
    assert (body["model"], body["max_tokens"], body["temperature"]) == ('a "model" of 100 %s', 77, 0.5)
    *pictures, text = body["messages"][0]["content"]
    urls = [f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" for jpeg in (b"one", b"two")]
    assert [part["image_url"]["url"] for part in pictures] == urls
    assert text == {"type": "text", "text": 'Wer? "日本"'}


def test_a_permanent_refusal_fails_the_record_at_once_with_the_servers_words():
    error, server = ask_once({"status": 400, "text": '{"error": {"message": "too many pixels"}}'})
    assert (error.kind, error.permanent, error.attempts) == ("http_400", True, 1)
    assert str(error).endswith("answered 400: too many pixels")
    assert len(server.times) == 1


@pytest.mark.parametrize(("status", "remedy"), [(401, module.KEY_VARIABLE), (404, "--mllm"), (307, "--mllm-url")])
def test_a_status_that_no_record_can_survive_ends_the_run_at_once(status, remedy):
    error, server = ask_once({"status": status, "text": "no", "headers": {"Location": "/elsewhere"}})
    assert isinstance(error, EnvironmentTrouble)
    assert remedy in str(error) and str(status) in str(error)
    assert (len(server.times), server.probes) == (1, 0)


@pytest.mark.parametrize("status", [408, 429, 500, 503, 520])
def test_a_transient_status_is_asked_again_and_fails_when_the_attempts_are_spent(status):
    failing = {"status": status, "text": "busy"}
    answer, server = ask_once(failing, failing, reply())
    assert (answer.text, len(server.times)) == ("A cat.", 3)
    error, server = ask_once(failing)
    assert (error.kind, error.permanent, error.attempts) == (f"http_{status}", False, 3)
    assert len(server.times) == 3


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("reset_before", "connection"), ("reset_midway", "connection"), ("stall", "timeout"), ("empty", "empty")]
    + [(fault, "unparsable") for fault in ("not_json", "truncated_json", "no_choices")],
)
def test_a_cut_connection_or_a_bad_answer_is_asked_again(loopback, fault, kind):
    loopback.script(fault_rate=1.0, faults=[fault])
    retries = Retries(attempts=2, timeout_s=0.3, patience_s=5.0, first_wait_s=0.01)
    [[error]] = ask_many([loopback], 1, retries)
    assert (error.kind, error.permanent, error.attempts) == (kind, False, 2)
    loopback.script(fault_rate=0.5, faults=[fault])  # some of the first attempts fail, some of them twice
    assert ask_many([loopback], 12, Retries(20, 0.3, 5.0, 0.01, 0.01)) == expected(12)
    loopback.script(fault_rate=0.0)


def test_a_server_is_left_alone_for_as_long_as_it_asks():
    _, server = ask_once({"status": 429, "headers": {"Retry-After": "0.2"}}, reply())
    assert 0.2 <= server.times[1] - server.times[0] < 0.7


@pytest.mark.parametrize("asked_s", [86400, math.inf])
def test_a_server_that_asks_for_more_than_the_patience_ends_the_run(asked_s):
    date = asked_s < math.inf and email.utils.formatdate(time.time() + asked_s, usegmt=True)
    error, server = ask_once({"status": 429, "headers": {"Retry-After": date or "inf"}})
    assert isinstance(error, EnvironmentTrouble) and "--patience" in str(error)
    assert len(server.times) == 1


@pytest.mark.parametrize(("counts", "tokens"), [((7, 3), (7, 3)), (("7", None), (None, None))])
def test_counts_of_tokens_are_kept_and_halves_of_characters_are_not(counts, tokens):
    usage = dict(zip(("prompt_tokens", "completion_tokens"), counts, strict=True))
    answer, _ = ask_once(reply("a \ud83d cat", usage=usage))
    assert (answer.text, answer.finish_reason) == ("a ? cat", "stop")
    assert (answer.prompt_tokens, answer.completion_tokens) == tokens


@pytest.mark.parametrize(
    ("attempt", "asked_s", "least", "most"), [(1, 0, 0.25, 0.5), (5000, 0, 15, 30), (3, 99, 99, 124)]
)
def test_backoff_is_bounded_and_never_sooner_than_asked(attempt, asked_s, least, most):
    assert all(least <= Retries().wait_s(attempt, asked_s) <= most for _ in range(50))


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("http://[::1]:8000/", "http://[::1]:8000/v1"),
        ("https://host/v1/chat/completions", "https://host/v1"),
        ("https://host/proxy/openai/v1", "https://host/proxy/openai/v1"),
    ],
)
def test_base_url(given_url, url):
    assert base_url(given_url) == base_url(url) == url


@pytest.mark.parametrize("url", ["host:8000", "http://[::1", "http://h/v1?key=1", "http://me:geheim@host:8000"])
def test_invalid_urls_and_passwords_in_urls_are_rejected(url):
    with pytest.raises(UsageError, match="--mllm-url: ") as raised:
        base_url(url)
    assert "geheim" not in str(raised.value)


def test_servers_of_different_models_and_refused_keys_are_reported_before_anything_starts(loopback, monkeypatch):
    def served(*urls, name=""):
        return asyncio.run(module.served_model(urls, name, print))

    with Loopback(model="tiny", api_key="right") as other:
        monkeypatch.setenv(module.KEY_VARIABLE, "wrong")
        with pytest.raises(EnvironmentTrouble, match=f"rejects the key.*{module.KEY_VARIABLE}"):
            served(other.url)
        monkeypatch.setenv(module.KEY_VARIABLE, "right\n")
        assert served(other.url) == "tiny"
        for name in ("", "tiny"):
            with pytest.raises(UsageError, match=r"serves loopback.*serves tiny"):
                served(loopback.url, other.url, name=name)


def test_the_key_of_the_runs_own_server_counts_before_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv(module.KEY_VARIABLE, "users \n")
    assert module.api_key(tmp_path) == "users"
    (tmp_path / module.KEY_FILE).write_text("own")
    assert module.api_key(tmp_path) == "own"
