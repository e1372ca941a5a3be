"""How much of the write-ahead log is not in the database yet, and moving it there without holding anybody up.

- The bulk is moved beside the writers (`move_bulk`). Inside the gate, the next writer moves the little that was written
  meanwhile (`start_afresh`), after which SQLite begins the log from its start.
- SQLite syncs the log before it moves pages, and the database before it begins the log afresh.
- A reader may hold an old part of the log. Then it is tried again once the log has grown by as much again.
- What was erased is in the log until it begins afresh, so an erasure makes it due.
"""

from __future__ import annotations

import apsw

__all__ = ["Backlog"]

_DUE_PAGES = 1000
_LATE = 4  # times as many may be there before a writer moves them because nobody else did


class Backlog:
    """The pages of one file's write-ahead log, as this process last saw them."""

    def __init__(self) -> None:
        self._pages = 0
        self._postponed = 0
        self._bulk_moved = False

    def committed(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        """SQLite's hook: a commit was written, and the log has that many pages."""
        if pages < self._pages:
            self._postponed, self._bulk_moved = 0, False
        self._pages = pages
        return apsw.SQLITE_OK

    def hurry(self) -> None:
        """Have it moved soon, however little it is."""
        self._pages, self._postponed = max(self._pages, _DUE_PAGES), 0

    @property
    def is_due(self) -> bool:
        """Whether the bulk should be moved."""
        return not self._bulk_moved and self._pages >= _DUE_PAGES + self._postponed

    @property
    def can_start_afresh(self) -> bool:
        """Whether the next writer should move the rest."""
        return self._bulk_moved or self._pages >= _LATE * _DUE_PAGES + self._postponed

    def move_bulk(self, connection: apsw.Connection) -> None:
        """Move what is there while others write."""
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._bulk_moved = True
        except apsw.BusyError:
            pass  # another process is at it

    def start_afresh(self, connection: apsw.Connection) -> None:
        """Move the rest. The caller holds the gate."""
        self._bulk_moved = False
        try:
            pages, moved = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            pages, moved = self._pages, 0
        if moved < pages:
            self._postponed = self._pages
