"""A chat model as translator: what it adds is removed and noted; each answer goes to its own text."""

import asyncio
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.captioning.captioners import MllmCaptioner
from pipeline.engine.run_state import locked
from pipeline.engine.stage import Run
from pipeline.translation.llm import DECODING, MAX_CHARACTERS, PROMPT, LlmTranslator, strip_additions
from pipeline.translation.translator import Translated, Untranslated
from tests.loopback import Loopback, answer_text
from tests.pipeline.captioning.scripted import QUICK, Scripted, reply
from tests.worked_examples import each_example

SOURCE = "A dog runs on the beach."
TARGET = "Ein Hund rennt am Strand."


@each_example("additions", "answer, notes")
def test_what_a_model_adds_is_removed_and_noted(answer, notes):
    assert strip_additions(answer, SOURCE, "de") == (TARGET, tuple(notes))


@each_example("translations", "answer, source, target")
def test_what_belongs_to_the_translation_stays(answer, source, target):
    assert strip_additions(answer, source, target) == (answer, ())


@pytest.mark.parametrize("filling", ["\n", " ", "-", "→ ", "\n- "])
def test_long_runs_of_anything_take_no_time(filling):
    began = time.process_time()
    strip_additions(f"A{filling * 50_000}b", SOURCE, "de")
    assert time.process_time() - began < 2


@given(st.text(), st.text())
def test_no_answer_is_lost(answer, source):
    text, notes = strip_additions(answer, source, "ja")
    assert bool(text) == bool(answer.strip())
    assert notes or text == " ".join(answer.split())


@pytest.fixture
def backend(tmp_path):
    """Opens a backend on a server; call it within an event loop."""

    def open_backend(url, window=4):
        server = MllmCaptioner((url,), "loopback", "", window, QUICK)
        return LlmTranslator("loopback", "", "", DECODING, server).open(Run("t", tmp_path, 1, tmp_path))

    with locked(tmp_path):
        yield open_backend


async def translate(backend, segments):
    results = {}
    try:
        await backend.translate(segments, "en", "de", results.update)
    finally:
        await backend.close()
    return results


def prompt(segment, target="German"):
    return PROMPT.format(source="English", target=target, text=segment)


def test_every_text_gets_its_own_answer_under_faults_and_within_the_window(backend):
    segments = [f"Caption number {number} of a dog." for number in range(60)]

    async def run(url):
        return await translate(backend(url), segments)

    faults = ("429", "500", "not_json", "reset_midway")
    with Loopback(latency_s=0.01, sigma=1.0, fault_rate=0.2, faults=faults) as server:
        results = asyncio.run(run(server.url))
        assert results == {segment: Translated(answer_text([], prompt(segment))) for segment in segments}
        assert server.stats()["max_concurrent"] <= 4


def test_only_the_refused_text_fails(backend):
    async def run():
        async with Scripted({"status": 400, "text": '{"message": "too long"}'}, reply(TARGET)) as server:
            return await translate(backend(server.url, 1), ["first", "second"]), [body for _, body in server.chats]

    results, requests = asyncio.run(run())
    assert isinstance(results["first"], Untranslated) and results["first"].kind == "http_400"
    assert results["second"] == Translated(TARGET)
    assert requests[1]["max_tokens"] == 32 + len("second") and requests[1]["temperature"] == 0.0


@pytest.mark.parametrize("reason", ["length", "MAX_TOKENS", "content_filter", "error"])
def test_a_translation_that_the_model_did_not_end_is_unfinished(backend, reason):
    answer = {"text": json.dumps({"choices": [{"message": {"content": TARGET}, "finish_reason": reason}]})}

    async def run():
        async with Scripted(answer) as server:
            return await translate(backend(server.url), [SOURCE])

    assert asyncio.run(run()) == {SOURCE: Translated(TARGET, finished=False)}


def test_a_model_that_thinks_for_too_long_fails_the_text_at_once(backend):
    answer = {"message": {"content": None, "reasoning_content": "Hund?"}, "finish_reason": "length"}

    async def run():
        async with Scripted({"text": json.dumps({"choices": [answer]})}) as server:
            return await translate(backend(server.url), [SOURCE]), len(server.times)

    results, requests = asyncio.run(run())
    assert (results[SOURCE].kind, requests) == ("empty", 1) and "enable_thinking" in results[SOURCE].message


def test_a_long_text_is_sent_in_parts_of_whole_sentences(backend):
    text = " ".join(f"Sentence number {number} is about a dog." for number in range(100))

    async def cut():
        opened = backend("http://127.0.0.1:1")
        await opened.close()
        return opened.segments(text, "en")

    parts = asyncio.run(cut())
    assert "".join(segment + gap for segment, gap in parts) == text
    assert len(parts) > 3 and all(len(segment) <= MAX_CHARACTERS and segment.endswith(".") for segment, _ in parts)
