import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.captioning.cleaning import MAX_CHARACTERS, bounded, clean, rules
from pipeline.captioning.prompts import BUILT_IN, Answer

EXAMPLES = yaml.safe_load(Path(__file__).with_name("answers.yaml").read_text("utf-8"))
GOOD = EXAMPLES.pop("good")
QUESTION = BUILT_IN["short"].prompt.replace("{media}", "picture")

CASES = [
    ("A cat sits on a mat.", "stop", "A cat sits on a mat.", ()),
    ("Sure! Here is a description of the picture: a cat on a mat.", "stop", "A cat on a mat.", ("boilerplate",)),
    ("Here is a cat, and there is a dog.", "stop", "Here is a cat, and there is a dog.", ()),
    ("I'm sorry, but I can't see the image.", "stop", "I'm sorry, but I can't see the image.", ("refusal",)),
    ("A cat sits. A dog lies on the", "length", "A cat sits.", ("cut",)),
    ("A cat sits. A dog lies on the", "MAX_TOKENS", "A cat sits.", ("cut",)),
    ("A cat sits. A dog lies on grass", "FinishReason.MODEL_LENGTH", "A cat sits.", ("cut",)),
    ("A cat sits.", "content_filter", "A cat sits.", ("unfinished",)),
    ("A cat sits.", "END_TURN", "A cat sits.", ()),
    ("A cat sits near Dr. Brown. A dog lies", "length", "A cat sits near Dr. Brown.", ("cut",)),
    ("A cat. A dog. A dog. A dog. A dog. A dog.", "stop", "A cat. A dog.", ("loop",)),
    ("A man in a hat in a hat in a hat in a hat", "length", "A man in a hat", ("cut", "fragment", "loop")),
    ("一只猫" + "，一只猫" * 30, "stop", "一只猫，", ("fragment", "loop", "wrong_language")),
    ("A shelf" + "=" * 70, "stop", "A shelf=", ("fragment", "loop")),
    ("- a cat\n- two dogs\n- a mat", "stop", "a cat. two dogs. a mat.", ("markdown",)),
    ("**A cat** sits on a __mat__.", "stop", "A cat sits on a mat.", ("markdown",)),
    ('"A cat sits\n on a mat."', "stop", "A cat sits on a mat.", ("unwrapped",)),
    ('A sign says "STOP"', "stop", 'A sign says "STOP"', ()),
    ("\x1b[31mA cat\x1b[0m\x07 sits.", "stop", "A cat sits.", ("unwrapped",)),
    ("Salt &amp; pepper.", "stop", "Salt & pepper.", ("unwrapped",)),
    ('{"description": {"text": "A cat."}}', "stop", "A cat.", ("unwrapped",)),
    ('{"caption": "A cat.", "score": 0.5}', "stop", "A cat.", ("unwrapped",)),
    ("{'caption': 'A cat.'}", "stop", "A cat.", ("unwrapped",)),
    ('["cat", "mat"]', "stop", "cat, mat", ("unwrapped",)),
    ('{"a": "A cat sits on it.", "b": "A dog is lying."}', "stop", None, ("markup",)),
    (QUESTION, "stop", QUESTION, ("echo",)),
    (f"User: {QUESTION}", "stop", None, ("echo",)),
    (f"{QUESTION} A cat.", "stop", "A cat.", ("unwrapped",)),
    ("No, no, the dog barks.", "stop", "No, no, the dog barks.", ()),
]


@pytest.mark.parametrize(("text", "finish_reason", "cleaned", "flags"), CASES)
def test_cases(text, finish_reason, cleaned, flags):
    assert clean(text, finish_reason, QUESTION)[:2] == (text if cleaned is None else cleaned, flags)


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


@pytest.mark.parametrize(
    ("text", "language", "written"),
    [
        ("En gris katt ligger på en mjuk matta bredvid dörren.", "en", "sv"),
        ("Серый кот лежит на мягком коврике.", "en", "ru"),
        ("A grey cat is lying on a soft mat next to the door.", "de", "en"),
        ("A grey cat is lying on a mat. Un gato gris está tumbado sobre una alfombra blanda.", "en", "es"),
    ],
)
def test_the_language_is_the_one_identified(text, language, written):
    assert clean(text, "stop", language=language)[1:] == (("wrong_language",), written)


@pytest.mark.parametrize(
    "piece",
    [
        *(
            " ",
            "\n",
            "**",
            "__a",
            "<think>",
            "</think",
            "I ",
            "I am ",
            "|",
            "`",
            "[",
            "![a](",
            "(1, 2",
            "<box>",
            '"',
            "{",
        ),
        *(
            "\\boxed{",
            "-",
            "a ",
            "。",
            "the image ",
            "user\n",
            "<a>",
            "\x1b]",
            "no image ",
            "ich ",
            "A cat. ",
            "Name all, ",
        ),
    ],
)
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


@settings(deadline=None)
@given(st.text("abcdefg .", min_size=1, max_size=80))
def test_cleaning_twice_changes_nothing_more(text):
    once, *_ = clean(text, "stop")
    assert clean(once, "stop")[0] == once
