"""Reading the files of benchmarks: encodings, line ends, JSON, ids."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.reading import read_json, read_lines, read_text, unique

CZECH = "Dva muži v žlutých přilbách stojí před domem.\nMalá holčička šplhá do dřevěného domečku.\n"
GERMAN = "Zwei Männer stehen am Herd.\nEin Mädchen läuft über die Straße.\n"
CHINESE = "一个男人骑着一辆红色的摩托车。\n两只猫躺在沙发上。\n"
TRADITIONAL = "一個男人騎著一輛紅色的摩托車。\n兩隻貓躺在沙發上。\n"
JAPANESE = "赤いバイクに乗っている男性がいます。\nソファの上に二匹の猫がいます。\n"


@pytest.mark.parametrize(
    ("text", "encoding", "likely"),
    [
        (GERMAN, "cp1252", "WINDOWS-1252"),
        (CZECH, "cp1250", "WINDOWS-1250"),
        (CHINESE, "gb18030", "GB18030"),
        (TRADITIONAL, "big5", "BIG5"),
        (JAPANESE, "shift_jis", "SHIFT_JIS"),
        (JAPANESE, "euc_jp", "EUC-JP"),
        (GERMAN, "utf-16", "UTF-16"),
    ],
)
def test_another_encoding_is_named_with_its_place(tmp_path, text, encoding, likely):
    path = tmp_path / "captions.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(UsageError, match=rf"captions.txt line 1: byte 0x.* looks like {likely}\)"):
        read_text(path)


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
