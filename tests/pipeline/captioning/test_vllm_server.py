"""The lifetime of a server, with a small program in vLLM's place: started, watched, started again, ended whole."""

import json
import os
import signal
import stat
import subprocess
import sys
import time

import psutil
import pytest

from pipeline.captioning import vllm_server as module
from pipeline.captioning.servers import KEY_FILE, api_key
from pipeline.captioning.vllm_server import VllmServer
from pipeline.corpus.table import state_folder
from pipeline.engine.run_state import request_stop, run_folder, stop_request
from pipeline.errors import EnvironmentTrouble, Interrupted
from tests.conftest import ROOT

# Takes the place of the interpreter that has vLLM. Has two children, serves /health, notes each start in a file. In
# mode "deaf" all ignore SIGTERM.
FAKE = """#!{python} -S
import http.server, json, os, signal, sys, time
here = os.path.dirname(os.path.abspath(__file__))
mode = json.load(open(here + "/mode.json"))
def option(name):
    return [value for key, value in zip(sys.argv, sys.argv[1:]) if key == name][-1]
print("args:", sys.argv[1:], flush=True)
if mode.get("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
pids = [os.getpid()]
for _ in range(2):
    pid = os.fork()
    if not pid:
        time.sleep(600)
    pids.append(pid)
note = {{"pids": pids, "argv": sys.argv[1:], "key": os.environ["VLLM_API_KEY"], "path": os.environ.get("PYTHONPATH")}}
with open(here + "/starts.jsonl", "a") as starts:
    starts.write(json.dumps(note) + chr(10))
count = len(open(here + "/starts.jsonl").readlines())
if mode.get("fail_from", 99) <= count:
    sys.exit("RuntimeError: out of memory")
for step in range(mode.get("steps", 1)):
    print("loading step", step, flush=True)
    time.sleep(0.2)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if os.path.exists(here + "/ill-" + str(count)) else 200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()
"""
DRIVER = """
import signal, sys
from pathlib import Path
from pipeline.captioning.vllm_server import VllmServer
signal.signal(signal.SIGINT, lambda *_: print("SIGINT", flush=True))
with VllmServer("tiny", Path(sys.argv[1]), lambda line: print(line, flush=True), sys.argv[2]) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return met


class Fake:
    """The program, how it behaves (mode), what it noted (starts), and lines printed for the user."""

    def __init__(self, folder):
        self.folder, self.lines = folder, []
        self.corpus = folder / "corpus"
        run_folder(self.corpus).mkdir(parents=True)
        self.python = folder / "python"
        self.python.write_text(FAKE.format(python=sys.executable))
        self.python.chmod(0o755)
        self.mode()

    def mode(self, **mode):
        (self.folder / "mode.json").write_text(json.dumps(mode))

    def starts(self):
        notes = self.folder / "starts.jsonl"
        return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []

    def server(self, *args):
        return VllmServer("tiny", self.corpus, self.lines.append, str(self.python), args)

    def left(self):
        return [pid for start in self.starts() for pid in start["pids"] if alive(pid)]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    for name, value in {"POLL_S": 0.05, "REPORT_EVERY_S": 0.2, "MAX_RESTARTS": 2, "UNHEALTHY_S": 0.5}.items():
        monkeypatch.setattr(module, name, value)
    server = Fake(tmp_path)
    yield server
    left = server.left()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def healthy(url):
    try:
        return module.DIRECT.open(f"{url.removesuffix('/v1')}/health", timeout=5).status == 200
    except OSError:
        return False


def test_it_is_waited_for_with_progress_and_ended_with_its_children(fake, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    fake.mode(steps=4)
    with fake.server("--max-model-len", "512", "--host", "0.0.0.0", "--port", "1") as server:
        assert healthy(server.url)
        [start] = fake.starts()
        assert "--max-model-len 512" in " ".join(start["argv"])  # but not the address
        assert start["argv"][:2] == ["-m", "vllm.entrypoints.openai.api_server"]
        assert start["path"] is None
    assert fake.left() == []
    assert any("loading step" in line for line in fake.lines[1:-1])


def test_the_key_is_in_a_file_of_the_owner_and_nowhere_else(fake):
    with fake.server() as server:
        path = run_folder(fake.corpus) / KEY_FILE
        key = path.read_text()
        assert len(key) == 32 and api_key(run_folder(fake.corpus)) == key
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        [start] = fake.starts()
        assert start["key"] == key
        for pid in (server._process.pid, *start["pids"]):
            assert key not in " ".join(psutil.Process(pid).cmdline())
    output = (state_folder(fake.corpus) / module.LOG).read_text() + "\n".join(fake.lines)
    assert "--port" in output and key not in output


def test_a_failed_start_is_reported_at_once_with_the_end_of_the_log(fake):
    fake.mode(fail_from=1)
    with pytest.raises(EnvironmentTrouble, match=r"did not start:\n(.*\n)*RuntimeError: out of memory"):
        fake.server().__enter__()
    fake.python = fake.folder / "missing"
    with pytest.raises(EnvironmentTrouble, match="--vllm-python: "):
        fake.server().__enter__()


@pytest.mark.parametrize("trouble", ["died", "died with its guard", "ill"])
def test_one_in_trouble_is_started_again_on_its_port(fake, trouble):
    with fake.server() as server:
        [first] = fake.starts()
        if trouble == "ill":
            (fake.folder / "ill-1").touch()
        elif trouble == "died with its guard":
            os.kill(server._process.pid, signal.SIGKILL)
        if trouble != "ill":
            os.kill(first["pids"][0], signal.SIGKILL)
        assert wait_for(lambda: len(fake.starts()) == 2 and healthy(server.url))
        assert not any(map(alive, first["pids"]))
        assert fake.starts()[1]["key"] == first["key"]
        assert wait_for(lambda: "vLLM: ready after" in fake.lines[-1])
    assert any("starting it again (1 of 2)" in line for line in fake.lines)
    assert stop_request(fake.corpus) is None


def test_one_that_dies_too_often_ends_the_run(fake):
    fake.mode(fail_from=2)
    with fake.server():
        os.kill(fake.starts()[0]["pids"][0], signal.SIGKILL)
        assert wait_for(lambda: stop_request(fake.corpus))
        assert len(fake.starts()) == 3
    error = stop_request(fake.corpus)
    assert isinstance(error, EnvironmentTrouble) and "out of memory" in str(error)


def test_nobody_waits_for_a_server_that_starts_once_the_run_is_to_end(fake):
    began = time.monotonic()
    with fake.server():
        fake.mode(steps=500)
        os.kill(fake.starts()[0]["pids"][0], signal.SIGKILL)
        assert wait_for(lambda: len(fake.starts()) == 2)
    request_stop(fake.corpus, Interrupted("Ctrl-C"))
    with pytest.raises(Interrupted):
        fake.server().__enter__()
    assert time.monotonic() - began < 10


def test_ctrl_c_leaves_the_server_to_its_owner_and_an_owner_killed_leaves_no_server(fake):
    command = [sys.executable, "-c", DRIVER, str(fake.corpus), str(fake.python)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, start_new_session=True) as owner:
        url = next(line.strip() for line in owner.stdout if line.startswith("http"))
        os.killpg(owner.pid, signal.SIGINT)
        assert owner.stdout.readline().strip() == "SIGINT"
        time.sleep(0.3)
        assert healthy(url)
        owner.kill()
        assert wait_for(lambda: not fake.left(), 5)


def test_a_server_that_ignores_sigterm_is_killed_after_a_grace(fake):
    fake.mode(deaf=True)
    server = [str(fake.python), "--host", "127.0.0.1", "--port", "0"]
    code = f"from pipeline.captioning import guard; guard.GRACE_S = 1; guard.main({server})"
    guard = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True,
        env={**os.environ, "VLLM_API_KEY": ""},
    )  # fmt: skip
    assert wait_for(fake.starts)
    guard.stdin.close()
    assert guard.wait(10) == -signal.SIGKILL
    assert wait_for(lambda: not fake.left(), 2)
