"""An ASGI app on a loopback port, in a thread, for as long as a `with` lasts."""

import contextlib
import http.client
import threading
import time
from urllib.parse import urlsplit

from stages.serve import address, listen, server_of


@contextlib.contextmanager
def running(app):
    """Its address, `http://127.0.0.1:PORT`."""
    with contextlib.closing(listen("127.0.0.1", 0)) as bound:
        server = server_of(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        ends = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive() and time.monotonic() < ends, "the server did not start"
            time.sleep(0.01)
        try:
            yield address(bound, "127.0.0.1")
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def call(url, method, path, body=None, headers=None):
    """(status, bytes, headers) of an answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()
