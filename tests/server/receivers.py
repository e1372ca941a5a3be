"""Receivers of webhooks, on real sockets, and waiting for what they get."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["PATIENCE", "Answering", "Receiver", "receiving", "until"]

PATIENCE = 30.0


def until(holds: Callable[[], Any], what: str) -> Any:
    """What `holds` answers once it is true."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.01)


@dataclass
class Request:
    """What a receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answering = Callable[[int], tuple[int, dict[str, str]]]
"""What the n-th request (from 1) is answered with."""


@dataclass
class Receiver:
    """A web server that keeps what it got. `answer` may be changed at any time."""

    answer: Answering
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [request.id for request in self.requests]


@contextmanager
def receiving(answer: Answering | int = 200, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver, for as long as the block runs."""
    answering: Answering = answer if callable(answer) else lambda number: (answer, {})
    receiver = Receiver(answering)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.requests.append(Request(self.path, headers, body))
            status, extra = receiver.answer(len(receiver.requests))
            try:
                self.send_response(status)
                for name, value in {"content-length": "0", **extra}.items():
                    self.send_header(name, value)
                self.end_headers()
            except OSError:
                pass  # whoever asked has gone

        do_GET = do_POST  # noqa: N815  named by the library

        def log_message(self, *_: Any) -> None:
            """Nothing: the tests look at `requests`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  a refused handshake is what some tests want
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        receiver.scheme = "https"
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
