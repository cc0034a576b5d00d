"""What surrounds a run goes wrong while it runs: a full disk, a read-only one, signals, servers that go away."""

import contextlib
import os
import signal
import subprocess
import threading
import time

import pytest

from pipeline.corpus.table import Table
from tests.conftest import clean_environment, command, make_photos
from tests.end_to_end.test_resume import table_bytes
from tests.loopback import Loopback
from tests.test_beam_runner import Ended, ended

PAGE_BYTES = 4096
IN_ORDER = (".state/plan/plan.json", ".state/ingest/part-00000.json", ".state/captions/part-00000.json")
IN_ORDER += ("descriptions/manifest.json", "README.md")


def arguments(inputs, corpus, server, *more):
    given = ("--stage", "captions", "--input", inputs, "--output", corpus, "--mllm-url", server.url)
    return (*given, "--views", "short", *more)


# Disks


@pytest.fixture
def small_disk(tmp_path):
    """An empty file system of 4 MiB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_full_at_every_moment(small_disk, photos, tmp_path, capfd):
    """The disk gets one page more before each run: it fills up at each thing in turn that a run writes."""
    corpus = small_disk / "corpus"
    corpus.mkdir()
    filler = small_disk / "filler"
    with contextlib.suppress(OSError):
        filler.write_bytes(bytes(8 << 20))
    messages, moments = [], set()
    with Loopback() as server:
        for _ in range(80):
            result = ended(capfd, *arguments(photos, corpus, server))
            if result.status == 0:
                break
            assert result.status == 4, result.err
            messages.append(result.error())
            moments.add(tuple((corpus / name).exists() for name in IN_ORDER))
            os.truncate(filler, filler.stat().st_size - PAGE_BYTES)
        result.done()
        ended(capfd, *arguments(photos, tmp_path / "roomy", server)).done()
        stats = server.stats()
    assert all("No space left" in message or "full" in message for message in messages)
    assert all("run the same command again" in message for message in messages)
    assert any("the response cache" in message for message in messages)
    assert len(moments) >= len(IN_ORDER), moments  # full before the first of them, and after each but the last
    assert ended(capfd, "--stage", "verify", "--output", corpus).status == 0
    tables = {name: data for name, data in table_bytes(corpus).items() if not name.startswith(("README", "contact"))}
    assert tables.items() <= table_bytes(tmp_path / "roomy").items()
    assert not list(corpus.rglob("*.tmp"))
    assert stats["answered"] < 4 * len(messages)  # what was finished was kept


def test_an_output_that_cannot_be_written(small_disk, photos, capfd):
    corpus = small_disk / "corpus"
    with Loopback() as server:
        ended(capfd, *arguments(photos, corpus, server)).done()
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        for place in (corpus, small_disk / "new"):
            result = ended(capfd, *arguments(photos, place, server))
            assert result.status == 4
            assert "Read-only file system" in result.error() and str(place) in result.error()
    assert ended(capfd, "--stage", "verify", "--output", corpus).status == 0


# Signals


def interrupted(server, number, *given):
    """Start a run and send it a signal once the server has answered 25 requests; → Ended."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(*given), env=clean_environment(), start_new_session=True, **pipes) as process:
        while process.poll() is None and server.stats()["answered"] < 25:
            time.sleep(0.02)
        if number == signal.SIGINT:  # Ctrl-C on a terminal goes to the whole group of processes
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        try:
            out, err = process.communicate(timeout=20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return Ended(process.returncode, out, err)


PROCESSES = ("--direct_running_mode", "multi_processing", "--direct_num_workers", 2)
ENDINGS = [(signal.SIGTERM, ()), (signal.SIGINT, PROCESSES)]
MORE_ENDINGS = [(signal.SIGINT, ()), (signal.SIGTERM, PROCESSES)]


@pytest.mark.parametrize(
    "number, mode", [*ENDINGS, *(pytest.param(*ending, marks=pytest.mark.torture) for ending in MORE_ENDINGS)]
)
def test_a_signal_ends_the_run_in_order(tmp_path, capfd, number, mode):
    make_photos(tmp_path / "photos", 60)
    corpus, window = tmp_path / "corpus", 4
    options = ("--shard-size", 6, "--window", window)
    with Loopback(latency_s=0.15) as server:
        given = arguments(tmp_path / "photos", corpus, server, *options)
        result = interrupted(server, number, *given, *mode)
        assert result.status == 130
        message = result.err.splitlines()[-1] if mode else result.error()  # Beam's worker processes log what they do
        assert "Traceback" not in result.err
        assert f"ended by {number.name}" in message and "run the same command again" in message
        assert server.stats()["answered"] < 60
        assert 0 < len(list((corpus / ".state" / "captions").glob("part-*.json"))) < 10
        assert not list(corpus.rglob("*.tmp")) and not (corpus / "descriptions" / "manifest.json").exists()
        server.script(latency_s=0)
        ended(capfd, *given).done()
        twice = sum(asked - 1 for asked, _ in server.stats()["seen"].values())
        assert twice <= window * (2 if mode else 1)
    assert Table(corpus, "descriptions").num_rows == 60
    assert ended(capfd, "--stage", "verify", "--output", corpus).status == 0


# Servers that go away


@pytest.fixture
def many(tmp_path):
    make_photos(tmp_path / "many", 60)
    return tmp_path / "many"


def test_a_server_that_goes_away_for_good(many, tmp_path, capfd):
    with Loopback(latency_s=0.05, die_after=30) as server:
        options = ("--patience", 1, "--window", 4, "--shard-size", 5)
        result = ended(capfd, *arguments(many, tmp_path / "corpus", server, *options))
    assert result.status == 4
    assert "no server has answered for 1 s" in result.error() and server.url in result.error()
    assert len(list((tmp_path / "corpus" / ".state" / "captions").glob("part-*.json"))) >= 3
    with Loopback() as server:
        ended(capfd, *arguments(many, tmp_path / "corpus", server, "--shard-size", 5)).done()
        assert server.stats()["requests"] <= 60 - 30 + 4


def test_a_server_that_refuses_the_key_in_mid_run(many, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("LECCR_MLLM_API_KEY", "first-secret")
    with Loopback(latency_s=0.1, api_key="first-secret") as server:

        def change():
            while server.stats()["answered"] < 5:
                time.sleep(0.02)
            server.script(api_key="second-secret")

        thread = threading.Thread(target=change)
        thread.start()
        result = ended(capfd, *arguments(many, tmp_path / "corpus", server, "--window", 4))
        thread.join()
    assert result.status == 4
    assert "LECCR_MLLM_API_KEY" in result.error()
    for path in (tmp_path / "corpus").rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes()
