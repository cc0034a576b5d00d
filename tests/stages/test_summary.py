"""The closing report."""

from pathlib import Path

from pipeline.corpus.table import Table
from stages.captions import Captions
from stages.summary import NUM_ROWS, _rows, report
from tests.conftest import make_photos
from tests.corpora import small_corpus


def test_counts_reasons_and_rows(tmp_path):
    corpus = small_corpus(tmp_path / "corpus", make_photos(tmp_path / "photos", 5))
    lines = []
    assert report(corpus, Path("corpus"), [Captions(None, ())], False, lines.append) == 0
    text = "\n".join(lines)
    assert lines[0].startswith("nothing to do")
    assert (
        lines[-1] == "next: python beam_runner.py --stage translate --text descriptions --languages pt --output corpus"
    )
    count = Table(corpus, "descriptions").num_rows
    assert f"descriptions  {count:>10,} rows" in text


def test_a_few_rows_each_once_and_no_wider_than_the_terminal(tmp_path, monkeypatch):
    corpus = small_corpus(tmp_path / "corpus", make_photos(tmp_path / "photos", 5))
    monkeypatch.setenv("COLUMNS", "40")
    for name in ("items", "captions", "descriptions", "translations"):
        lines = list(_rows(Table(corpus, name)))
        assert len(lines) == min(NUM_ROWS, Table(corpus, name).shard(0).num_rows)
        assert max(map(len, lines)) <= 38
    assert len(set(_rows(Table(corpus, "items")))) == min(NUM_ROWS, Table(corpus, "items").shard(0).num_rows)
