"""A key service on this machine that speaks the transit engine's HTTP API, as far as its documentation says.

It stands in for HashiCorp Vault or OpenBao, which are no Python packages: requests and answers have their form, keys
are real, and what it refuses it refuses with their status codes.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["TOKEN", "TransitEngine", "transit_engine"]

TOKEN = "hvs.planted-token-of-the-key-service"


@dataclass
class TransitEngine:
    """A transit engine with one key called `log`. `answer` may put another answer in the place of any: a status and a
    document, or None to leave it.
    """

    port: int = 0
    scheme: str = "vault+http"
    kind: str = "ed25519"
    token: str = TOKEN
    namespace: str | None = None
    keys: list[Ed25519PrivateKey] = field(default_factory=lambda: [Ed25519PrivateKey.generate()])
    calls: list[tuple[str, str]] = field(default_factory=list)
    answer: Callable[[str], tuple[int, Any] | None] = lambda path: None

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/transit/log"

    def rotate(self) -> None:
        """Make a newer version, as its administrator would."""
        self.keys.append(Ed25519PrivateKey.generate())

    def read(self) -> dict[str, Any]:
        versions = {
            str(number): {
                "name": "ed25519",
                "creation_time": "2026-01-01T00:00:00Z",
                "public_key": base64.b64encode(key.public_key().public_bytes_raw()).decode(),
                "certificate_chain": "",
            }
            for number, key in enumerate(self.keys, 1)
        }
        return {
            "name": "log",
            "type": self.kind,
            "derived": False,
            "latest_version": len(self.keys),
            "min_available_version": 0,
            "min_decryption_version": 1,
            "min_encryption_version": 0,
            "supports_signing": True,
            "keys": versions,
        }

    def sign(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        number = wanted.get("key_version") or len(self.keys)
        if number > len(self.keys):
            return 400, {"errors": ["requested version for signing is higher than the latest key version"]}
        signature = self.keys[number - 1].sign(base64.b64decode(wanted["input"]))
        text = f"vault:v{number}:{base64.b64encode(signature).decode()}"
        return 200, {"data": {"signature": text, "key_version": number}}

    def reply(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        self.calls.append((method, path))
        other = self.answer(path)
        if other is not None:
            return other
        if headers.get("X-Vault-Token") != self.token:
            return 403, {"errors": ["permission denied"]}
        if headers.get("X-Vault-Namespace") != self.namespace:
            return 404, {"errors": []}
        if (method, path) == ("GET", "/v1/transit/keys/log"):
            return 200, {"request_id": "x", "lease_id": "", "data": self.read()}
        if (method, path) == ("POST", "/v1/transit/sign/log"):
            return self.sign(json.loads(body))
        return 404, {"errors": []}


@contextmanager
def transit_engine(tls: ssl.SSLContext | None = None) -> Iterator[TransitEngine]:
    """A key service for as long as the block runs."""
    engine = TransitEngine(scheme="vault+http" if tls is None else "vault")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(b"")

        def do_POST(self) -> None:
            self._reply(self.rfile.read(int(self.headers["content-length"])))

        def _reply(self, body: bytes) -> None:
            status, document = engine.reply(self.command, self.path, self.headers, body)
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", engine.port), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    engine.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield engine
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
