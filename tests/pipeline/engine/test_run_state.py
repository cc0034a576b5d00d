import os
import subprocess
import sys
from collections import Counter

import pytest

from pipeline.engine import run_state as runstate
from pipeline.engine.stage import Failure, Outcome, Progress
from pipeline.errors import BudgetSpent, EnvironmentTrouble, UsageError
from tests.conftest import ROOT


def test_the_second_run_is_told_who_holds_the_first(tmp_path):
    with runstate.locked(tmp_path):
        code = (
            "import pathlib, sys\nfrom pipeline.engine.run_state import locked\n"
            "with locked(pathlib.Path(sys.argv[1])): pass"
        )
        second = subprocess.run(
            [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd=ROOT, check=False
        )
    assert f"pid {os.getpid()}" in second.stderr
    assert os.uname().nodename in second.stderr
    with runstate.locked(tmp_path):
        pass  # free again


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / "items").mkdir()
    half = tmp_path / "items" / ".part-00000-of-00001.arrow.123.tmp"
    half.write_bytes(b"half")
    runstate.run_folder(tmp_path).mkdir(parents=True)
    (runstate.run_folder(tmp_path) / runstate.STOP).write_text('{"error": "BudgetSpent", "message": "old"}')
    with runstate.locked(tmp_path):
        assert not half.exists()
        assert runstate.stop_request(tmp_path) is None


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "corpus").write_text("")
    with pytest.raises(UsageError, match="is a file"), runstate.locked(tmp_path / "corpus"):
        pass


def test_the_first_stop_request_counts(tmp_path):
    with runstate.locked(tmp_path):
        assert runstate.stop_request(tmp_path) is None
        runstate.request_stop(tmp_path, BudgetSpent("too many"))
        runstate.request_stop(tmp_path, EnvironmentTrouble("later"))
        request = runstate.stop_request(tmp_path)
        assert isinstance(request, BudgetSpent)
        assert str(request) == "too many"


def test_a_full_disk_can_still_be_reported(tmp_path, monkeypatch):
    def full(path, value):
        raise OSError(28, "No space left on device", str(path))

    with runstate.locked(tmp_path):
        monkeypatch.setattr(runstate, "write_json", full)
        runstate.request_stop(tmp_path, EnvironmentTrouble("disk"))
        request = runstate.stop_request(tmp_path)
        assert isinstance(request, EnvironmentTrouble)
        assert "No space left on device" in str(request)


def test_progress_sums_over_workers(tmp_path, monkeypatch):
    with runstate.locked(tmp_path):
        for pid in (1, 2):
            monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
            progress = Progress(Counter(items=3))
            progress.add_failures([Outcome({}, [Failure("a.jpg", "timeout", f"from {pid}")])])
            runstate.write_progress(tmp_path, {"captions": progress})
        monkeypatch.undo()
        total = runstate.read_progress(tmp_path)["captions"]
    assert total == Progress(Counter(items=6), Counter(timeout=2), {"timeout": "a.jpg: from 1"})
