"""A service whose every answer is written down beforehand, on a real socket: for what a real one does rarely."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["EXECUTED", "Answer", "Asked", "ScriptedService", "Steps"]

EXECUTED = {
    "status": "executed",
    "audit_event_id": "evt_000000000001aaaaaaaaaaaaaaaaaaaa",
    "conditions_evaluated": [],
    "replayed": False,
    "claim": "started",
}


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Answer:
    """What to answer: a status and JSON, raw `text`, or `cut` the connection without any answer."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    text: bytes | None = None
    cut: bool = False
    after: Callable[[], Any] | None = None
    """Called before the answer is given, once the request has arrived."""


class ScriptedService:
    """Gives `answers` in order, and the last one to everything after. Notes what it was asked."""

    def __init__(self, answers: Iterable[Answer | Callable[[Asked], Answer]]) -> None:
        self.asked: list[Asked] = []
        self._answers = list(answers)
        self._lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                text = self.rfile.read(length)
                asked = Asked(self.command, self.path, dict(self.headers), json.loads(text) if text else None)
                with service._lock:
                    service.asked.append(asked)
                    chosen = service._answers.pop(0) if len(service._answers) > 1 else service._answers[0]
                answer = chosen if isinstance(chosen, Answer) else chosen(asked)
                if answer.after is not None:
                    answer.after()
                if answer.cut:
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                    return
                content = answer.text if answer.text is not None else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class Steps:
    """A pace at which no time passes but what somebody sleeps; `slept` says how long each time."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> None:
        self.sleep(seconds)
