"""Time, injected.

- Nothing in the core reads the wall clock except `SystemClock`; a decision gets its time as an argument.
- Wall time is an aware `datetime` in UTC, used for stamps, windows and deadlines.
- Waiting uses the clock too, so that a test can make hours pass at once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

__all__ = ["Clock", "MovableClock", "SystemClock", "format_time", "parse_time", "time_of_log"]


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> datetime:
        """The time, aware, in UTC."""
        ...


@runtime_checkable
class MovableClock(Clock, Protocol):
    """A clock that somebody moves, and that says when."""

    def on_move(self, moved: Callable[[], object]) -> Callable[[], None]:
        """Have `moved` called after every move, before whoever moved it goes on. Returns a function that ends it."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


def format_time(at: datetime) -> str:
    """RFC 3339 in UTC with exactly six digits of a second, so that text order is time order."""
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    return at.isoformat(timespec="microseconds")[:26] + "Z"


def time_of_log(clock: Clock, latest: str) -> str:
    """The stamp that an entry would get now: what the clock says, but never before `latest`, the log's last stamp."""
    return max(format_time(clock.now()), latest)


def parse_time(text: str) -> datetime:
    """The inverse of `format_time`; any RFC 3339 time with an offset is read. Raises ValueError otherwise."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"time `{text}` has no offset")
    return at if at.tzinfo is UTC else at.astimezone(UTC)
