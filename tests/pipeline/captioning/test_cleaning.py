import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.captioning.cleaning import MAX_CHARACTERS, bounded, clean, rules
from pipeline.captioning.prompts import BUILT_IN, Answer
from tests.worked_examples import each_example

EXAMPLES = yaml.safe_load(Path(__file__).with_name("answers.yaml").read_text("utf-8"))
GOOD = EXAMPLES.pop("good")
QUESTION = BUILT_IN["short"].prompt.replace("{media}", "picture")


@each_example("cases", "answer, finish_reason, cleaned, flags")
def test_cases(answer, finish_reason, cleaned, flags):
    text = answer.replace("{question}", QUESTION)
    expected = text if cleaned is None else cleaned.replace("{question}", QUESTION)
    assert clean(text, finish_reason, QUESTION)[:2] == (expected, tuple(flags))


def test_every_rule_has_an_example():
    for section, examples in EXAMPLES.items():
        assert [rule.name for rule in rules(section)] == list(examples)


@pytest.mark.parametrize(
    "example", [*(example for examples in EXAMPLES.values() for example in examples.values()), *GOOD], ids=str
)
def test_the_example_of_a_rule(example):
    language = example.get("language", "en")
    text, flags, written = clean(example["answer"], "stop", QUESTION, language)
    assert (text, list(flags)) == (example.get("text", example["answer"]), example.get("flags", []))
    assert written == language


@each_example("the_language_is_the_one_identified", "text, language, written")
def test_the_language_is_the_one_identified(text, language, written):
    assert clean(text, "stop", language=language)[1:] == (("wrong_language",), written)


@each_example("time_is_linear", "piece")
def test_time_is_linear(piece):
    def seconds(length):
        text = (piece * length)[:length]
        began = time.process_time()
        clean(text, "stop", QUESTION)
        return time.process_time() - began

    seconds(100)
    assert seconds(MAX_CHARACTERS) < max(8 * seconds(MAX_CHARACTERS // 4), 0.5)


def test_answers_of_another_size_or_shape_are_refused():
    answer = Answer("A cat.", "stop\x1b[0m", -1, 2**40)
    assert bounded(answer) == Answer("A cat.", "stop")
    for text in ("x" * (MAX_CHARACTERS + 1), None):
        with pytest.raises(ValueError, match="answer"):
            bounded(Answer(text, "stop"))


@settings(deadline=None)
@given(st.text(max_size=300), st.sampled_from(["stop", "length"]))
def test_any_text_stays_on_one_line_and_is_never_lost_whole(text, finish_reason):
    cleaned, flags, _ = clean(text, finish_reason)
    assert cleaned == " ".join(cleaned.split())
    assert list(flags) == sorted(set(flags))
    if any(character.isalnum() for character in text):
        assert cleaned
