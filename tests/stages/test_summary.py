"""The closing report."""

import shlex
from pathlib import Path

import pytest

from stages.captions import Captions
from stages.summary import NUM_ROWS, report
from tests.conftest import make_photos
from tests.corpora import small_corpus


@pytest.mark.parametrize("name", ["my corpus", "it's", "a;b$(c)"])
def test_the_next_command_is_quoted_for_the_shell(tmp_path, name):
    corpus = small_corpus(tmp_path / "corpus", make_photos(tmp_path / "photos", 5))
    lines = []
    report(corpus, Path(name), [Captions(None, ())], False, lines.append)
    assert shlex.split(lines[-1])[-2:] == ["--output", name]


def test_counts_rows_no_wider_than_the_terminal_and_the_next_command(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    corpus = small_corpus(tmp_path / "corpus", make_photos(tmp_path / "photos", 5))
    lines = []
    assert report(corpus, Path("corpus"), [Captions(None, ())], False, lines.append) == 0
    assert lines[0].startswith("nothing to do")
    assert lines[-1].startswith("next: python beam_runner.py --stage translate") and lines[-1].endswith(" corpus")
    assert any(line.split()[:3] == ["descriptions", "3", "rows"] for line in lines), lines
    rows = [line for line in lines if "Seen: " in line]
    assert 0 < len(rows) <= NUM_ROWS and len(set(rows)) == len(rows)
    assert max(map(len, rows)) <= 40
