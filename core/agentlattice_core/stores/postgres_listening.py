"""Hearing from other nodes that something happened which somebody may wait for.

- One thread and one connection for a database, from when the first log is listened to until none is.
- What is told may be lost with the connection, so whoever listens is also told when it was made anew, and looks at the
  log now and then by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import psycopg

from agentlattice_core.errors import StoreError
from agentlattice_core.stores.postgres_connections import Connection, Connections, reason
from agentlattice_core.stores.postgres_transaction import CHANNEL

__all__ = ["Listener"]

_log = logging.getLogger("agentlattice")

_PATIENCE = 0.5  # seconds until it is seen that nobody listens any more
_AGAIN = 1.0  # seconds until a lost connection is made anew

Bell = Callable[[], None]


class Listener:
    """Rings a bell for each log that another node tells of."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked child: who listened, listened in the parent."""
        self._lock = threading.Lock()
        self._bells: dict[str, list[Bell]] = {}
        self._thread: threading.Thread | None = None

    def listen(self, log_id: str, bell: Bell) -> None:
        """Have `bell` called, on the listener's thread, for what is told of the log."""
        with self._lock:
            bells = self._bells.setdefault(log_id, [])
            if bell not in bells:
                bells.append(bell)
            if self._thread is None:
                thread = threading.Thread(target=self._listen, name="agentlattice-listener", daemon=True)
                thread.start()
                self._thread = thread

    def forget(self, log_id: str) -> None:
        """Ring no more for a log that was closed. The thread ends a moment after the last."""
        with self._lock:
            self._bells.pop(log_id, None)

    def _listen(self) -> None:
        me, told = threading.current_thread(), ""
        while self._is_needed(me):
            try:
                connection = self._connections.connect()
                try:
                    connection.execute(f"LISTEN {CHANNEL}")
                    told = ""
                    self._ring_all()  # what was told before is lost
                    self._hear(connection, me)
                finally:
                    connection.close()
            except (psycopg.Error, StoreError, OSError) as error:
                if reason(error) != told:
                    told = reason(error)
                    _log.warning("other nodes cannot be heard at the moment: %s", told)
                threading.Event().wait(_AGAIN)

    def _hear(self, connection: Connection, me: threading.Thread) -> None:
        while self._is_needed(me):
            for note in connection.notifies(timeout=_PATIENCE):
                with self._lock:
                    bells = list(self._bells.get(note.payload, ()))
                for bell in bells:
                    bell()

    def _ring_all(self) -> None:
        with self._lock:
            bells = [bell for bells in self._bells.values() for bell in bells]
        for bell in bells:
            bell()

    def _is_needed(self, me: threading.Thread) -> bool:
        with self._lock:
            if self._thread is me and self._bells:
                return True
            if self._thread is me:
                self._thread = None
            return False
