import contextlib
import http.client
import re
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from pipeline.errors import EnvironmentTrouble, UsageError
from stages import serve
from tests.conftest import ROOT, clean_environment
from tests.stages.indexed import write_indexed


def test_a_port_that_is_taken_and_addresses_of_other_machines_are_refused():
    with contextlib.closing(serve.listen("127.0.0.1", 0)) as bound:
        assert bound.proto == socket.IPPROTO_TCP  # else no TCP_NODELAY, and 40 ms for every answer
        with pytest.raises(EnvironmentTrouble, match="--port"):
            serve.listen("127.0.0.1", bound.getsockname()[1])
    for arguments, message in ((["--port", "70000"], "--port"), (["--host", "no host"], "--host")):
        with pytest.raises(UsageError, match=message):
            serve.main(["--index", "none", *arguments])


@pytest.mark.parametrize(("options", "token"), [([], r"[\w-]{20,}"), (["--token", "mine"], "mine")])
def test_beyond_this_machine_a_token_is_asked_for(tmp_path, capfd, monkeypatch, options, token):
    _, _, made = write_indexed(tmp_path, 3)
    monkeypatch.setattr(serve, "server_of", lambda _: SimpleNamespace(run=lambda sockets: None))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert serve.main(["--index", str(made), "--port", "0", "--host", "0.0.0.0", *options]) == 0
    err = capfd.readouterr().err
    assert "warning: every machine" in err and re.search(rf"http://0\.0\.0\.0:\d+/\?token={token}\b", err)
    assert serve.main(["--index", str(made), "--port", "0"]) == 0
    err = capfd.readouterr().err
    assert "warning" not in err and "token" not in err


def test_the_program_answers_and_ends_on_sigterm(tmp_path):
    _, _, made = write_indexed(tmp_path, 3)
    command = [sys.executable, str(ROOT / "stages" / "serve.py"), "--index", str(made), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=clean_environment()) as process:
        try:
            line = next(line for line in process.stderr if "http://" in line)
            host, port = re.search(r"http://([\d.]+):(\d+)", line).groups()
            connection = http.client.HTTPConnection(host, int(port), timeout=30)
            for path, text in (("/?q=rot", b"3 results"), ("/health", b'"items":3')):
                connection.request("GET", path)
                answer = connection.getresponse()
                assert answer.status == 200 and text in answer.read()
            connection.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 128 + signal.SIGTERM and "Traceback" not in process.stderr.read()
        finally:
            process.kill()
