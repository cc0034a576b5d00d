"""A chat model as translator: what it adds is taken off and noted; each answer goes to its own text."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.captioning.captioners import MllmCaptioner
from pipeline.engine.run_state import locked
from pipeline.engine.stage import Run
from pipeline.translation.llm import MAX_CHARACTERS, PROMPT, LlmSpeaker, LlmTranslator, stripped
from pipeline.translation.translator import Translated, Untranslated
from tests.loopback import Loopback, answer_text
from tests.pipeline.captioning.scripted import QUICK, Scripted, said

SOURCE = "A dog runs on the beach."
TARGET = "Ein Hund rennt am Strand."


@pytest.mark.parametrize(
    ("answer", "notes"),
    [
        (TARGET, ()),
        (f"  {TARGET}\n", ()),
        (f"Here is the translation:\n\n{TARGET}", ("preamble_removed",)),
        (f"Sure! Here's the German translation: {TARGET}", ("preamble_removed",)),
        (f"Translation: {TARGET}", ("preamble_removed",)),
        (f"German: {TARGET}", ("preamble_removed",)),
        (f"{TARGET}\n\nNote: “Strand” may also be a shore.", ("preamble_removed",)),
        (f"{TARGET} Let me know if you need anything else!", ("preamble_removed",)),
        (f'"{TARGET}"', ("quotes_removed",)),
        (f"„{TARGET}“", ("quotes_removed",)),
        (f"Translation: “{TARGET}”", ("preamble_removed", "quotes_removed")),
        (f"{SOURCE}\n{TARGET}", ("echo_removed",)),
        (f'"{SOURCE}" → "{TARGET}"', ("echo_removed", "quotes_removed")),
        (f"{TARGET} ({SOURCE})", ("echo_removed",)),
    ],
)
def test_what_a_model_adds_is_taken_off_and_noted(answer, notes):
    assert stripped(answer, SOURCE, "de") == (TARGET, notes)


@pytest.mark.parametrize(
    ("answer", "source"),
    [
        (SOURCE, SOURCE),  # nothing else: kept, and flagged as copied later
        ('"Taxi"', '"Taxi"'),
        ("Er sagt: Hallo.", "He says: hello."),
        ("Eine Flasche (rot) steht da.", "A bottle (red) stands there."),
        ("„Stop“ steht auf dem „Schild“", "It says “stop” on the sign"),
        ("", SOURCE),
        ("STOP-Schild", "STOP"),
        ("X - ein Buchstabe", "X"),
        ("Snowboard-Fahrer", "Snowboard"),
        ("Description : un chien.", "Description: a dog."),
        ("German: er lächelt.", "A German: he smiles."),
    ],
)
def test_what_belongs_to_the_translation_stays(answer, source):
    assert stripped(answer, source, "de") == (answer, ())


@pytest.mark.parametrize("text", ["Here are two dogs: one black, one white.", "A child laughs. Let me know."])
def test_english_is_not_taken_for_a_remark_on_it(text):
    assert stripped(text, "Ein Text, der etwas anderes sagt.", "en") == (text, ())


@pytest.mark.parametrize("filling", ["\n", " ", "-", "→ ", "\n- "])
def test_long_runs_of_anything_take_no_time(filling):
    began = time.monotonic()
    stripped(f"A{filling * 50_000}b", SOURCE, "de")
    assert time.monotonic() - began < 2


@given(st.text(), st.text())
def test_any_answer_can_be_stripped_and_is_not_lost(answer, source):
    text, notes = stripped(answer, source, "ja")
    assert bool(text) == bool(answer.strip())
    assert notes or text == " ".join(answer.split())


def translated(url, segments, tmp_path, target="de", window=4):
    """Results by segment, and how the text was cut, as the stage gets them."""

    async def every():
        speaker = LlmSpeaker(
            LlmTranslator(MllmCaptioner((url,), "loopback", "", window, QUICK)), Run("t", str(tmp_path), 1, {}, "")
        )
        results = {}
        try:
            await speaker.translate(segments, "en", target, results.update)
        finally:
            await speaker.close()
        return results

    with locked(tmp_path):
        return asyncio.run(every())


def prompt(segment, target="German"):
    return PROMPT.format(source="English", target=target, text=segment)


def test_every_text_gets_its_own_answer_under_faults_and_within_the_window(tmp_path):
    segments = [f"Caption number {number} of a dog." for number in range(60)]
    with Loopback(
        latency_s=0.01, sigma=1.0, fault_rate=0.2, faults=("429", "500", "not_json", "reset_midway")
    ) as server:
        results = translated(server.url, segments, tmp_path)
        assert results == {segment: Translated(answer_text([], prompt(segment))) for segment in segments}
        assert server.stats()["max_concurrent"] <= 4


def test_a_refused_text_fails_alone(tmp_path):
    async def every():
        async with Scripted({"status": 400, "text": '{"message": "too long"}'}, said(TARGET)) as server:
            speaker = LlmSpeaker(
                LlmTranslator(MllmCaptioner((server.url,), "m", "", 1, QUICK)), Run("t", str(tmp_path), 1, {}, "")
            )
            results = {}
            await speaker.translate(["first", "second"], "en", "de", results.update)
            await speaker.close()
            return results, [body for _, body in server.chats]

    with locked(tmp_path):
        results, asked = asyncio.run(every())
    assert isinstance(results["first"], Untranslated) and results["first"].kind == "http_400"
    assert results["second"] == Translated(TARGET)
    assert asked[1]["max_tokens"] == 32 + len("second") and asked[1]["temperature"] == 0.0


def test_a_long_text_is_asked_for_in_parts_that_are_whole_sentences(tmp_path):
    text = " ".join(f"Sentence number {number} tells of a dog." for number in range(100))
    with locked(tmp_path):

        async def cut():
            speaker = LlmSpeaker(
                LlmTranslator(MllmCaptioner(("http://127.0.0.1:1",), "m")), Run("t", str(tmp_path), 1, {}, "")
            )
            await speaker.close()
            return speaker.segments(text, "en"), speaker.segments("One. Two.", "en")

        parts, short = asyncio.run(cut())
    assert "".join(segment + gap for segment, gap in parts) == text
    assert len(parts) > 3 and all(len(segment) <= MAX_CHARACTERS and segment.endswith(".") for segment, _ in parts)
    assert short == [("One. Two.", "")]
