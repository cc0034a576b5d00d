"""What a run says about its input: the account of what it did not take, splits, and `--strict`."""

import shutil

import pytest

import beam_runner
from pipeline.corpus.table import Table
from pipeline.sources import account
from tests.conftest import jpeg_bytes
from tests.pipeline.sources.helpers import pack


@pytest.fixture
def ingest(tmp_path, capsys):
    """Run the stage on an input; returns the exit status and what was printed."""

    def run(*options):
        status = beam_runner.run(["--stage", "ingest", "--output", str(tmp_path / "corpus"), *map(str, options)])
        return status, "".join(capsys.readouterr())

    run.corpus = tmp_path / "corpus"
    return run


def test_the_account_of_a_run_outlives_its_state(ingest, tmp_path, monkeypatch):
    """Counted and listed after the run, after a run with nothing to do, and after the state was deleted."""
    monkeypatch.setattr(account, "LISTED", 2)
    texts = [(f"{number}.txt", b"A dog.") for number in range(3)]
    tar = pack(tmp_path / "t.tar", [("a.jpg", jpeg_bytes()), *texts])
    for status in (0, 0, 1):
        found, printed = ingest("--input", tar, *["--strict"] * status)
        assert found == status
        assert any(line.startswith("  not taken: 3 samples ") and "'0'" in line for line in printed.splitlines())
        items = Table(ingest.corpus, "items")
        assert [line["id"] for line in items.failures()] == ["0", "1", "…"]
        assert {(line["error"], line["stage"]) for line in items.failures()} == {("not_taken", "ingest")}
        shutil.rmtree(ingest.corpus / ".state")
    assert beam_runner.run(["--stage", "verify", "--output", str(ingest.corpus)]) == 0
