"""Threads that share raw commits: what handing over and waking cost where nothing is decided, chained or signed.

- One row of the same bytes from each caller. Whoever finds nobody at work commits for all who wait, makes that durable
  by one sync, answers, and tells the next who waits to do the same.
- It is what remains of a governed action if all that is ours took no time, and so the most that its ratio can reach.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
from load import Disk, fresh, threads_rate

__all__ = ["shared_rate"]


class _Ticket:
    __slots__ = ("done", "signal")

    def __init__(self) -> None:
        self.done = False
        self.signal = threading.Lock()
        self.signal.acquire()


class _Shared:
    """Callers of `put`, one of which at a time calls `commit` with the number of rows."""

    def __init__(self, commit: Callable[[int], None]) -> None:
        self._commit = commit
        self._mutex = threading.Lock()
        self._waiting: list[_Ticket] = []
        self._led = False

    def put(self) -> None:
        ticket = _Ticket()
        with self._mutex:
            self._waiting.append(ticket)
            leads, self._led = not self._led, True
        if not leads:
            ticket.signal.acquire()  # until it is answered or told to lead
        if ticket.done:
            return
        with self._mutex:
            batch, self._waiting = self._waiting, []
        self._commit(len(batch))
        for answered in batch:
            answered.done = True
            if answered is not ticket:
                answered.signal.release()
        with self._mutex:
            following = self._waiting[0] if self._waiting else None
            self._led = following is not None
        if following is not None:
            following.signal.release()


def shared_rate(directory: Path, disk: Disk, size: int, callers: int, seconds: float) -> float:
    """Rows a second, `size` bytes each, of that many threads."""
    path = str(fresh(directory) / "raw.db")
    connection = apsw.Connection(path)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", 1)
    connection.execute("CREATE TABLE rows (i INTEGER PRIMARY KEY, content BLOB)")
    log = os.open(f"{path}-wal", os.O_RDWR)
    content = os.urandom(size)

    def commit(rows: int) -> None:
        with connection:
            connection.executemany("INSERT INTO rows (content) VALUES (?)", [(content,)] * rows)
        disk.sync(log)

    try:
        return threads_rate([_Shared(commit).put] * callers, seconds)
    finally:
        os.close(log)
        connection.close()
