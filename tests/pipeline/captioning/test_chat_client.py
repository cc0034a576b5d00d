"""The chat client against one server on loopback: whose fault a failure is, what is asked again, and when."""

import asyncio
import base64
import email.utils
import json
import threading
import time

import pytest

from pipeline.captioning import chat_client as module
from pipeline.captioning.chat_client import Retries, media_of
from pipeline.captioning.prompts import View
from pipeline.errors import EnvironmentTrouble
from tests.loopback import Loopback
from tests.pipeline.captioning.scripted import Scripted, ask_many, ask_once, client_of, expected, said


@pytest.fixture(scope="module")
def loopback():
    with Loopback() as server:
        yield server


def test_the_request_has_the_pictures_first_and_the_key_in_its_header_only():
    async def one():
        async with (
            Scripted() as server,
            client_of(server, key="geheim", model='a "model" of 100 %s') as client,
        ):
            answer = await client.ask(View("v", "unused", 77, 0.5), 'Wer? "日本"', media_of([b"one", b"two"]))
            return answer, *server.chats[0]

    answer, headers, body = asyncio.run(one())
    assert answer.text == "A cat."
    assert headers["Authorization"] == "Bearer geheim"
    assert "geheim" not in json.dumps(body)
    assert (body["model"], body["max_tokens"], body["temperature"]) == ('a "model" of 100 %s', 77, 0.5)
    *pictures, text = body["messages"][0]["content"]
    urls = [f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" for jpeg in (b"one", b"two")]
    assert [part["image_url"]["url"] for part in pictures] == urls
    assert text == {"type": "text", "text": 'Wer? "日本"'}


@pytest.mark.parametrize("status", [400, 410, 413, 422])
def test_a_permanent_refusal_fails_the_record_at_once_with_the_servers_words(status):
    refusal = {"status": status, "text": '{"error": {"message": "too many pixels"}}'}
    error, server = ask_once(refusal)
    assert (error.kind, error.permanent, error.attempts) == (f"http_{status}", True, 1)
    assert str(error).endswith(f"answered {status}: too many pixels")
    assert len(server.times) == 1


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, module.KEY_VARIABLE), (403, module.KEY_VARIABLE), (404, "--mllm"), (405, "--mllm-url"), (307, "--mllm-url")],
)
def test_what_no_record_can_survive_ends_the_run_at_once(status, remedy):
    error, server = ask_once({"status": status, "text": "no", "headers": {"Location": "/elsewhere"}})
    assert isinstance(error, EnvironmentTrouble)
    assert remedy in str(error) and str(status) in str(error)
    assert (len(server.times), server.probes) == (1, 0)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 520])
def test_a_transient_status_is_asked_again_and_fails_when_the_attempts_are_spent(status):
    failing = {"status": status, "text": "busy"}
    answer, server = ask_once(failing, failing, said())
    assert (answer.text, len(server.times)) == ("A cat.", 3)
    error, server = ask_once(failing)
    assert (error.kind, error.permanent, error.attempts) == (f"http_{status}", False, 3)
    assert len(server.times) == 3


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("reset_before", "connection"),
        ("reset_midway", "connection"),
        ("stall", "timeout"),
        ("not_json", "unparsable"),
        ("truncated_json", "unparsable"),
        ("empty", "empty"),
        ("no_choices", "unparsable"),
    ],
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
    for header, at_least, at_most in (
        (email.utils.formatdate(time.time() + 2, usegmt=True), 0.9, 3.0),  # whole seconds
        ("0.4", 0.4, 0.9),
        ("soon", 0.0, 0.3),
    ):
        _, server = ask_once({"status": 429, "headers": {"Retry-After": header}}, said())
        assert at_least <= server.times[1] - server.times[0] < at_most


@pytest.mark.parametrize("header", ["86400", "inf"])
def test_a_server_that_asks_for_more_than_the_patience_ends_the_run(header):
    began = time.monotonic()
    error, server = ask_once({"status": 429, "headers": {"Retry-After": header}})
    assert isinstance(error, EnvironmentTrouble)
    assert "--patience" in str(error)
    assert time.monotonic() - began < 2 and len(server.times) == 1


def test_a_client_serves_a_loop_in_any_thread():
    told = []
    thread = threading.Thread(target=lambda: told.append(ask_once(said())[0].text))
    thread.start()
    thread.join(10)
    assert told == ["A cat."]
