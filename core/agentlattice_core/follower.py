"""Watching the log: whoever waits for an approval, or subscribed to notifications, is a cursor on it.

- Watchers hear of every entry after the one they began at, in order, once it is durable, whoever wrote it.
- In this process a commit rings the bell at once. Another process's commit is noticed by asking the database whether
  it changed: every 5 ms while things happen, backing off to 50 ms, and never when nobody watches.
- Watchers run on the follower's thread: they must return soon. One that raises is logged and does not stop the others.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import orjson

from agentlattice_core.errors import AgentLatticeError
from agentlattice_core.stores.base import Row, Store

__all__ = ["Follower", "Watcher"]

_log = logging.getLogger("agentlattice")

_FASTEST, _SLOWEST = 0.005, 0.05

Watcher = Callable[[dict[str, Any], Row], None]
"""Called with a parsed entry and its stored row."""


class Follower:
    """One thread that reads what is new in the log, for all watchers of this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._watchers: list[Watcher] = []
        self._thread: threading.Thread | None = None
        self._cursor = 0
        self._closed = False

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have `watcher` called for every entry from now on. Returns a function that ends it."""
        if self._pid != os.getpid():
            self._reset()
        with self._lock:
            if not self._watchers:
                with self._store.read() as reader:
                    self._cursor = reader.head.size
            self._watchers.append(watcher)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._follow, name="agentlattice-follower", daemon=True
                )
                self._thread.start()
        self._bell.set()

        def end() -> None:
            with self._lock:
                if watcher in self._watchers:
                    self._watchers.remove(watcher)

        return end

    def ring(self) -> None:
        """Say that this process has committed something."""
        if self._watchers and self._pid == os.getpid():
            self._bell.set()

    def close(self) -> None:
        """End the thread."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closed = True
            self._watchers.clear()
        self._bell.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _follow(self) -> None:
        interval = _FASTEST
        while not self._closed:
            rung = self._bell.wait(interval if self._watchers else None)
            self._bell.clear()
            try:
                if rung or self._store.changed():
                    interval = _FASTEST
                    self._deliver()
                else:
                    interval = min(interval * 1.2, _SLOWEST)
            except AgentLatticeError as error:
                interval = _SLOWEST
                if self._watchers:
                    _log.warning("the log could not be followed: %s", error)

    def _deliver(self) -> None:
        with self._lock:
            watchers, start = list(self._watchers), self._cursor
        if not watchers:
            return
        with self._store.read() as reader:
            end = reader.head.size
            rows = list(reader.rows(start, min(end, start + 1000)))
        for row in rows:
            entry = orjson.loads(row[1])
            for watcher in watchers:
                try:
                    watcher(entry, row)
                except Exception as error:
                    _log.warning("a subscriber failed: %s: %s", type(error).__name__, error)
        with self._lock:
            self._cursor = max(self._cursor, start + len(rows))
        if start + len(rows) < end:
            self._bell.set()
