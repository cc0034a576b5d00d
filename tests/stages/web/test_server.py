import contextlib
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentTrouble, UsageError
from stages.web.server import listen, own_names
from tests.conftest import ROOT

PROGRAM = """
from stages.page import private_cache
from stages.web.server import end_on_sigterm, listen, server_of

end_on_sigterm()
with private_cache() as cache, listen("127.0.0.1", 0) as bound:
    print(cache, flush=True)
    server_of(None).run(sockets=[bound])
"""


def test_a_port_that_is_taken_and_an_address_that_is_none_are_told():
    with contextlib.closing(listen("127.0.0.1", 0)) as bound:
        assert bound.proto == socket.IPPROTO_TCP  # else no TCP_NODELAY, and 40 ms for every answer
        with pytest.raises(EnvironmentTrouble, match="give another --port"):
            listen("127.0.0.1", bound.getsockname()[1])
    with pytest.raises(UsageError, match="--port: got 70000"):
        listen("127.0.0.1", 70_000)
    with pytest.raises(UsageError, match="--host: got"):
        listen("no host", 0)


def test_only_a_server_of_this_machine_is_bound_to_its_names():
    assert "localhost" in own_names("127.0.0.1") and "localhost" in own_names("localhost") and own_names("::1")
    assert own_names("0.0.0.0") is None and own_names("192.0.2.1") is None and own_names("search.example") is None


def test_sigterm_takes_the_pages_folder_away():
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            cache = Path(process.stdout.readline().strip())
            assert cache.is_dir()
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        finally:
            process.kill()
    assert not cache.exists()
