"""What surrounds a run goes wrong while it runs: a full disk, a read-only one, signals, servers that go away."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

from pipeline.corpus.table import Table
from tests.conftest import clean_environment, command, make_photos
from tests.end_to_end.test_resume import table_bytes
from tests.end_to_end.test_runners import free_port
from tests.loopback import Loopback
from tests.test_beam_runner import Ended, ended

PAGE_BYTES = 4096
IN_ORDER = (".state/plan/plan.json", ".state/ingest/part-00000.json", ".state/captions/part-00000.json")
IN_ORDER += ("descriptions/manifest.json", "README.md")


@pytest.fixture
def photos(tmp_path):
    make_photos(tmp_path / "photos", 4)
    return tmp_path / "photos"


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
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(b"\0" * PAGE_BYTES):
            pass
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


def interrupted(process, server, number, after, group=False):
    """Send a signal once the server has answered `after` requests; → Ended."""
    while process.poll() is None and server.stats()["answered"] < after:
        time.sleep(0.02)
    os.killpg(process.pid, number) if group else process.send_signal(number)
    try:
        out, err = process.communicate(timeout=20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return Ended(process.returncode, out, err)


def started(*given):
    return subprocess.Popen(
        command(*given),
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    "number, group, mode",
    [
        (signal.SIGTERM, False, ()),
        (signal.SIGINT, True, ()),  # Ctrl-C on a terminal goes to the whole group of processes
        (signal.SIGINT, True, ("--direct_running_mode", "multi_processing", "--direct_num_workers", 2)),
        pytest.param(
            *(signal.SIGTERM, False, ("--direct_running_mode", "multi_processing", "--direct_num_workers", 2)),
            marks=pytest.mark.torture,
        ),
    ],
    ids=["SIGTERM", "Ctrl-C", "Ctrl-C processes", "SIGTERM processes"],
)
def test_a_signal_ends_the_run_in_order(tmp_path, capfd, number, group, mode):
    make_photos(tmp_path / "photos", 60)
    corpus, window = tmp_path / "corpus", 4
    options = ("--shard-size", 6, "--window", window)
    with Loopback(latency_s=0.15) as server:
        given = arguments(tmp_path / "photos", corpus, server, *options)
        result = interrupted(started(*given, *mode), server, number, after=25, group=group)
        assert result.status == 130
        message = result.err.splitlines()[-1] if mode else result.error()  # Beam's worker processes log what they do
        assert "Traceback" not in result.err
        assert message.startswith(f"error: ended by {number.name}") or message.startswith(f"ended by {number.name}")
        assert "run the same command again" in message
        answered = server.stats()["answered"]
        assert answered < 60
        whole = len(list((corpus / ".state" / "captions").glob("part-*.json")))
        assert 0 < whole < 10
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


def test_a_server_that_goes_away_and_comes_back(many, tmp_path, capfd):
    """No record is charged for it: two attempts are all that each has. The pause is many times that of any retry."""
    port, before = free_port(), []

    def restart():
        with Loopback(port=port, latency_s=0.1) as first:
            going.set()
            while (answered := first.stats()["answered"]) < 15:
                time.sleep(0.02)
            before.append(answered)
            first.process.kill()
            first.process.wait()
        time.sleep(6)
        with Loopback(port=port):
            over.wait()

    going, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=restart)
    thread.start()
    try:
        assert going.wait(20)
        server = Loopback(port=port)
        server.url = f"http://127.0.0.1:{port}"
        result = ended(capfd, *arguments(many, tmp_path / "corpus", server, "--window", 8, "--attempts", 2))
    finally:
        over.set()
        thread.join()
    result.done()
    assert before[0] < 60
    table = Table(tmp_path / "corpus", "descriptions")
    assert table.num_rows == 60 and table.failures() == []


def test_a_server_that_goes_away_for_good(many, tmp_path, capfd):
    with Loopback(latency_s=0.05, die_after=30) as server:
        options = ("--patience", 1, "--window", 4, "--shard-size", 5)
        result = ended(capfd, *arguments(many, tmp_path / "corpus", server, *options))
    assert result.status == 4
    assert "no server has answered for 1 s" in result.error() and server.url in result.error()
    assert "run the same command again" in result.error()
    kept = len(list((tmp_path / "corpus" / ".state" / "captions").glob("part-*.json")))
    assert kept >= 3
    with Loopback() as server:
        ended(capfd, *arguments(many, tmp_path / "corpus", server, "--shard-size", 5)).done()
        assert server.stats()["requests"] <= 60 - 30 + 4


def test_one_server_of_two_dies_and_one_was_never_there(many, tmp_path, capfd):
    dead = f"http://127.0.0.1:{free_port()}"
    with Loopback(latency_s=0.05) as stays, Loopback(latency_s=0.05, die_after=10) as dies:
        others = ("--mllm-url", dies.url, "--mllm-url", dead)
        result = ended(capfd, *arguments(many, tmp_path / "corpus", stays, *others, "--window", 8))
        assert stays.stats()["answered"] >= 45
    out = result.done()
    assert re.search(rf"note: .*{dead}", out)
    table = Table(tmp_path / "corpus", "descriptions")
    assert table.num_rows == 60 and table.failures() == []


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
    shutil.rmtree(tmp_path / "corpus")
