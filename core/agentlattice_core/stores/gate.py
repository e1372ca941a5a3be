"""One writer at a time among the processes of one machine, fairly.

- Two advisory file locks: whoever wants to write takes the turnstile, then the gate, and lets go of the turnstile once
  it holds the gate. The one that just wrote therefore queues behind whoever waited at the turnstile, and nobody starves
  (SQLite's own busy handler lets some processes wait for seconds).
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

    Enter it inside of the `try` whose `finally` leaves it: leaving one that was not entered does nothing.
    """

    def __init__(self, path: str) -> None:
        self._turnstile = os.open(f"{path}-turnstile", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._gate = os.open(f"{path}-gate", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except BaseException:
            os.close(self._turnstile)
            raise
        # Not a method, at whose start an interrupt could keep the gate locked.
        self.leave = partial(fcntl.flock, self._gate, fcntl.LOCK_UN)

    def enter(self) -> None:
        """Wait for the gate and hold it."""
        try:
            fcntl.flock(self._turnstile, fcntl.LOCK_EX)
            fcntl.flock(self._gate, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the files back; the gate cannot be used afterwards."""
        os.close(self._turnstile)
        os.close(self._gate)
