"""Reading the files of benchmarks: encodings, line ends, JSON, ids."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.reading import read_json, read_lines, unique


def test_line_and_place_of_the_byte_are_those_of_the_file(tmp_path):
    path = tmp_path / "captions.txt"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + b"One.\n\xc3\xa4b\xe4d\n")
        with pytest.raises(UsageError, match="line 2: byte 0xe4 at place 4"):
            read_lines(path)


@given(lines=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)))
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_n_stays_line_n(tmp_path_factory, lines, end):
    path = tmp_path_factory.mktemp("lines") / "captions.en.gz"
    path.write_bytes(gzip.compress("".join(line + end for line in lines).encode("utf-8-sig"), 1))
    assert read_lines(path) == lines


def test_the_last_line_may_have_no_end_and_blank_ones_stay(tmp_path):
    path = tmp_path / "captions.en"
    path.write_bytes(b"One.\n\nThree\x0bfour\xe2\x80\xa8.")
    assert read_lines(path) == ["One.", "", "Three\x0bfour\u2028."]


def test_a_broken_gz_and_a_missing_file_are_told(tmp_path):
    path = tmp_path / "captions.en.gz"
    path.write_bytes(gzip.compress(b"One.\n" * 100)[:-9])
    with pytest.raises(UsageError, match=r"broken \.gz file"):
        read_lines(path)
    with pytest.raises(UsageError, match=r"cannot read .*gone.txt: No such file"):
        read_lines(tmp_path / "gone.txt")


def test_broken_json_is_told_with_line_and_column(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text('{"images": [\n  1,,\n]}')
    with pytest.raises(UsageError, match="line 2, column 5 is broken JSON"):
        read_json(path)
    path.write_text("[" * 100_000)
    with pytest.raises(UsageError, match="cannot be read"):
        read_json(path)
    path.write_text(json.dumps({"a": "ä"}), "utf-8-sig")
    assert read_json(path) == {"a": "ä"}


def test_an_id_that_comes_twice_names_both_lines():
    unique(["a", "b"], "ids.txt")
    with pytest.raises(UsageError, match=r"ids.txt: the id 'a' comes twice, in line 1 and line 3"):
        unique(["a", "b", "a"], "ids.txt")
