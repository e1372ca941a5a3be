"""A clock that stands still until it is told to move."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

__all__ = ["ManualClock"]


class ManualClock:
    """Set by hand: `clock.advance(hours=1)`, `clock.set(...)`. Safe to move from any thread, backwards too."""

    def __init__(self, start: datetime | None = None) -> None:
        self._lock = threading.Lock()
        self._now = start or datetime(2026, 3, 2, 9, 0, tzinfo=UTC)

    def now(self) -> datetime:
        with self._lock:
            return self._now

    def set(self, at: datetime) -> None:
        """Jump to `at`, which must be aware."""
        if at.tzinfo is None:
            raise ValueError("a clock needs an aware time")
        with self._lock:
            self._now = at.astimezone(UTC)

    def advance(self, **delta: float) -> None:
        """Move by `timedelta(**delta)`."""
        with self._lock:
            self._now += timedelta(**delta)
