"""One writer at a time among the processes of one machine, fairly.

- Two advisory file locks: whoever wants to write takes the turnstile, then the gate, and lets go of the turnstile once
  it holds the gate. The one that just wrote therefore queues behind whoever waited at the turnstile, and nobody starves
  (SQLite's own busy handler lets some processes wait for seconds).
- Whoever holds the turnstile writes next. It may keep it for a while after it has entered, so that those who come in
  the meantime leave their work with it (`exchange`) rather than queue.
- The kernel releases the locks of a process that dies.
- The files hold nothing and are never deleted: deleting one would split the lock in two.
"""

from __future__ import annotations

import fcntl
import os
from functools import partial

__all__ = ["ProcessGate"]


class ProcessGate:
    """The lock between processes. Not a lock between threads: its owner holds one of its own around it.

    Queue and enter inside of the `try` whose `finally` leaves and admits: both do nothing where there is nothing to let
    go of.
    """

    def __init__(self, path: str) -> None:
        self._turnstile = os.open(f"{path}-turnstile", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._gate = os.open(f"{path}-gate", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except BaseException:
            os.close(self._turnstile)
            raise
        # Not methods, at whose start an interrupt could keep a lock.
        self.leave = partial(fcntl.flock, self._gate, fcntl.LOCK_UN)
        """Let go of the gate."""
        self.admit = partial(fcntl.flock, self._turnstile, fcntl.LOCK_UN)
        """Let go of the turnstile, so that whoever waits there may queue for the gate."""

    def is_next(self) -> bool:
        """Take the turnstile if nobody has it; whether it is held."""
        try:
            fcntl.flock(self._turnstile, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def queue(self) -> None:
        """Wait for the turnstile and hold it. Does nothing if it is held already."""
        fcntl.flock(self._turnstile, fcntl.LOCK_EX)

    def enter(self) -> None:
        """Wait for the gate and hold it. The caller holds the turnstile, and still does afterwards."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)

    def close(self) -> None:
        """Give the files back; the gate cannot be used afterwards."""
        os.close(self._turnstile)
        os.close(self._gate)
