"""Text that others wrote, shown in a card: it stays in its cell, and names no place of this machine."""

import re

from hypothesis import given
from hypothesis import strategies as st

from pipeline.card.markdown import cut, escape, public
from tests.worked_examples import each_example


@given(st.text())
def test_escaped_text_is_one_line_without_a_bare_mark(text):
    escaped = escape(text)
    assert "\n" not in escaped and "<" not in escaped
    bare = re.sub(r"\\[\\`*\[\]|~$_#]", "", escaped)
    assert not re.search(r"[\\`*\[\]|~$]", bare)


@given(st.text(alphabet="ab _*|`<&\\#[~1\n"), st.integers(1, 40))
def test_a_cut_never_leaves_half_an_escape(text, limit):
    whole = " ".join(text.split())
    expected = whole if len(whole) <= limit else f"{whole[: limit - 1].rstrip()}…"
    assert escape(cut(text, limit)) == escape(expected)


@each_example("no_folder_host_or_key_is_published", "message, expected")
def test_no_folder_host_or_key_is_published(message, expected):
    assert public(message) == expected


def test_marks_that_join_letters_are_kept_and_those_that_turn_or_hide_text_are_shown():
    for text in ("👩\u200d🚀", "می\u200cخواهم", "क्\u200dष"):
        assert escape(text) == text
    for mark in ("\u202e", "\u2066", "\x00", "\x1b", "\ufeff", "\ue000"):
        assert escape(f"a{mark}b") == "a\ufffdb"
