"""How many files one record passes through. `docs/design.md` lists them in order.

A file is on a record's path when its functions are called more often with more records. Start-up is the same for two
records as for twelve, so it does not count.
"""

import sys
import threading
from collections import Counter

import pytest

import beam_runner
from stages import search
from tests.conftest import ROOT, make_photos
from tests.loopback import Loopback

MOST = 15
FEW, MANY = 2, 12


def calls_by_file(run):
    """How often functions of each product file are called while `run()` runs, on all threads."""
    calls = Counter()

    def count(frame, event, _argument):
        if event == "call":
            calls[frame.f_code.co_filename] += 1

    threading.setprofile_all_threads(count) if sys.version_info >= (3, 12) else threading.setprofile(count)
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    inside = {name: name.removeprefix(f"{ROOT}/") for name in calls if name.startswith(f"{ROOT}/")}
    product = ("pipeline/", "stages/", "model/", "beam_runner.py")
    return Counter({short: calls[name] for name, short in inside.items() if short.startswith(product)})


def files_of_a_record(run):
    """Files of which each record calls a function; `run(n)` handles n records."""
    run(1)  # what is imported and cached once
    few, many = calls_by_file(lambda: run(FEW)), calls_by_file(lambda: run(MANY))
    return sorted(name for name in many if many[name] - few[name] >= MANY - FEW)


def test_a_picture_becomes_description_rows(tmp_path):
    with Loopback() as server:

        def describe(count):
            folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
            make_photos(folder / "photos", count)
            line = ["--stage", "captions", "--input", folder / "photos", "--output", folder / "corpus", "--shard-size", 1]
            assert beam_runner.run([*map(str, line), "--mllm-url", server.url]) == 0

        files = files_of_a_record(describe)
    print(*files, sep="\n")
    assert len(files) <= MOST, files


@pytest.mark.usefixtures("capsys")
def test_a_query_becomes_results(tmp_path):
    corpus, index, queries = tmp_path / "corpus", tmp_path / "index", tmp_path / "queries.txt"
    for stage in ("captions", "pack"):
        assert beam_runner.run(["--stage", stage, "--output", str(corpus)]) == 0
    from stages import index as index_program

    assert index_program.main(["--checkpoint", "embedded", "--data", str(corpus), "--output", str(index)]) == 0

    def find(count):
        queries.write_text("\n".join(f"eine Katze {number}" for number in range(count)), "utf-8")
        for query in queries.read_text("utf-8").splitlines():  # one at a time: a batch would hide what runs for each
            assert search.main(["--index", str(index), query]) == 0

    files = files_of_a_record(find)
    print(*files, sep="\n")
    assert len(files) <= MOST, files
