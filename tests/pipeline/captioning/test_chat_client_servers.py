"""The chat client when servers come, go, fall ill, or are several: no record pays for what is not its fault."""

import asyncio
import dataclasses

import pytest

from pipeline.captioning import chat_client as module
from pipeline.captioning.chat_client import Retries, media_of
from tests.http_servers import free_port
from tests.loopback import Loopback, request_digest
from tests.pipeline.captioning.scripted import (
    ONCE,
    VIEW,
    Scripted,
    ask_many,
    ask_once,
    client_of,
    echoing,
    expected,
    reply,
)


def test_a_server_that_calls_itself_ill_is_waited_for_and_a_healthy_one_charges(monkeypatch):
    monkeypatch.setattr(module, "PROBE_EVERY_S", 0.05)

    async def ask(health):
        async with Scripted({"status": 503}, {"status": 503}, reply()) as server, client_of(server) as client:
            server.health = health
            asyncio.get_running_loop().call_later(0.5, setattr, server, "health", 200)
            answer = await client.ask(VIEW, "What?", media_of([b"x"]))
            return answer.text, server.times[-1] - server.times[0] >= 0.4

    assert asyncio.run(ask(503)) == ("A cat.", True)
    assert asyncio.run(ask(200)) == ("A cat.", False)


def test_the_window_is_filled_and_never_exceeded():
    with Loopback(latency_s=0.05) as server:
        assert ask_many([server], 60, window=12) == expected(60)
        assert server.stats()["max_concurrent"] == 12


def test_two_servers_share_the_load_and_the_views_of_an_item_stay_together():
    with Loopback(latency_s=0.03, sigma=0.5) as left, Loopback(latency_s=0.03, sigma=0.5) as right:
        assert ask_many([left, right], 30, window=16, views=5) == expected(30, 5)
        first, second = (set(server.stats()["seen"]) for server in (left, right))
    assert len(first) + len(second) == 150 and min(len(first), len(second)) >= 50
    items = [[request_digest([b"%d" % number], f"view {view}") in first for view in range(5)] for number in range(30)]
    assert sum(len(set(views)) - 1 for views in items) <= 4  # those whose home was much busier


def test_a_server_that_answers_errors_at_once_does_not_draw_the_records():
    with Loopback(fault_rate=1.0, faults=("500",)) as sick, Loopback(latency_s=0.05) as well:
        retries = Retries(attempts=2, timeout_s=20.0, first_wait_s=0.01)
        assert ask_many([sick, well], 40, retries, window=8) == expected(40)
        assert well.stats()["answered"] == 40


def test_a_record_that_kills_the_server_is_found_out_and_its_neighbours_are_not_charged(monkeypatch):
    monkeypatch.setattr(module, "PROBE_EVERY_S", 0.05)

    async def every():
        async with Scripted(latency_s=0.1, away_s=0.1) as server, client_of(server, retries=ONCE) as client:
            prompts = [f"neighbour {number}" for number in range(12)]
            prompts.insert(6, "killer")
            asked = (client.ask(VIEW, prompt, media_of([b"x"])) for prompt in prompts)
            return await asyncio.gather(*asked, return_exceptions=True), server.deaths

    replies, deaths = asyncio.run(every())
    killer = replies.pop(6)
    assert [getattr(answer, "text", answer) for answer in replies] == ["A cat."] * 12
    assert (killer.kind, killer.permanent, killer.attempts) == ("server_died", False, 3)
    assert deaths == module.MAX_CRASHES


def test_refusals_count_anew_whenever_another_record_is_answered():
    async def every():
        busy, good = {"status": 429, "headers": {"Retry-After": "0.1"}}, reply()
        script = [busy, good, busy, busy, good, busy, busy, good, busy, busy, good, good]
        retries = dataclasses.replace(ONCE, attempts=3)
        async with Scripted(*script) as server, client_of(server, retries=retries) as client:
            refused = asyncio.create_task(client.ask(VIEW, "refused", media_of([b"x"])))
            for requests in (1, 4, 7, 10):  # while the refused one waits
                while len(server.times) < requests and not refused.done():  # noqa: ASYNC110 - the server is scripted
                    await asyncio.sleep(0.005)
                await client.ask(VIEW, "another", media_of([b"y"]))
            return await refused, len(server.times)

    answer, requests = asyncio.run(every())
    assert (answer.text, requests) == ("A cat.", 12)


@pytest.mark.parametrize("echo", [True, False], ids=["echo", "no echo"])
@pytest.mark.parametrize("after_s", [0, 0.03])
def test_a_surplus_response_is_never_the_answer_to_another_request(after_s, echo):
    with Loopback(latency_s=0.01, echo=echo, surplus=5, surplus_after_s=after_s) as server:
        assert ask_many([server], 200, window=8) == expected(200)


@pytest.mark.parametrize(("echo", "most"), [(True, 16), (False, 60)])
def test_connections_are_used_again_only_with_a_server_that_repeats_ids(echo, most):
    with Loopback(latency_s=0.01, echo=echo) as server:
        assert ask_many([server], 60, window=8) == expected(60)
        assert most / 2 <= server.stats()["connections"] <= most
        assert echo or server.stats()["connections"] == 60


@pytest.mark.parametrize(
    ("second", "kind"),
    [(reply("Another's."), None), ({"status": 400}, None), ({"status": 404}, None), ({"status": 400}, "http_400")],
)
def test_on_a_used_connection_only_an_answer_with_the_requests_id_is_believed(second, kind):
    async def every():
        script = (echoing("first"), second, second if kind else echoing("second"))
        async with Scripted(*script) as server, client_of(server) as client:
            replies = [await client.ask(VIEW, "What?", media_of([b"x"]))]
            replies += await asyncio.gather(client.ask(VIEW, "What?", media_of([b"x"])), return_exceptions=True)
            return replies, len(server.times)

    (first, other), requests = asyncio.run(every())
    assert (first.text, requests) == ("first", 3)
    assert getattr(other, "kind", None) == kind and (kind or other.text == "second")


def test_an_answer_with_the_id_of_another_request_is_asked_for_again():
    answer, server = ask_once(reply("Another's.", id=f"chatcmpl-{module.ID_PREFIX}1"), echoing("Own."))
    assert (answer.text, len(server.times)) == ("Own.", 2)


def test_close_leaves_nothing_behind_while_servers_are_probed():
    complaints = []

    async def ask():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with client_of(Scripted(port=free_port()), retries=ONCE) as client:
            asking = asyncio.create_task(client.ask(VIEW, "What?", media_of([b"x"])))
            await asyncio.sleep(0.3)
            asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(ask()) == set()
    assert complaints == []
