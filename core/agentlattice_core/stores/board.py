"""What the processes on one file tell each other: how far it was written, and how far that is on the disk.

- One sync makes durable whatever any process committed before it began. So whoever needs one takes the turn to sync and
  syncs for all; if somebody has the turn, it waits for its end and looks whether that sync has covered its commit.
- Turns alternate between two locks, and whoever waits for the end of one shares its lock. So all wake at once, while
  the next turn has begun on the other lock. (In a queue for one lock they wake one another, and the next sync waits
  until they all have.)
- Before a commit the writer counts it as begun, after it as done, both while it holds the gate. Whoever finds nothing
  begun since its own last commit knows that what it remembers of the log is still so.
- The counts are worth nothing once nobody has the file open (a reboot may have torn them), so whoever opens it alone
  starts them afresh. They live in memory that is mapped from a small file; nothing is lost with it.
- A sync that failed poisons the board: the kernel may have dropped anybody's pages, so every process stops.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from functools import partial

__all__ = ["Board"]

_BEGUN, _DONE, _SIZE, _DURABLE, _DURABLE_SIZE, _POISONED, _TURN = range(7)
_BYTES = 4096


class Board:
    """The shared counts of one file. The caller holds the gate when it opens one, and where a method says so.

    Each count is one aligned machine word, which is read and written whole.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(f"{path}-board", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._turns: list[int] = []
        try:
            for name in (f"{path}-sync0", f"{path}-sync1"):
                self._turns.append(os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            if os.fstat(self._file).st_size < _BYTES:
                # Not only made longer: a full disk is an error here, and the end of the process in a mapped hole.
                os.pwrite(self._file, bytes(_BYTES), 0)
            self._map = mmap.mmap(self._file, _BYTES)
        except BaseException:
            for file in (self._file, *self._turns):
                os.close(file)
            raise
        self._words = memoryview(self._map).cast("Q")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            for word in range(_TURN + 1):
                self._words[word] = 0
        fcntl.flock(self._file, fcntl.LOCK_SH)
        # Lets go of the lock that `lock` tried last. Not a method, at whose start an interrupt could keep it.
        self.unlock = partial(fcntl.flock, self._turns[0], fcntl.LOCK_UN)

    @property
    def begun(self) -> int:
        """Commits begun so far. Read it while holding the gate."""
        return self._words[_BEGUN]

    def begin(self) -> int:
        """Count a commit as begun; its number. The caller holds the gate."""
        number = self._words[_BEGUN] + 1
        self._words[_BEGUN] = number
        return number

    def done(self, number: int, size: int) -> None:
        """Count a commit as done, the log then having `size` entries. The caller holds the gate."""
        self._words[_SIZE] = size
        self._words[_DONE] = number

    @property
    def written(self) -> tuple[int, int]:
        """The number of the last commit done, and the size of the log, which is at least what it was then."""
        number = self._words[_DONE]
        return number, self._words[_SIZE]

    @property
    def durable(self) -> int:
        """The number of the last commit that is on the disk."""
        return self._words[_DURABLE]

    @property
    def durable_size(self) -> int:
        """How many entries of the log are on the disk."""
        return self._words[_DURABLE_SIZE]

    def settle(self, number: int, size: int) -> None:
        """Say that everything up to a commit and a size is on the disk. The caller has the turn, which this ends."""
        self._words[_DURABLE_SIZE] = max(size, self._words[_DURABLE_SIZE])
        self._words[_DURABLE] = max(number, self._words[_DURABLE])
        self._words[_TURN] += 1

    @property
    def poisoned(self) -> bool:
        """Whether a sync has failed since the file was opened."""
        return self._words[_POISONED] != 0

    def poison(self) -> None:
        """Say that a sync has failed."""
        self._words[_POISONED] = 1

    def lock(self, unless_durable: int | None = None) -> bool:
        """Wait for the turn to sync and take it, or until that commit is found durable; whether it was taken.

        Called inside of the `try` whose `finally` calls `unlock`.
        """
        while unless_durable is None or self.durable < unless_durable:
            turn = self._words[_TURN]
            file = self._turns[turn % 2]
            self.unlock = partial(fcntl.flock, file, fcntl.LOCK_UN)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fcntl.flock(file, fcntl.LOCK_SH)
                if self._words[_TURN] == turn:
                    # Whoever had the turn gave it up, or somebody still shares the lock of an earlier one.
                    fcntl.flock(file, fcntl.LOCK_EX)
            if self._words[_TURN] == turn:
                return True
            self.unlock()
        return False

    def close(self) -> None:
        """Give everything back."""
        self._words.release()
        self._map.close()
        for file in (self._file, *self._turns):
            os.close(file)
