"""Killed at any moment and started again with the same command: the same bytes, and almost nothing paid for twice."""

import random
import signal
import subprocess
import time

import pytest

from pipeline.corpus.table import Table
from tests.conftest import clean_environment, command, make_photos, run_stage
from tests.loopback import Loopback

ITEMS, WINDOW = 150, 16
SERVER = {"latency_s": 0.1, "sigma": 0.5}


def table_bytes(corpus):
    """Every file of every table, by name. The state beside them may differ; the card has the folder's name in it."""
    files = [path for path in corpus.glob("[a-z]*/*") if path.is_file()]
    return {str(path.relative_to(corpus)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    photos = tmp_path_factory.mktemp("resume") / "photos"
    make_photos(photos, ITEMS)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff no more than a start")

    def of(corpus, url, *more):
        inputs = ("--stage", "captions", "--input", photos, "--output", corpus, "--mllm-url", url)
        return command(*inputs, "--shard-size", 20, "--window", WINDOW, *more)

    return of


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.torture)])
def test_killed_at_any_moment(arguments, tmp_path_factory, kills):
    folder = tmp_path_factory.mktemp("kills")
    generator = random.Random(7)
    with Loopback(**SERVER) as server:
        done = subprocess.run(arguments(folder / "whole", server.url), env=clean_environment(), check=False)
        assert done.returncode == 0
        records = server.stats()["answered"]
    assert records == ITEMS * 5
    moments = sorted(generator.sample(range(1, records), kills - kills // 4))
    with Loopback(**SERVER) as server:
        for kill in range(kills):
            process = subprocess.Popen(arguments(folder / "killed", server.url), env=clean_environment())
            if kill % 4 == 3:  # at any time: while it starts, lists, ingests, or is already further
                time.sleep(generator.uniform(0.5, 4.0))
            else:
                goal = moments[min(kill - kill // 4, len(moments) - 1)]
                while process.poll() is None and server.stats()["answered"] < goal:
                    time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
        done = subprocess.run(arguments(folder / "killed", server.url), env=clean_environment(), check=False)
        assert done.returncode == 0
        stats = server.stats()
    assert table_bytes(folder / "killed") == table_bytes(folder / "whole")
    twice = sum(asked - 1 for asked, _ in stats["seen"].values())
    assert 0 < twice <= kills * WINDOW
    assert len(stats["seen"]) == records
    assert run_stage("--stage", "verify", "--output", folder / "killed").returncode == 0


def test_failed_records_are_tried_again_and_only_they(arguments, tmp_path):
    with Loopback(fault_rate=1.0, faults=["500"]) as server:
        lines = ["--attempts", "2", "--max-failures", "100000"]
        again = arguments(tmp_path / "corpus", server.url, *lines)[2:]  # without the interpreter and the program
        first = run_stage(*again)
        assert first.returncode == 0, first.stderr
        assert len(Table(tmp_path / "corpus", "descriptions").failures()) == ITEMS * 5
        server.script(fault_rate=0.3, faults=["empty"])
        before = server.stats()["answered"]
        assert run_stage(*again).returncode == 0
        left = Table(tmp_path / "corpus", "descriptions").failures()
        assert 0 < len(left) < ITEMS * 5 * 0.3
        assert {line["error"] for line in left} == {"empty"}
        assert all(line["attempts"] == 2 and line["stage"] == "captions" and line["view"] for line in left)
        server.script(fault_rate=0.0)
        between = server.stats()["answered"]
        assert run_stage(*again).returncode == 0
        assert server.stats()["answered"] - between == len(left)
        assert between - before == ITEMS * 5 - len(left)
    assert Table(tmp_path / "corpus", "descriptions").failures() == []
    assert run_stage("--stage", "verify", "--output", tmp_path / "corpus").returncode == 0
