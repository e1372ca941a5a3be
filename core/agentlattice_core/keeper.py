"""Work that nobody waits for, done a little later on one background thread.

- A job has a name and a delay; asking for a job that is already due sooner changes nothing.
- The thread starts with the first job, sleeps when there is none, and is not carried across a fork.
- A job that fails is logged and forgotten: whatever must not be lost is in the log already.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

__all__ = ["Keeper"]

_log = logging.getLogger("agentlattice")


class Keeper:
    """Runs named jobs after a delay."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked child: what was due is the parent's to do."""
        self._wake = threading.Condition()
        self._due: dict[str, tuple[float, Callable[[], object]]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def later(self, name: str, delay: float, job: Callable[[], object]) -> None:
        """Have `job` run in `delay` seconds, unless a job of that name is due before."""
        due = time.monotonic() + delay
        known = self._due.get(name)
        if known is not None and known[0] <= due:  # a benign race: at worst the job runs once more
            return
        with self._wake:
            if self._closed:
                return
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="agentlattice-keeper", daemon=True)
                thread.start()
                self._thread = thread
            self._due[name] = (due, job)
            self._wake.notify()

    def close(self) -> None:
        """Drop what is due and end the thread."""
        with self._wake:
            self._closed = True
            self._due.clear()
            self._wake.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._closed:
                    now = time.monotonic()
                    ready = [name for name, (due, _) in self._due.items() if due <= now]
                    if ready:
                        break
                    soonest = min((due for due, _ in self._due.values()), default=None)
                    self._wake.wait(None if soonest is None else soonest - now)
                if self._closed:
                    return
                jobs = [self._due.pop(name)[1] for name in ready]
            for job in jobs:
                try:
                    job()
                except Exception as error:
                    _log.warning("background work failed: %s", error)
