"""Scoring as a user starts it: two processes tell what one tells; a mistake is one line."""

import json
import os
import signal
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from stages import score
from tests.conftest import ROOT, clean_environment
from tests.model.towers import processor, tiny_model
from tests.stages.corpora import write_training_corpus

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
PROGRAM = str(ROOT / "stages" / "score.py")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, and a corpus whose split val has 13 items: two processes cannot share them equally."""
    folder = tmp_path_factory.mktemp("scored")
    of = processor()
    tiny_model(of.vocabulary).save_pretrained(folder / "model")
    of.save_pretrained(folder / "model")
    write_training_corpus(folder / "corpus", 13, videos=2, splits={"val": 1.0})
    return folder


def ran(command):
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=clean_environment(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT), HF_HUB_OFFLINE="1"),
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, errors


def test_two_processes_tell_what_one_tells(files, capsys):
    def options(name):
        given = {"checkpoint": files / "model", "data": files / "corpus", "batch-size": 3}
        given |= {"output": files / f"{name}.json", "per-query": files / f"{name}.parquet"}
        return [f"--{option}={value}" for option, value in given.items()]

    status, out, errors = ran([*LAUNCH, PROGRAM, *options("two")])
    assert status == 0, errors
    assert score.main(options("one")) == 0
    one, two = (json.loads((files / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one == two and one["items"] == 13
    assert out == capsys.readouterr().out  # the table alone, once
    rows = [pq.read_table(files / f"{name}.parquet").to_pylist() for name in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) == 3 * (26 + 13)
    for mine, others in zip(*rows, strict=True):
        assert mine.pop("score") == pytest.approx(others.pop("score"), abs=1e-5)
        assert mine == others


def test_a_mistake_is_one_line(files):
    status, out, errors = ran([sys.executable, PROGRAM, "--checkpoint", files / "modle", "--data", files / "corpus"])
    assert (status, out) == (2, "")
    assert errors.splitlines() == [
        f"error: --checkpoint {files / 'modle'}: there is no such folder, and no model of that name on the Hub or in "
        "its cache"
    ]
