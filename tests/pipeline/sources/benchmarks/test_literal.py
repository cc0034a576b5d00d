import ast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.literal import parse, read_names

ANY_TEXT = st.text(st.characters(), max_size=12)  # half surrogate pairs too
NAMES = st.dictionaries(ANY_TEXT, st.lists(ANY_TEXT, max_size=4), max_size=4)
TUPLES = st.dictionaries(ANY_TEXT, st.lists(ANY_TEXT, max_size=4).map(tuple), max_size=4)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=4), ANY_TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(ANY_TEXT, max_size=2),
        st.dictionaries(st.one_of(ANY_TEXT, st.integers()), inner, max_size=3),
    ),
    max_leaves=6,
)


def is_names(value) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
        for key, names in value.items()
    )


@given(st.one_of(NAMES, TUPLES))
@example({"it's": ['"', "\\", "\n", "a', 'b", ""], "": []})
@example({"video": ("one",)})
def test_what_repr_writes_reads_back(names):
    read = parse(repr(names), "f")
    assert read == {key: list(value) for key, value in names.items()}
    assert list(read) == list(names)


@given(VALUES)
@example({"a": {"b": []}})
@example({"a": "b"})
@example({"a": [b"c"]})
@example({"a": [["b"]]})
@example({1: ["b"]})
def test_anything_else_is_refused(value):
    if is_names(value):
        return
    with pytest.raises(UsageError, match=r"line \d+, column \d+"):
        parse(repr(value), "f")


@given(NAMES, st.data())
def test_what_is_read_is_what_python_means(names, data):
    """A text with one letter taken out or put in either fails, or is the dict that Python would see in it."""
    text = repr(names)
    at = data.draw(st.integers(0, len(text)))
    change = data.draw(st.sampled_from(["", "'", '"', "\\", ",", " ", "[", "]", "}", "(", ":", "0", "u", "#", "\n"]))
    text = text[:at] + change + text[at + data.draw(st.integers(0, 1)) :]
    try:
        read = parse(text, "f")
    except UsageError:
        return
    meant = ast.literal_eval(text.strip())
    assert is_names(meant) and read == {key: list(value) for key, value in meant.items()}


@pytest.mark.parametrize(
    ("text", "at", "got"),
    [
        ("", "line 1, column 1", "the end of the file in the place of `{`"),
        ("__import__('os').system('true')", "line 1, column 1", "in the place of `{`"),
        ("{'a': f('b')}", "line 1, column 7", "in the place of `[`"),
        ("{'a': ['b' for b in 'c']}", "line 1, column 12", "\"for b in 'c']}\" in the place of `]`"),
        ("{'a': [\n 'b',\n 3]}", "line 3, column 2", "'3]}' in the place of a string"),
        ("{'a': {'b': []}}", "line 1, column 7", "in the place of `[`"),
        ("{'a': ['b' 'c']}", "line 1, column 12", "in the place of `]`"),
        ("{'a': ['b' + 'c']}", "line 1, column 12", "in the place of `]`"),
        ("{'a': ('b')}", "line 1, column 11", "one string in brackets"),
        ("{'a': 'b'}", "line 1, column 7", "in the place of `[`"),
        ("{'a': [b'c']}", "line 1, column 8", "in the place of a string"),
        ("{'a': [f'{c}']}", "line 1, column 8", "in the place of a string"),
        ("{'a': ['''b''']}", "line 1, column 10", "in the place of `]`"),
        ("{'a': ['b]}", "line 1, column 8", "in the place of a string"),
        ("{'a': ['b']", "line 1, column 12", "the end of the file in the place of `}`"),
        ("{'a': [,]}", "line 1, column 8", "in the place of a string"),
        ("{**x}", "line 1, column 2", "in the place of a string"),
        ("{'a': ['b']}\n; import os", "line 2, column 1", "more text behind the dict"),
        ("{'a': ['b']} # c", "line 1, column 14", "more text behind the dict"),
        ("{'a': ['b'],\n 'a': []}", "line 2, column 2", "the key 'a' a second time"),
        ("{'a': ['b\\N{DIGIT ONE}']}", "line 1, column 10", "the escape \\N"),
        ("{'a': ['\\U00110000']}", "line 1, column 9", "the escape \\U00110000"),
        ("{'a': ['\\x4']}", "line 1, column 9", "the escape \\x"),
    ],
)
def test_each_refusal_says_where_and_what(text, at, got):
    with pytest.raises(UsageError) as caught:
        parse(text, "video2frames.txt")
    assert f"video2frames.txt {at}: got " in str(caught.value) and got in str(caught.value)


def test_files_of_python_2_and_of_other_encodings(tmp_path):
    path = tmp_path / "video2frames.txt"
    path.write_bytes(b"{u'video0': [u'video0_0', u'caf\\xe9'],}\n")
    assert read_names(path) == {"video0": ["video0_0", "café"]}
    path.write_bytes("\ufeff{'café': []}".encode())
    assert read_names(path) == {"café": []}
    path.write_bytes("{'café': []}".encode("iso-8859-1"))
    assert read_names(path) == {"café": []}


def test_long_input_that_never_closes_is_refused_at_once():
    for text in (
        "{" * 100_000,
        "[" * 100_000,
        "{'a': " + "[" * 100_000,
        "{'" + "\\" * 100_001,
        "{'a': [" + "'b', " * 50_000,
    ):
        with pytest.raises(UsageError):
            parse(text, "f")
