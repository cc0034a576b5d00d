import os
from collections import Counter

import pytest

from pipeline.engine import run_state as runstate
from pipeline.engine.stage import Failure, Outcome, Progress
from pipeline.errors import BudgetSpent, EnvironmentTrouble, UsageError


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / "items").mkdir()
    half = tmp_path / "items" / ".part-00000-of-00001.arrow.123.tmp"
    half.write_bytes(b"half")
    runstate.run_folder(tmp_path).mkdir(parents=True)
    (runstate.run_folder(tmp_path) / runstate.STOP).write_text('{"error": "BudgetSpent", "message": "old"}')
    with runstate.locked(tmp_path):
        assert not half.exists()
        assert runstate.stop_request(tmp_path) is None


@pytest.mark.parametrize("full", [False, True])
def test_the_first_stop_request_counts_and_is_made_even_on_a_full_disk(tmp_path, monkeypatch, full):
    def write(path, _value):
        raise OSError(28, "No space left on device", str(path))

    with runstate.locked(tmp_path):
        assert runstate.stop_request(tmp_path) is None
        if full:
            monkeypatch.setattr(runstate, "write_json", write)
        runstate.request_stop(tmp_path, BudgetSpent("too many"))
        runstate.request_stop(tmp_path, UsageError("later"))
        request = runstate.stop_request(tmp_path)
    assert type(request) is (EnvironmentTrouble if full else BudgetSpent)
    assert ("No space left on device" if full else "too many") in str(request)


def test_progress_sums_over_workers(tmp_path, monkeypatch):
    with runstate.locked(tmp_path):
        for pid in (1, 2):
            monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
            progress = Progress(Counter(items=3))
            progress.add_failures([Outcome({}, [Failure("a.jpg", "timeout", f"from {pid}")])])
            runstate.write_progress(tmp_path, "token", {"captions": progress})
        monkeypatch.undo()
        total = runstate.read_progress(tmp_path)["captions"]
    assert total == Progress(Counter(items=6), Counter(timeout=2), {"timeout": "a.jpg: from 1"})
