"""The program on a user's mistakes: the exit status, and one message that says what to do."""

import dataclasses
import functools
import io
import os
import re
import shutil
import signal
import socket
import sys

import pytest

import beam_runner
from pipeline.corpus.table import Table
from pipeline.engine import run_state as runstate
from tests.conftest import jpeg_bytes, make_photos, run_python
from tests.loopback import Loopback
from tests.worked_examples import each_example


@dataclasses.dataclass
class Ended:
    status: int
    out: str
    err: str

    def error(self):
        """The one message on stderr: one line, and nothing else."""
        assert self.err.startswith("error: ") and self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.out
        return self.err.removeprefix("error: ").strip()

    def done(self):
        assert (self.status, self.err) == (0, ""), self.err
        return self.out


def ended(capfd, *arguments):
    """Run the program in this process, as `python beam_runner.py` would."""
    capfd.readouterr()
    status = beam_runner.run([str(argument) for argument in arguments])
    return Ended(status, *capfd.readouterr())


@pytest.fixture
def run(capfd, monkeypatch):
    monkeypatch.setattr("pipeline.engine.progress.PLAIN_S", 3600)  # no line of progress, however slow the machine is
    return functools.partial(ended, capfd)


@pytest.fixture
def captions(run, server, tmp_path):
    """captions(input, *options) describes into tmp_path/corpus, one view unless --views is given."""

    def described(inputs, *options):
        views = () if "--views" in options else ("--views", "short")
        given = () if inputs is None else ("--input", inputs)
        url = () if "--mllm-url" in options else ("--mllm-url", server.url)
        return run("--stage", "captions", "--output", tmp_path / "corpus", *given, *url, *views, *options)

    return described


# What --input may be


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        *("captions", "ingest --shard-size 5", "captions --dry-run 1", "translate --languages pt", "pack", "verify"),
        *("captions --input photo", "ingest --input .", "translate --languages pt --input photo"),
        "ingest --samples --input .",
    ],
)
def test_a_typing_mistake_creates_nothing(run, tmp_path, monkeypatch, arguments, is_there):
    monkeypatch.chdir(tmp_path)
    if is_there:
        (tmp_path / "corpus").mkdir()
    before = list(tmp_path.rglob("*"))
    ended = run("--stage", *arguments.split())
    assert ended.status == 2 and ended.err.startswith("error: ")
    assert list(tmp_path.rglob("*")) == before


def test_overwrite_keeps_the_input_that_is_not_given_again(run, tmp_path, photos):
    ingest = functools.partial(run, "--stage", "ingest", "--output", tmp_path / "corpus")
    ingest("--input", photos).done()
    ingest("--overwrite", "--shard-size", 2).done()
    assert Table(tmp_path / "corpus", "items").num_rows == 4
    assert "inputs" in ingest("--samples").error()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_of_another_encoding(tmp_path, photos, monkeypatch, encoding):
    (photos / "猫.jpg").write_bytes(jpeg_bytes())
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding))
    assert beam_runner.run(["--stage", "ingest", "--input", str(photos), "--output", str(tmp_path / "corpus")]) == 0
    sys.stdout.flush()
    assert b"\\u732b.jpg" in printed.getvalue()


@each_example("a_mistake_is_one_message", "arguments, words")
def test_a_mistake_is_one_message(run, tmp_path, arguments, words):
    output = () if "--output" in arguments or not arguments else ("--output", tmp_path / "corpus")
    ended = run(*arguments, *output)
    assert ended.status == 2
    assert all(word in ended.error() for word in words)


@pytest.mark.parametrize(("name", "status"), [("file/x", 2), ("file/x/y", 2), ("/proc/x", 4), ("/proc/self/x", 4)])
def test_an_output_where_no_folder_can_be(run, tmp_path, name, status):
    (tmp_path / "file").write_text("mine")
    ended = run("--stage", "ingest", "--samples", "--output", tmp_path / name)
    assert ended.status == status
    assert (str(tmp_path / "file") if status == 2 else name) in ended.error()


@pytest.mark.parametrize("place", ["output", "input"])
def test_names_that_are_not_utf_8(run, photos, tmp_path, place):
    other = tmp_path / os.fsdecode(b"caf\xe9")
    inputs = photos.rename(other) if place == "input" else photos
    ended = run("--stage", "ingest", "--input", inputs, "--output", other if place == "output" else tmp_path / "corpus")
    assert ended.status == 2 and "caf\\udce9" in ended.error() and "not UTF-8" in ended.error()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("outcome", [KeyboardInterrupt, ImportError])  # an interrupted import may raise either
def test_a_signal_before_the_first_shard(run, photos, tmp_path, monkeypatch, number, outcome):
    def list_media(*_, **__):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            raise outcome from error

    monkeypatch.setattr("stages.driver.commit.check_settings", list_media)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    ended = run("--stage", "ingest", "--input", photos, "--output", tmp_path / "corpus")
    assert ended.status == 130 and "run the same command again" in ended.error()
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_an_input_that_holds_no_media(captions, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    ended = captions(tmp_path)
    assert ended.status == 2
    assert "1 .txt" in ended.error() and "images, videos" in ended.error()


# What --output may be


def test_a_second_run_at_once(captions, photos, tmp_path):
    with runstate.locked(tmp_path / "corpus"):
        ended = captions(photos)
    assert ended.status == 2
    assert socket.gethostname() in ended.error() and "pid" in ended.error()
    captions(photos).done()


@pytest.mark.parametrize("name", ["README.md", "notes/.draft.tmp"])
def test_files_of_the_users_are_not_written_over(captions, photos, tmp_path, name):
    mine = tmp_path / "corpus" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("my own")
    ended = captions(photos)
    assert mine.read_text() == "my own"
    assert ended.status == 2
    assert mine.relative_to(tmp_path / "corpus").parts[0] in ended.error() and "--output" in ended.error()


def test_a_corpus_inside_its_input(captions, photos, monkeypatch):
    """`cd photos` and --input . --output corpus: the contact sheet is no photo of the input."""
    monkeypatch.chdir(photos)
    captions(".", "--output", "corpus").done()
    again = captions(".", "--output", "corpus")
    assert "nothing to do" in again.done()
    assert "note:" not in again.out


# Servers


def test_no_server_there(captions, photos, tmp_path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        ended = captions(photos, "--mllm-url", url)
    assert ended.status == 4
    assert "no server answers" in ended.error() and url in ended.error()
    assert not (tmp_path / "corpus").exists()


def test_a_key_that_is_refused(captions, photos, monkeypatch):
    with Loopback(api_key="right") as guarded:
        monkeypatch.delenv("LECCR_MLLM_API_KEY", raising=False)
        ended = captions(photos, "--mllm-url", guarded.url)
        assert ended.status == 4
        assert "LECCR_MLLM_API_KEY" in ended.error()
        monkeypatch.setenv("LECCR_MLLM_API_KEY", "wrong-secret")
        ended = captions(photos, "--mllm-url", guarded.url)
        assert ended.status == 4
        assert "LECCR_MLLM_API_KEY" in ended.error() and "wrong-secret" not in ended.error()
        monkeypatch.setenv("LECCR_MLLM_API_KEY", "right")
        captions(photos, "--mllm-url", guarded.url).done()


# Options of Beam


def test_a_job_service_that_is_not_there(server, photos, tmp_path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        beam = ("--runner", "PortableRunner", "--job_endpoint", address)
        inputs = ("--input", photos, "--output", tmp_path / "corpus", "--mllm-url", server.url)
        ended = run_python("beam_runner.py", "--stage", "captions", *inputs, *beam)
    assert ended.returncode == 4
    assert address in Ended(4, ended.stdout, ended.stderr).error()


# The card


def test_a_card_left_over_by_a_killed_run_is_written_again(run, captions, photos, tmp_path, monkeypatch):
    run("--stage", "ingest", "--input", photos, "--output", tmp_path / "corpus").done()
    card = tmp_path / "corpus" / "README.md"
    with monkeypatch.context() as killed:
        killed.setattr("stages.driver.update_card", lambda _: signal.raise_signal(signal.SIGINT))
        assert captions(photos).status == 130
    assert Table(tmp_path / "corpus", "descriptions").num_rows == 4 and "## Descriptions" not in card.read_text("utf-8")
    assert "nothing to do" in captions(photos).done()
    assert "## Descriptions" in card.read_text("utf-8")
    card.write_text(card.read_text("utf-8") + "My own notes.", "utf-8")
    assert "nothing to do" in captions(photos).done()
    assert card.read_text("utf-8").endswith("My own notes.")


# The failure budget, --strict


@pytest.fixture
def half_broken(tmp_path):
    """25 photos, of which the last 13 are broken."""
    folder = tmp_path / "half"
    for path in make_photos(folder, 25)[12:]:
        path.write_bytes(b"\xff\xd8\xff broken")
    return folder


def test_broken_photos_over_the_budget(captions, half_broken, tmp_path):
    ended = captions(half_broken, "--shard-size", 4)
    assert ended.status == 3
    message = ended.error()
    assert "of 25 records failed" in message and "× unreadable" in message and "photo-000" in message
    assert "--max-failures" in message
    whole = list((tmp_path / "corpus" / "items").glob("*.arrow"))
    assert whole and not (tmp_path / "corpus" / "items" / "manifest.json").exists()
    marks = {path: path.stat().st_mtime_ns for path in whole if "00000-of" in path.name or "00001-of" in path.name}
    assert captions(half_broken, "--shard-size", 4, "--max-failures", "12").status == 3
    out = captions(half_broken, "--shard-size", 4, "--max-failures", "13").done()
    assert "failed: unreadable" in out
    assert marks == {path: path.stat().st_mtime_ns for path in marks}
    assert Table(tmp_path / "corpus", "descriptions").num_rows == 12


def test_strict(captions, photos):
    captions(photos, "--strict").done()
    (photos / "broken.jpg").write_bytes(b"broken")
    strict = captions(photos, "--output", photos.parent / "strict", "--strict")
    assert strict.status == 1
    assert "failed: unreadable" in strict.out and strict.err == ""
    assert captions(photos, "--output", photos.parent / "strict", "--strict").status == 1
    captions(photos, "--output", photos.parent / "strict").done()


def test_a_server_that_fails_every_request_stops_the_run_early(captions, photos, tmp_path):
    make_photos(photos, 80)
    with Loopback(fault_rate=1.0, faults=["500"], latency_s=0.1) as failing:
        options = ("--mllm-url", failing.url, "--attempts", 1, "--window", 4, "--shard-size", 4)
        ended = captions(photos, *options)
        assert ended.status == 3
        assert "× http_500" in ended.error() and "scripted" in ended.error()
        assert failing.stats()["requests"] < 70
        failing.script(fault_rate=0.0, latency_s=0)
        captions(photos, *options).done()
    assert Table(tmp_path / "corpus", "descriptions").num_rows == 80


# --dry-run, --views, --cache


def test_dry_run_writes_nothing(captions, server, photos, tmp_path):
    before = server.stats()["requests"]
    out = captions(photos, "--dry-run", 2, "--views", "short,objects").done()
    assert server.stats()["requests"] == before + 4
    assert out.count("short: Describe this picture") == out.count("objects: Name every object") == 2
    assert out.count("→ digest") == 4 and str(photos / "photo-00001.jpg") in out and "photo-00002" not in out
    num_photos = len(list(photos.iterdir()))
    assert f"{num_photos} items in 1 shards, {2 * num_photos} requests" in out
    tokens = int(re.search(r"([\d,]+) prompt tokens", out)[1].replace(",", ""))
    assert tokens > 64 * 2 * num_photos  # each request has a picture of 64
    assert not (tmp_path / "corpus").exists()


def test_a_cache_that_cannot_be_used(captions, photos):
    ended = captions(photos, "--cache", photos / "photo-00000.jpg")
    assert ended.status == 4
    assert str(photos / "photo-00000.jpg") in ended.error()


def test_a_run_is_quiet(server, photos, tmp_path):
    (photos / "broken.jpg").write_bytes(jpeg_bytes()[:200])
    shutil.copy(photos / "photo-00000.jpg", photos / "twin.jpg")
    inputs = ("--input", photos, "--output", tmp_path / "corpus", "--mllm-url", server.url)
    ended = run_python("beam_runner.py", "--stage", "captions", *inputs)
    Ended(ended.returncode, ended.stdout, ended.stderr).done()
