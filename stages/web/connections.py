"""Connections of the search server. One that waits for its request to arrive makes way for a new one."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 500  # at once; systems allow a process 1,024 files or more


class Connection(H11Protocol):
    """An HTTP connection.

    Clients that open connections and send nothing, half a request or half a body must not keep others out: beyond
    MAX_CONNECTIONS, each new connection closes the oldest whose request has not arrived.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take in a connection."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.opened = self.loop.time()
        others: list[Any] = [other for other in self.connections if not other.transport.is_closing()]
        if len(others) > MAX_CONNECTIONS:
            waiting = [other for other in others if other is not self and other.is_waiting]
            if waiting:
                min(waiting, key=lambda other: other.opened).transport.abort()

    @property
    def is_waiting(self) -> bool:
        """Whether the client has to send something before there is anything to do."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body
