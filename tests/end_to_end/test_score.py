"""Scoring as a user starts it: two processes report what one reports; a mistake is one line."""

import json

import pyarrow.parquet as pq
import pytest

from stages import score
from tests.conftest import run_python
from tests.stages.corpora import write_training_corpus
from tests.stages.indexed import write_model

LAUNCH = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2")


def test_two_processes_report_what_one_reports(tmp_path, capsys):
    """On 13 items, which two processes cannot share equally."""
    model = write_model(tmp_path / "model")
    corpus = write_training_corpus(tmp_path / "corpus", 13, videos=2, splits={"val": 1.0})

    def options(name):
        given = {"checkpoint": model, "data": corpus, "batch-size": 3}
        given |= {"output": tmp_path / f"{name}.json", "per-query": tmp_path / f"{name}.parquet"}
        return [f"--{option}={value}" for option, value in given.items()]

    launched = run_python(*LAUNCH, "stages/score.py", *options("two"), HF_HUB_OFFLINE="1")
    assert launched.returncode == 0, launched.stderr
    assert score.main(options("one")) == 0
    assert launched.stdout == capsys.readouterr().out  # only the table, once
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one == two and one["items"] == 13
    rows = [pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) == 3 * (26 + 13)
    for mine, others in zip(*rows, strict=True):
        assert mine.pop("score") == pytest.approx(others.pop("score"), abs=1e-5)
        assert mine == others
