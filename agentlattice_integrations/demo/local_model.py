"""A model provider of one's own: `POST /v1/chat/completions` on this machine, with the demonstration's brain behind it.

- What runs against it runs unchanged against a real provider: `provider()` names the real one when `OPENAI_API_KEY` is
  set (with `OPENAI_BASE_URL` and `OPENAI_MODEL`, if they are), and starts a local one otherwise.
- It answers what the examples need: chat completions with function tools, whole answers, no streaming.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from agentlattice_integrations.demo.brain import Answer, Brain
from agentlattice_integrations.demo.chat import read_chat, tool_call

__all__ = ["LocalModel", "Provider", "provider"]

_REAL_MODEL: Final = "gpt-4.1-mini"


@dataclass(frozen=True, slots=True)
class Provider:
    """Where a model is: what every OpenAI-compatible client takes."""

    base_url: str
    api_key: str
    model: str


def provider() -> Provider:
    """The provider that the environment names, or else a local one that lives as long as this process."""
    key = os.environ.get("OPENAI_API_KEY")
    if key:
        base_url = os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        return Provider(base_url, key, os.environ.get("OPENAI_MODEL") or _REAL_MODEL)
    server = LocalModel()
    threading.Thread(target=server.serve_forever, name="local-model", daemon=True).start()
    return Provider(server.base_url, "local", "brain")


class LocalModel(ThreadingHTTPServer):
    """The server, on a free port of the loopback interface."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.numbers = itertools.count(1)

    @property
    def base_url(self) -> str:
        """What a client takes as its base URL."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LocalModel

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path != "/v1/chat/completions":
            self._send(404, _error(f"there is no `{self.path}` here"))
            return
        try:
            request = json.loads(body)
            if request.get("stream"):
                raise ValueError("this model answers whole; do not ask it to stream")
            self._send(200, _completion(request, next(self.server.numbers)))
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
            self._send(400, _error(f"the request cannot be read: {error}"))

    def _send(self, status: int, document: Mapping[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass  # an example's output is its own


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error"}}


def _completion(request: Mapping[str, Any], number: int) -> dict[str, Any]:
    move = Brain().think(read_chat(request["messages"], request.get("tools") or ()))
    message: dict[str, Any] = {"role": "assistant", "content": None}
    if isinstance(move, Answer):
        message["content"] = move.text
    else:
        message["tool_calls"] = [tool_call(move, f"call_{number}")]
    reason = "stop" if isinstance(move, Answer) else "tool_calls"
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 0,
        "model": request.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": None}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }
