"""What the chat client reads out of answers, errors, headers and addresses, however odd they are."""

import asyncio
import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.captioning import chat_client as module
from pipeline.captioning.chat_client import Retries, base_url, error_text, retry_after_s
from pipeline.errors import EnvironmentTrouble, UsageError
from tests.loopback import Loopback
from tests.pipeline.captioning.scripted import ask_once, free_port, said


@pytest.fixture(scope="module")
def loopback():
    with Loopback() as server:
        yield server


@pytest.mark.parametrize("usage", [None, "free", [1], {"prompt_tokens": "7"}, {"prompt_tokens": 1 << 40}])
def test_odd_counts_of_tokens_are_none(usage):
    answer, _ = ask_once(said(usage=usage))
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("A cat.", None, None)


def test_counts_and_finish_reason_are_kept_and_halves_of_characters_are_not():
    answer, _ = ask_once(said("a \ud83d cat", usage={"prompt_tokens": 7, "completion_tokens": 3}))
    assert (answer.text, answer.finish_reason) == ("a ? cat", "stop")
    assert (answer.prompt_tokens, answer.completion_tokens) == (7, 3)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["choices", "message", "content", "usage", "finish_reason", "error", "detail", "x"]), x
            )
        ),
        max_leaves=8,
    )
)
def test_any_json_is_an_answer_or_asked_for_again(value):
    raw = json.dumps(value).encode()
    with contextlib.suppress(module._Transient):
        assert module._parse(raw).text.strip()
    assert len(error_text(raw)) <= 300


def test_json_nested_without_end_is_asked_for_again():
    with pytest.raises(module._Transient, match="RecursionError"):
        module._parse(b"[" * 200_000)
    assert error_text(b"[" * 200_000).startswith("[[[")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'{"error": {"message": "too long", "type": "BadRequestError", "code": 400}}', "too long"),
        (b'{"object": "error", "message": "old vLLM"}', "old vLLM"),
        (b'{"error": "Unauthorized"}', "Unauthorized"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"detail": [{"msg": "Field required"}]}', "[{'msg': 'Field required'}]"),
        (b"upstream gone\n", "upstream gone"),
        (b"<html>502 Bad Gateway</html>", "<html>502 Bad Gateway</html>"),
        (b"\xff\xfe\x00broken", "��\x00broken"),
        (b"", "(no text)"),
        (b'["x"]', "['x']"),
    ],
)
def test_the_words_of_an_error(raw, text):
    assert error_text(raw) == text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-2", 0.0),
        ("nan", None),
        ("inf", math.inf),
        ("", None),
        (None, None),
        ("soon", None),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0.0),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after_s(value) == seconds


@given(st.text())
def test_no_retry_after_is_too_odd(value):
    assert (retry_after_s(value) or 0.0) >= 0.0


@given(st.integers(1, 5000), st.none() | st.floats(0, 1000))
def test_backoff_is_bounded_and_never_sooner_than_asked(attempt, asked_s):
    waits = [Retries().wait_s(attempt, asked_s) for _ in range(5)]
    assert all((asked_s or 0) <= wait <= max(30.0, 1.25 * (asked_s or 0)) for wait in waits)
    assert all(wait >= min(30.0, 0.5 * 2.0 ** min(attempt - 1, 64)) / 2 for wait in waits)


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host:8000/", "http://host:8000/v1"),
        ("http://host:8000/v1", "http://host:8000/v1"),
        ("https://host/v1/", "https://host/v1"),
        ("https://host/v1/chat/completions", "https://host/v1"),
        ("https://host/proxy/openai/v1", "https://host/proxy/openai/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_base_url(given_url, url):
    assert base_url(given_url) == url


@pytest.mark.parametrize("url", ["host:8000", "ftp://host", "http://", "http://[::1", "http://h/v1?key=1", ""])
def test_what_is_no_url(url):
    with pytest.raises(UsageError, match="--mllm-url: got"):
        base_url(url)


def test_a_password_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(UsageError, match=module.KEY_VARIABLE) as told:
        base_url("http://me:geheim@host:8000")
    assert "geheim" not in str(told.value)


def served(urls, wanted="", key=""):
    notes = []
    return asyncio.run(module.served_model(urls, wanted, key, notes.append)), notes


def test_the_model_is_the_one_that_all_servers_at_hand_serve(loopback):
    nobody = f"http://127.0.0.1:{free_port()}"
    assert served([loopback.url]) == ("loopback", [])
    model, [note] = served([nobody, f"{loopback.url}/v1"], "loopback")
    assert model == "loopback" and nobody in note
    with pytest.raises(UsageError, match=r"got 'other', wanted one .*serves loopback"):
        served([loopback.url], "other")
    with pytest.raises(EnvironmentTrouble, match=f"no server answers: {nobody}"):
        served([nobody])


def test_servers_of_different_models_and_refused_keys_are_told_before_anything_starts(loopback):
    with Loopback(model="tiny", api_key="right") as other:
        assert served([other.url], key="right") == ("tiny", [])
        with pytest.raises(EnvironmentTrouble, match=f"refuses the key.*{module.KEY_VARIABLE}"):
            served([other.url], key="wrong")
        other.script(api_key="")
        with pytest.raises(UsageError, match=r"got no model name.*serves loopback.*serves tiny"):
            served([loopback.url, other.url])
        with pytest.raises(UsageError, match="got 'tiny'"):
            served([loopback.url, other.url], "tiny")


def test_the_key_of_the_runs_own_server_counts_before_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv(module.KEY_VARIABLE, "users \n")
    assert module.api_key(tmp_path) == "users"
    (tmp_path / module.KEY_FILE).write_text("own")
    assert module.api_key(tmp_path) == "own"
