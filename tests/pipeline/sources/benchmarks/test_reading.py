"""Reading the files of benchmarks: encodings, line ends, JSON."""

import gzip

import pytest

from pipeline.errors import UsageError
from pipeline.sources.benchmarks.files import read_layout, read_lines


def test_files_that_cannot_be_read_name_their_place(tmp_path):
    path = tmp_path / "captions.en.gz"
    path.write_bytes(gzip.compress(b"One.\n" * 100)[:-9])
    with pytest.raises(UsageError, match=r"cannot read .*captions.en.gz"):
        read_lines(path)
    with pytest.raises(UsageError, match=r"cannot read .*gone.txt"):
        read_lines(tmp_path / "gone.txt")
    for mark in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "a.txt").write_bytes(mark + b"One.\n\xc3\xa4b\xe4d\n")
        with pytest.raises(UsageError, match="line 2 is not UTF-8"):
            read_lines(tmp_path / "a.txt")
    path = tmp_path / "captions.json"
    for text, message in (('{"images": [\n  1,,\n]}', "line 2 column 5"), ("[" * 100_000, "RecursionError")):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_layout(path, list, "a list")
