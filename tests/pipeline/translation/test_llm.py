"""A chat model as translator: what it adds is removed and noted; each answer goes to its own text."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.captioning.captioners import MllmCaptioner
from pipeline.engine.run_state import locked
from pipeline.engine.stage import Run
from pipeline.translation.llm import MAX_CHARACTERS, PROMPT, LlmTranslator, strip_additions
from pipeline.translation.translator import Translated, Untranslated
from tests.loopback import Loopback, answer_text
from tests.pipeline.captioning.scripted import QUICK, Scripted, reply

SOURCE = "A dog runs on the beach."
TARGET = "Ein Hund rennt am Strand."


@pytest.mark.parametrize(
    ("answer", "notes"),
    [
        (TARGET, ()),
        (f"Here is the translation:\n\n{TARGET}", ("preamble_removed",)),
        (f"Sure! Here's the German translation: {TARGET}", ("preamble_removed",)),
        (f"Translation: {TARGET}", ("preamble_removed",)),
        (f"{TARGET}\n\nNote: “Strand” may also be a shore.", ("preamble_removed",)),
        (f"{TARGET} Let me know if you need anything else!", ("preamble_removed",)),
        (f'"{TARGET}"', ("quotes_removed",)),
        (f"Translation: “{TARGET}”", ("preamble_removed", "quotes_removed")),
        (f"{SOURCE}\n{TARGET}", ("echo_removed",)),
        (f'"{SOURCE}" → "{TARGET}"', ("echo_removed", "quotes_removed")),
        (f"{TARGET} ({SOURCE})", ("echo_removed",)),
    ],
)
def test_what_a_model_adds_is_removed_and_noted(answer, notes):
    assert strip_additions(answer, SOURCE, "de") == (TARGET, notes)


@pytest.mark.parametrize(
    ("answer", "source"),
    [
        (SOURCE, SOURCE),  # nothing else: kept, and flagged as copied later
        ('"Taxi"', '"Taxi"'),
        ("Er sagt: Hallo.", "He says: hello."),
        ("„Stop“ steht auf dem „Schild“", "It says “stop” on the sign"),
        ("", SOURCE),
        ("STOP-Schild", "STOP"),
        ("Description : un chien.", "Description: a dog."),
        ("German: er lächelt.", "A German: he smiles."),
    ],
)
def test_what_belongs_to_the_translation_stays(answer, source):
    assert strip_additions(answer, source, "de") == (answer, ())


@pytest.mark.parametrize("text", ["Here are two dogs: one black, one white.", "A child laughs. Let me know."])
def test_an_english_translation_is_not_a_remark(text):
    assert strip_additions(text, "Ein Text, der etwas anderes sagt.", "en") == (text, ())


@pytest.mark.parametrize("filling", ["\n", " ", "-", "→ ", "\n- "])
def test_long_runs_of_anything_take_no_time(filling):
    began = time.monotonic()
    strip_additions(f"A{filling * 50_000}b", SOURCE, "de")
    assert time.monotonic() - began < 2


@given(st.text(), st.text())
def test_no_answer_is_lost(answer, source):
    text, notes = strip_additions(answer, source, "ja")
    assert bool(text) == bool(answer.strip())
    assert notes or text == " ".join(answer.split())


@pytest.fixture
def backend(tmp_path):
    """Opens a backend on a server; call it within an event loop."""
    with locked(tmp_path):
        yield lambda url, window=4: LlmTranslator(MllmCaptioner((url,), "loopback", "", window, QUICK)).open(
            Run("t", tmp_path, 1, tmp_path)
        )


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


def test_a_long_text_is_sent_in_parts_of_whole_sentences(backend):
    text = " ".join(f"Sentence number {number} tells of a dog." for number in range(100))

    async def cut():
        opened = backend("http://127.0.0.1:1")
        await opened.close()
        return opened.segments(text, "en"), opened.segments("One. Two.", "en")

    parts, short = asyncio.run(cut())
    assert "".join(segment + gap for segment, gap in parts) == text
    assert len(parts) > 3 and all(len(segment) <= MAX_CHARACTERS and segment.endswith(".") for segment, _ in parts)
    assert short == [("One. Two.", "")]
