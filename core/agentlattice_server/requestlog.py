"""Logs: one JSON object a line on standard error, about requests and about what goes wrong.

- Of a request: method, the path as it is declared, status, milliseconds, the id of the key. Never a query string, a
  header, a body, or what stands in a path, because a key or personal data may.
- Whatever looks like a key, or like the secret of a webhook, is taken out of every line, whoever wrote it.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["RequestLog", "log_as_json", "without_keys"]

_log = logging.getLogger("agentlattice.server.requests")

_KEY = re.compile(r"(al_agent|al_svc|al_op|whsec)_[\w.\-+/=]+")
_FIELDS = ("method", "path", "status", "ms", "key", "reference", "endpoint")


def without_keys(text: str) -> str:
    """`text` with every key, and every secret of a webhook, taken out."""
    if "al_" in text or "whsec_" in text:  # most lines hold neither, and looking for a pattern is dear
        return _KEY.sub(r"\1_[removed]", text)
    return text


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        said = record.__dict__
        line |= {name: value for name in _FIELDS if (value := said.get(name)) is not None}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return without_keys(orjson.dumps(line, default=str).decode())


def log_as_json(level: int = logging.INFO) -> None:
    """Have everything of this process logged as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.root.handlers[:] = [handler]
    # What no line says need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    logging.getLogger("agentlattice").handlers.clear()  # the command line's own, for one-line warnings
    logging.root.setLevel(logging.WARNING)
    logging.getLogger("agentlattice").setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "websockets"):
        logging.getLogger(name).setLevel(logging.WARNING)


class RequestLog:
    """Logs each request once it is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _log.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            _log.info(
                "request",
                extra={
                    "method": scope["method"],
                    "path": scope.get("al.endpoint", "-"),
                    "status": status,
                    "ms": round((time.perf_counter() - begun) * 1000, 2),
                    "key": scope.get("al.key"),
                },
            )
