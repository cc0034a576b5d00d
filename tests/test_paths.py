"""How many files one record passes through. `docs/design.md` lists them in order.

A file is on a record's path when its functions are called more often with more records. Start-up, and what runs once
per shard or once per command, is the same for two records as for twelve and does not count.
"""

import sys
import threading
import traceback
from collections import Counter

import beam_runner
from stages import index, search
from tests.conftest import ROOT, make_photos
from tests.loopback import Loopback

MAX_FILES = 15
FEW, MANY = 2, 12
BY_THE_CLOCK = {f"{ROOT}/pipeline/engine/{name}.py" for name in ("progress", "run_state")}  # more on a slow machine
PRODUCT = tuple(f"{ROOT}/{name}" for name in ("pipeline/", "stages/", "model/", "beam_runner.py"))


def calls_by_file(run):
    """How often functions of each product file are called while `run()` runs, on threads that it starts as well."""
    calls = Counter()

    def count(frame, event, _argument):
        if event == "call" and (path := frame.f_code.co_filename).startswith(PRODUCT):
            callers = {called.f_code.co_filename for called, _ in traceback.walk_stack(frame)}
            calls[path.removeprefix(f"{ROOT}/")] += callers.isdisjoint(BY_THE_CLOCK)

    threading.setprofile(count)
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return calls


def files_of_a_record(run):
    """Files of which each record calls a function; `run(n)` handles n records."""
    run(1)  # what is imported and cached once
    few, many = calls_by_file(lambda: run(FEW)), calls_by_file(lambda: run(MANY))
    grown = {name for name in many if many[name] - few[name] >= MANY - FEW}
    return sorted(name for name in grown if "/card/" not in name)  # made once, from tables


def assert_documented(files, heading):
    """The files are no more than a reader can follow, and those that the design page lists."""
    section = (ROOT / "docs" / "design.md").read_text("utf-8").split(f"**{heading}**")[1].split("\n\n")[0]
    missing = [name for name in files if name.rpartition("/")[2] not in section]
    assert not missing, f"docs/design.md does not list {missing} under {heading!r}"
    assert len(files) <= MAX_FILES, files


def test_a_picture_becomes_description_rows(tmp_path):
    with Loopback() as server:

        def describe(count):
            folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
            make_photos(folder / "photos", count)
            line = ["--stage", "captions", "--input", folder / "photos", "--output", folder / "corpus"]
            assert beam_runner.run([*map(str, line), "--mllm-url", server.url]) == 0

        files = files_of_a_record(describe)
    assert "stages/captions.py" in files
    assert_documented(files, "Picture → description row")


def test_a_query_becomes_results(tmp_path):
    corpus, folder = str(tmp_path / "corpus"), str(tmp_path / "index")
    for stage in ("captions", "pack"):
        samples = ["--samples"] if stage == "captions" else []
        assert beam_runner.run(["--stage", stage, "--output", corpus, *samples]) == 0
    assert index.main(["--checkpoint", "embedded", "--data", corpus, "--output", folder]) == 0

    def find(count):
        for number in range(count):  # one at a time: a batch would hide what runs once per query
            assert search.main(["--index", folder, f"eine Katze {number}"]) == 0

    files = files_of_a_record(find)
    assert "stages/retrieval/engine.py" in files
    assert_documented(files, "Query → result")
