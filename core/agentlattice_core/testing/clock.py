"""A clock that stands still until it is told to move.

- What falls due by a move (timeouts, escalations) in logs that this process has open is done before the move returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

__all__ = ["ManualClock"]


class ManualClock:
    """Set by hand: `clock.advance(hours=1)`, `clock.set(...)`. Safe to move from any thread, backwards too."""

    def __init__(self, start: datetime | None = None) -> None:
        self._lock = threading.Lock()
        self._now = start or datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
        self._listeners: list[Callable[[], object]] = []

    def now(self) -> datetime:
        with self._lock:
            return self._now

    def set(self, at: datetime) -> None:
        """Jump to `at`, which must be aware."""
        if at.tzinfo is None:
            raise ValueError("a clock needs an aware time")
        with self._lock:
            self._now = at.astimezone(UTC)
        self._tell()

    def advance(self, **delta: float) -> None:
        """Move by `timedelta(**delta)`."""
        with self._lock:
            self._now += timedelta(**delta)
        self._tell()

    def on_move(self, moved: Callable[[], object]) -> Callable[[], None]:
        """Have `moved` called after every move, before whoever moved it goes on. Returns a function that ends it."""
        self._listeners.append(moved)

        def end() -> None:
            if moved in self._listeners:
                self._listeners.remove(moved)

        return end

    def _tell(self) -> None:
        for moved in list(self._listeners):
            moved()
