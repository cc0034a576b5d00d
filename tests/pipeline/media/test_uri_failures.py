"""Files and URLs that cannot be read: over real HTTP, from real devices, with real limits."""

import errno
import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

import beam_runner
from pipeline.card.samples import Sample
from pipeline.card.sheet import write_contact_sheet
from pipeline.corpus.table import Table
from pipeline.engine.run_state import locked, request_stop, run_token, stop_request
from pipeline.errors import EnvironmentTrouble, MediaError
from pipeline.hashing import stream_hash
from pipeline.media import uri as opening
from pipeline.media.images import probe
from pipeline.media.uri import open_media
from tests.conftest import jpeg_bytes, make_photos
from tests.http_servers import QuietHandler, serving
from tests.loopback import Loopback
from tests.worked_examples import each_example

PHOTO = jpeg_bytes((320, 240))
EIO = "/proc/self/mem"  # a regular file that opens, and whose reading is an input/output error


class Handler(QuietHandler):
    """/KIND/NAME.jpg: `cut` half of the bytes; `stall` none; `drip` few; `endless` has no length; or a status."""

    stalls = threading.Event()  # one has begun

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        kind = self.path.split("/")[1]
        if kind.isdigit():
            self.send_error(int(kind))
            return
        self.send_response(200)
        if kind != "endless":
            self.send_header("Content-Length", str(len(PHOTO)))
        self.end_headers()
        if body:
            self.send(kind)

    def send(self, kind):
        try:
            while kind == "endless":
                self.wfile.write(PHOTO)
            while kind == "drip":
                self.wfile.write(b"\xff")
                time.sleep(0.05)
            if kind == "stall":
                self.stalls.set()
                self.server.ended.wait(60)
            self.wfile.write(PHOTO[: len(PHOTO) // 2] if kind == "cut" else PHOTO)
        except OSError:
            pass  # the reader has given up


@pytest.fixture(scope="module")
def server():
    with serving(Handler, ended=threading.Event()) as http:
        yield http.url
        http.ended.set()


def failure(uri: str) -> MediaError:
    with pytest.raises(MediaError) as caught, open_media(uri) as stream:
        stream_hash(stream)
        probe(stream)
    return caught.value


@each_example("urls_that_fail_say_why_and_in_time", "path, kind, word")
def test_urls_that_fail_say_why_and_in_time(server, monkeypatch, path, kind, word):
    monkeypatch.setattr(opening, "PATIENCE_S", 1.0 if kind == "unreadable" else 60.0)
    monkeypatch.setattr(opening, "MAX_BYTES", 3_000_000)
    started_s = time.monotonic()
    error = failure(path if path.startswith("http") else f"{server}/{path}")
    assert error.kind == kind and word in str(error) and path in str(error)
    assert time.monotonic() - started_s < 20


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "url", "error"])
def test_only_regular_files_are_read(tmp_path, kind):
    path = tmp_path / "a.jpg"
    if kind in ("pipe", "url"):
        os.mkfifo(path)
    else:
        path.symlink_to({"device": "/dev/zero", "link": tmp_path / "b.jpg", "error": EIO}[kind])
        (tmp_path / "b.jpg").symlink_to("/dev/urandom")
    error = failure(f"file://{path}" if kind == "url" else str(path))
    assert error.kind == "unreadable" and ("pipe or device" in str(error)) == (kind != "error")


@contextmanager
def no_more_files():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_too_many_open_files_are_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    with pytest.raises(EnvironmentTrouble, match="too many open files"), no_more_files():
        open_media(str(tmp_path / "a.jpg"))
    with pytest.raises(EnvironmentTrouble, match="too many open files"), locked(tmp_path / "c"):
        token = run_token(tmp_path / "c")
        with no_more_files():
            request_stop(tmp_path / "c", EnvironmentTrouble("of any kind"), token)
        assert "too many open files" in str(stop_request(tmp_path / "c"))
        raise OSError(errno.EMFILE, "too many")


@pytest.fixture(scope="module")
def listed(tmp_path_factory, server):
    """A corpus of photos between media that break while they are read."""
    folder = tmp_path_factory.mktemp("listed")
    make_photos(folder, 4)
    (folder / "broken.jpg").symlink_to(EIO)
    os.mkfifo(folder / "pipe.jpg")
    names = [path.name for path in folder.glob("*.jpg")]
    (folder / "list.txt").write_text("\n".join([f"{server}/cut/a.jpg", *names, f"{server}/ok/b.jpg"]))
    options = ["--input", str(folder / "list.txt"), "--output", str(folder / "corpus"), "--shard-size", "3"]
    assert beam_runner.run(["--stage", "ingest", *options]) == 0
    return folder


def test_ingest_goes_on_without_media_that_break(listed):
    kinds = {line["id"].rpartition("/")[2]: line["error"] for line in Table(listed / "corpus", "items").failures()}
    assert kinds == {"broken.jpg": "unreadable", "pipe.jpg": "unreadable", "a.jpg": "truncated"}
    assert Table(listed / "corpus", "items").num_rows == 5


def test_captions_pack_and_contact_sheet_go_on_without_media_that_break_later(listed):
    rows = list(Table(listed / "corpus", "items").rows())
    broken = listed / "photo-00002.jpg"
    with Loopback() as chat:
        options = ["--stage", "captions", "--output", str(listed / "corpus"), "--mllm-url", chat.url]
        assert beam_runner.run([*options, "--views", "short"]) == 0
        broken.unlink()
        broken.symlink_to(EIO)
        assert beam_runner.run([*options, "--views", "short,detail", "--overwrite"]) == 0
    assert beam_runner.run(["--stage", "pack", "--output", str(listed / "corpus")]) == 0
    for table in ("descriptions", "training"):
        assert [line["id"] for line in Table(listed / "corpus", table).failures()] == [broken.name]
    assert Table(listed / "corpus", "training").num_rows == len(rows) - 1
    write_contact_sheet(listed / "sheet.png", "title", "", [Sample(row, [], []) for row in rows])


def test_sigterm_ends_a_run_that_waits_for_a_server(tmp_path, server):
    (tmp_path / "list.txt").write_text("\n".join(f"{server}/stall/{number}.jpg" for number in range(9)))
    options = ["--input", str(tmp_path / "list.txt"), "--output", str(tmp_path / "corpus")]
    Handler.stalls.clear()
    run = subprocess.Popen([sys.executable, "beam_runner.py", "--stage", "ingest", *options], stderr=subprocess.PIPE)
    assert Handler.stalls.wait(60)
    run.terminate()
    assert b"SIGTERM" in run.communicate(timeout=30)[1] and run.returncode == 130
