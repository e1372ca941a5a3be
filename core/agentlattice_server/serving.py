"""Running the service: one process, one event loop, until it is told to stop.

- The socket listens before anything says so, with the port that was found if 0 was asked for.
- Told to stop (SIGTERM, SIGINT), it takes no more connections, answers what is under way, closes WebSockets with 1012,
  records what is outstanding and signs the log.
- What a web server would log of a request line is left to `requestlog`: a key may be in it.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from agentlattice_core.errors import StoreError

__all__ = ["Service", "listen"]

_PATIENCE = 25
"""Seconds that calls under way get once the service is told to stop."""
_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises StoreError if it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio switches Nagle's algorithm off only where it is: with it on, an answer that
    # is written in two parts waits up to 40 ms for the caller's system to acknowledge the first.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        why = (error.strerror or str(error)).lower()
        raise StoreError(f"cannot listen on `{host}:{port}`: {why}; name another with `--port`") from None
    return made


class _Server(uvicorn.Server):
    """Says once it answers calls, and once it is about to stop."""

    told: Callable[[], None]
    stopping: asyncio.Event

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.told()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop when told to. That is how it ends well, so nothing is raised again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.stopping.set()  # connections that last end themselves; what is under way is waited for
        await super().shutdown(sockets)


class Service:
    """The application, served on a socket that listens."""

    def __init__(self, app: FastAPI, listening: socket.socket) -> None:
        host, port = listening.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._socket = listening
        self._stopping: asyncio.Event = app.state.stopping
        self._server = _Server(
            uvicorn.Config(
                app,
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                ws_max_size=1 << 20,
                timeout_graceful_shutdown=_PATIENCE,
                timeout_keep_alive=75,
            )
        )

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Serve until told to stop; `started` is called once calls are answered."""
        asyncio.run(self.serve(started))

    async def serve(self, started: Callable[[], None] = lambda: None) -> None:
        """As `run`, on a loop that runs."""
        self._server.told = started
        self._server.stopping = self._stopping
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Tell it to stop. Safe to call from another thread."""
        self._server.should_exit = True
