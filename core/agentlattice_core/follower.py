"""Watching the log: whoever waits for an approval, or subscribed to notifications, is a cursor on it.

- Watchers hear of every entry after the one they began at, in order, once it is durable, whoever wrote it.
- In this process a commit rings the bell at once. Another process's commit is noticed by asking the database whether
  it changed, as often as it says (SQLite: every 5 ms while things happen, backing off to 50 ms), and never when nobody
  watches. A store that hears from others what somebody may wait for rings the bell, too.
- Watchers run on the follower's thread: they must return soon. One that raises is logged and does not stop the others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import orjson

from agentlattice_core.stores.base import Row, Store

__all__ = ["Follower", "Watch", "Watcher"]

_log = logging.getLogger("agentlattice")

Watcher = Callable[[dict[str, Any], Row], None]
"""Called with a parsed entry and its stored row."""


class Watch:
    """What `start` begins, from `begin` to `end`; `start` returns what ends it.

    To begin reads the log, so a task has another thread do it. Where that task is cancelled meanwhile, it calls `end`
    while the thread is still beginning, and nothing is left behind.
    """

    def __init__(self, *start: Callable[[], Callable[[], None]]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._ends: list[Callable[[], None]] = []
        self._over = False

    def begin(self) -> None:
        """Begin everything."""
        ends = [start() for start in self._start]
        with self._lock:
            self._ends = ends
            over = self._over
        if over:
            self.end()

    def end(self) -> None:
        """End everything, also what is only being begun. May be called again."""
        with self._lock:
            self._over = True
            ends, self._ends = self._ends, []
        for one in ends:
            one()


class Follower:
    """One thread that reads what is new in the log, for all watchers of this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked child: who watched, watched in the parent."""
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._watchers: list[tuple[int, Watcher, Callable[[], None] | None]] = []
        self._thread: threading.Thread | None = None
        self._cursor = 0
        self._closed = False

    def watch(self, watcher: Watcher, closed: Callable[[], None] | None = None) -> Callable[[], None]:
        """Have `watcher` called for every entry from now on, and `closed` when there will be no more, because the log
        is closed. Returns a function that ends both.
        """
        with self._lock:
            with self._store.read() as reader:
                watching = (reader.head.size, watcher, closed)
            if self._thread is None:
                thread = threading.Thread(target=self._follow, name="agentlattice-follower", daemon=True)
                thread.start()
                self._thread = thread
                self._store.listen(self._bell.set)
            if not self._watchers:
                self._cursor = watching[0]
            self._watchers.append(watching)
        self._bell.set()

        def end() -> None:
            with self._lock:
                if watching in self._watchers:
                    self._watchers.remove(watching)

        return end

    def ring(self) -> None:
        """Say that this process has committed something."""
        if self._watchers:
            self._bell.set()

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            self._closed = True
            watchers = list(self._watchers)
            self._watchers.clear()
        for _, _, closed in watchers:
            if closed is not None:
                closed()
        self._bell.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _follow(self) -> None:
        fastest, slowest = self._store.poll
        interval, behind = fastest, False
        while not self._closed:
            rung = self._bell.wait(interval if self._watchers else None)
            self._bell.clear()
            try:
                if rung or behind or self._store.changed():
                    interval, behind = fastest, True
                    self._deliver()
                    behind = False
                else:
                    interval = min(interval * 1.2, slowest)
            except Exception as error:
                interval = slowest
                if self._watchers:
                    _log.warning("the log could not be followed: %s", error)

    def _deliver(self) -> None:
        start = self._cursor
        if not self._watchers:
            return
        with self._store.read() as reader:
            end = reader.head.size
            rows = list(reader.rows(start, min(end, start + 1000)))
        with self._lock:
            # Whoever began to watch until now is among them; whoever comes later begins after these rows.
            watchers = list(self._watchers)
            self._cursor = max(self._cursor, start + len(rows))
        for row in rows:
            try:
                entry = orjson.loads(row[1])
            except ValueError:
                continue  # somebody changed it; verification names it
            for begun, watcher, _ in watchers:
                if row[0] < begun:
                    continue
                try:
                    watcher(entry, row)
                except Exception as error:
                    _log.warning("a subscriber failed: %s: %s", type(error).__name__, error)
        if start + len(rows) < end:
            self._bell.set()
