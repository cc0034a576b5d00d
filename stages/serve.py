"""Search in the browser and over HTTP: one server for people and programs.

    leccr serve PHOTOS                   a folder of pictures, as leccr find
    python stages/serve.py --index INDEX [--host 127.0.0.1] [--port 7861] [--rate 50] [--token TOKEN]

`/` is a page where words in any language, or a picture, find items of the index; POST /search and GET /health answer
programs, and /docs describes them. It listens only on this machine unless --host says otherwise, and then asks for a
token. It fetches nothing from elsewhere, and serves only pictures of the index.
"""

import argparse
import contextlib
import ipaddress
import os
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.storage.files import location, path_on_disk
from stages.processes import Parser, run_program
from stages.retrieval.collection import Collection, add_update_options, bring_up_to_date

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

MAX_REQUESTS = 1_000  # at once; uvicorn answers 503 to more
BACKLOG = 100  # connections accepted at a time: more could use up the process's files before any makes way
GRACE_S = 5  # time that open requests have once the program is asked to end


def main(argv: Sequence[str]) -> int:
    """Run the program; returns its exit status."""
    options = parser().parse_args(argv)
    if bool(options.folder) == bool(options.index):
        raise UsageError("give either a folder of pictures, or --index INDEX")
    with contextlib.closing(listen(options.host, options.port)) as bound:
        # SIGTERM ends the program as Ctrl-C does: what its `with` opened is closed
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        try:
            from stages.web.problems import Limits
            from stages.web.server import Access, create_app
        except ImportError as error:
            raise UsageError(f"the search server needs {error.name}: pip install 'leccr[serve]'") from error
        from stages.retrieval.engine import Index

        if options.folder:
            collection = Collection.of(options.folder)
            if (status := bring_up_to_date(collection, options)) and not collection.index.is_dir():
                return status
            options.index, options.checkpoint = collection.index, None
        limits = Limits(options.rate)
        finder = Index.open(options.index, options.checkpoint, options.data, options.translate)
        is_local = ipaddress.ip_address(bound.getsockname()[0]).is_loopback
        token = options.token or ("" if is_local else secrets.token_urlsafe(16))
        origins = tuple(origin.rstrip("/") for origin in options.cors)
        access = Access(options.host, is_local, tuple(options.allow_host), origins, token)
        root_path = "/" + options.root_path.strip("/") if options.root_path.strip("/") else ""
        app = create_app(finder, limits=limits, access=access, root_path=root_path)
        url, corpora = address(bound, options.host), ", ".join(finder.corpora)
        if not is_local:
            print(
                f"warning: every machine that can connect to {options.host}, port {bound.getsockname()[1]}, can search "
                "the index and see its pictures if it has the token, which is sent unencrypted",
                file=sys.stderr,
            )
        page = f"{url}/?token={quote(token)}" if token else url
        print(
            f"{len(finder):,} items of {corpora}: {page}, API: {url}/docs, Ctrl-C ends it", file=sys.stderr, flush=True
        )
        server_of(app).run(sockets=[bound])
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the address; port 0 takes a free one.

    Raises:
        UsageError: It is not an address of this machine.
        EnvironmentTrouble: The port is taken.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port} does not exist: give 1 to 65535, or 0 for a free one")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"--host {host!r} is unknown: give a name or an address of this machine") from error
    # named TCP, or asyncio leaves TCP_NODELAY off for its connections, and each answer waits 40 ms for an ACK
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen()  # or another program could bind to it too, and fail once its model is loaded
    except OSError as error:
        bound.close()
        raise EnvironmentTrouble(f"cannot listen on {host}:{port}: {error.strerror}. Give another --port") from error
    return bound


def address(bound: socket.socket, host: str) -> str:
    """The URL of a listening socket."""
    return f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"


def server_of(app: "FastAPI") -> "uvicorn.Server":
    """The server of an application."""
    import uvicorn

    from stages.web.connections import Connection

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Connection,
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # a client could name itself as it likes, and so pass its limit of requests
            server_header=False,
            limit_concurrency=MAX_REQUESTS,
            backlog=BACKLOG,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    program = Parser("serve.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    add = program.add_argument
    add("folder", nargs="?", help="a folder of pictures, which is made searchable if it is not")
    add("--index", type=path_on_disk, help="folder that index.py made")
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, only this machine)")
    add("--port", type=int, default=7861, help="port to listen on, 0 for a free one (default: 7861)")
    add(
        "--token",
        default=os.environ.get("LECCR_SERVE_TOKEN", ""),
        help="what clients must know (default: $LECCR_SERVE_TOKEN; none on this machine only, else one is made)",
    )
    add("--allow-host", action="append", default=[], metavar="NAME", help="another name to answer under, as a proxy's")
    add("--root-path", default="", metavar="/PATH", help="path under which a proxy has the server")
    add("--cors", action="append", default=[], metavar="ORIGIN", help="another site whose pages may use the API")
    add("--rate", type=float, default=50.0, help="queries a second that one client may ask (default: 50)")
    add_update_options(program)
    add("--translate", default="", metavar="MODEL", help="translates queries of other languages to English first")
    add("--data", action="append", type=location, default=[], help="where a corpus of the index is, if it was moved")
    return program


if __name__ == "__main__":
    sys.exit(run_program(main))
