"""The chat client against one server on loopback: whose fault a failure is, what is asked again, and when."""

import asyncio
import base64
import email.utils
import json
import math
import re
import time

import pytest

from pipeline.captioning import servers as module
from pipeline.captioning.chat_client import Extras, Retries, media_of
from pipeline.captioning.prompts import View
from pipeline.captioning.servers import base_url
from pipeline.errors import EnvironmentTrouble, UsageError
from tests.loopback import Loopback
from tests.pipeline.captioning.scripted import Scripted, ask_many, ask_once, client_of, expected, reply
from tests.worked_examples import each_example


@pytest.fixture(scope="module")
def loopback():
    with Loopback() as server:
        yield server


def test_the_request_has_the_pictures_first_and_the_key_in_its_header_only():
    async def ask():
        async with Scripted() as server, client_of(server, key="geheim", model='a "model" of 100 %s') as client:
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


def completion(*choices):
    return {"text": json.dumps({"choices": choices})}


@each_example("the_answer_is_the_text_of_the_first_choice_by_index", "choices")
def test_the_answer_is_the_text_of_the_first_choice_by_index(choices):
    answer, server = ask_once(completion(*choices))
    assert (answer.text, len(server.times)) == ("Yes.", 1)


@each_example("a_model_that_would_not_answer_otherwise_is_asked_once", "last, kind, words")
def test_a_model_that_would_not_answer_otherwise_is_asked_once(last, kind, words):
    error, server = ask_once(completion(last))
    assert (error.kind, error.permanent, len(server.times)) == (kind, True, 1)
    assert re.search(words, str(error)) and str(error).isprintable()


@pytest.mark.parametrize(
    "body", ['{"error": {"message": "a\\ud800\\u001b[2Jb"}}', '{"error": "a\\u0007b"}', "a\x1b\x9bb", "[" * 100_000]
)
def test_what_a_server_says_is_printable_in_messages(body):
    error, _ = ask_once({"status": 400, "text": body})
    assert str(error).isprintable() and len(str(error)) < 500
    error, _ = ask_once({"text": body})
    assert error.kind == "unparsable" and str(error).isprintable()


@each_example("parameters_that_a_server_refuses_are_renamed_or_left_out", "status, message, changed")
def test_parameters_that_a_server_refuses_are_renamed_or_left_out(status, message, changed):
    answer, server = ask_once({"status": status, "text": json.dumps(message)}, reply())
    assert (answer.text, len(server.chats)) == ("A cat.", 2)
    first, second = (body for _, body in server.chats)
    assert first.keys() - second.keys() == {*changed}
    assert second.get("max_completion_tokens") == (32 if "max_tokens" in changed else None)


def test_a_refused_temperature_is_the_users_to_leave_out():
    refusal = {"status": 400, "text": "'temperature' does not support 0.0 with this model"}
    error, _ = ask_once(refusal)
    assert isinstance(error, EnvironmentTrouble) and """--extra-body '{"temperature": null}'""" in str(error)
    error, server = ask_once(refusal, extras=Extras(extra_body='{"temperature": 1}'))
    assert (error.kind, len(server.times)) == ("http_400", 1)


def test_a_limit_that_is_too_large_is_not_a_refused_parameter():
    error, server = ask_once({"status": 400, "text": "'max_tokens' is too large: 32. The maximum is 16"})
    assert (error.kind, len(server.times)) == ("http_400", 1)


@each_example("further_parameters_and_a_system_prompt", "extra_body, more, fewer")
def test_further_parameters_and_a_system_prompt(extra_body, more, fewer):
    usual = {"model": "loopback", "max_tokens": 32, "temperature": 0.0, "seed": 0}
    _, server = ask_once(extras=Extras('Be "brief".', extra_body))
    ((_, body),) = server.chats
    system, user = body.pop("messages")
    assert system == {"role": "system", "content": 'Be "brief".'} and user["role"] == "user"
    assert body == {name: value for name, value in (usual | more).items() if name not in fewer}


@each_example("base_url", "given_url, url")
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


@each_example("a_list_of_models_is_needed_only_without_a_name", "status, body, models")
def test_a_list_of_models_is_needed_only_without_a_name(status, body, models):
    with Loopback(models=body or " ", models_status=status) as server:

        def served(name):
            return asyncio.run(module.served_model([server.url], name, lines.append))

        lines = []
        assert served("tiny") == "tiny"
        assert bool(lines) != bool(models) and all(line.isprintable() for line in lines)
        if models:
            assert served("") == "tiny"
            with pytest.raises(UsageError, match="serves tiny"):
                served("large")
        else:
            with pytest.raises(UsageError, match=rf"answered {status}.*--mllm") as raised:
                served("")
            assert "no server answers" not in str(raised.value) and str(raised.value).isprintable()


def test_the_key_of_the_runs_own_server_counts_before_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv(module.KEY_VARIABLE, "users \n")
    assert module.api_key(tmp_path) == "users"
    (tmp_path / module.KEY_FILE).write_text("own")
    assert module.api_key(tmp_path) == "own"
