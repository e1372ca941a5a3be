"""Between a client and PostgreSQL: passes everything on, and cuts connections where a test wants it.

- What a client sends is taken apart into messages, so that a cut can come before any of them or after its answer.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

__all__ = ["Proxy"]

_PORT = 5433


class Proxy:
    """Listens beside the server. `url` leads through it."""

    def __init__(self, server_url: str, directory: Path) -> None:
        parts = urlsplit(server_url)
        self._server = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self.url = f"postgresql://postgres@/{parts.path.lstrip('/')}?host={directory}&port={_PORT}"
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(f"{directory}/.s.PGSQL.{_PORT}")
        self._listening.listen(64)
        self.seen = 0
        """How many messages clients have sent since `cut` was called."""
        self._wanted: tuple[int, bool] | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, message: int, *, answered: bool) -> None:
        """Cut the connection that sends the message of this number, counted from now.

        With `answered` the server gets it, and only its answer is lost; else nobody gets it.
        """
        with self._lock:
            self.seen, self._wanted = 0, (message, answered)

    def cut_commit(self, *, answered: bool) -> None:
        """The same for the next commit, whatever its number."""
        self.cut(-1, answered=answered)

    def cut_all(self) -> None:
        """Cut every connection there is."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _end(*pair)

    def refuse(self) -> None:
        """Let nobody in any more."""
        _end(self._listening)

    def close(self) -> None:
        """Cut everything, and let nobody in any more."""
        self.refuse()
        self.cut_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._server)
            except OSError:
                _end(client, server)
                continue
            with self._lock:
                self._pairs.append((client, server))
            lost = threading.Event()
            for target in (self._forward, self._return):
                threading.Thread(target=target, args=(client, server, lost), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        """Pass on what a client sends, message by message."""
        waiting, begun = b"", False
        try:
            while data := client.recv(65_536):
                waiting += data
                while message := _first_message(waiting, begun):
                    waiting = waiting[len(message) :]
                    begun = True
                    hit = self._is_wanted(message)
                    if hit is False:
                        break
                    if hit is True:
                        lost.set()
                    server.sendall(message)
                else:
                    continue
                break
        except OSError:
            pass
        _end(client, server)

    def _return(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        """Pass on what the server answers, unless that is to be lost."""
        try:
            while data := server.recv(65_536):
                if lost.is_set():
                    break
                client.sendall(data)
        except OSError:
            pass
        _end(client, server)

    def _is_wanted(self, message: bytes) -> bool | None:
        """None to pass it on; else whether the server is to get it before the connection is cut."""
        with self._lock:
            number, self.seen = self.seen, self.seen + 1
            if self._wanted is None:
                return None
            wanted, answered = self._wanted
            if number != wanted and not (wanted == -1 and message.endswith(b"COMMIT\0")):
                return None
            self._wanted = None
            return answered


def _first_message(data: bytes, begun: bool) -> bytes:
    """The first message in `data`; nothing if it is not there whole. The first of a connection has no type."""
    start = 1 if begun else 0
    if len(data) < start + 4:
        return b""
    length = start + int.from_bytes(data[start : start + 4], "big")
    return data[:length] if len(data) >= length else b""


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        one.close()
