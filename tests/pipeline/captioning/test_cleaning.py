import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.captioning.cleaning import clean

CASES = [
    ("A cat sits on a mat.", "stop", "A cat sits on a mat.", ()),
    ("Sure! Here is a description of the picture: a cat on a mat.", "stop", "A cat on a mat.", ("boilerplate",)),
    ("Two dogs run. Let me know if you need more details!", "stop", "Two dogs run.", ("boilerplate",)),
    ("Here is a cat, and there is a dog.", "stop", "Here is a cat, and there is a dog.", ()),
    ("I'm sorry, but I can't see the image.", "stop", "I'm sorry, but I can't see the image.", ("refusal",)),
    ("A cat sits. A dog lies on the", "length", "A cat sits.", ("cut",)),
    ("A cat sits near Dr. Brown. A dog lies", "length", "A cat sits near Dr. Brown.", ("cut",)),
    ("A cat. A dog. A dog. A dog. A dog. A dog.", "stop", "A cat. A dog.", ("loop",)),
    ("A man in a hat in a hat in a hat in a hat", "length", "A man in a hat", ("cut", "fragment", "loop")),
    ("- a cat\n- two dogs\n- a mat", "stop", "a cat. two dogs. a mat.", ("markdown",)),
    ("**A cat** sits on a __mat__.", "stop", "A cat sits on a mat.", ("markdown",)),
    ('"A cat sits\n on a mat."', "stop", "A cat sits on a mat.", ()),
    ("No, no, the dog barks.", "stop", "No, no, the dog barks.", ()),
]


@pytest.mark.parametrize(("text", "finish_reason", "cleaned", "flags"), CASES)
def test_cases(text, finish_reason, cleaned, flags):
    assert clean(text, finish_reason) == (cleaned, flags)


@given(st.text(max_size=300), st.sampled_from(["stop", "length"]))
def test_any_text_stays_on_one_line_and_is_never_lost_whole(text, finish_reason):
    cleaned, flags = clean(text, finish_reason)
    assert cleaned == " ".join(cleaned.split())
    assert list(flags) == sorted(set(flags))
    if text.strip('"“” \n\t') and any(character.isalnum() for character in text):
        assert cleaned


@given(st.text("abcdefg .", min_size=1, max_size=80))
def test_cleaning_twice_changes_nothing_more(text):
    once, _ = clean(text, "stop")
    assert clean(once, "stop")[0] == once
