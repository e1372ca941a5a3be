"""Ctrl-C while a command waits for somebody, at whatever moment it comes.

- The interpreter looks for signals between two steps of a program, and a wait is one step. A signal that comes after
  the last look and before the wait, or to another thread, would be slept through until somebody decides.
- So a thread is told of it as well, and knocks at the main thread, which interrupts its wait, until that has looked.
- Where a signal means something else than Ctrl-C by default, as in a service or in a background job, nothing is done.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["heeding_interrupts"]

_MOMENT = 0.1  # seconds that the main thread has to look by itself


@contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Within, Ctrl-C raises KeyboardInterrupt in the main thread whatever that waits for."""
    waiting = threading.current_thread()
    meant = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if waiting is not threading.main_thread() or not meant:
        yield
        return
    over = False
    told, telling = os.pipe()
    os.set_blocking(telling, False)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal over
        over = True
        raise KeyboardInterrupt

    def knock() -> None:
        while number := os.read(told, 1):
            while number[0] == signal.SIGINT and not over:
                time.sleep(_MOMENT)
                if not over and waiting.ident is not None:
                    signal.pthread_kill(waiting.ident, signal.SIGINT)
        os.close(told)

    threading.Thread(target=knock, name="agentlattice-interrupts", daemon=True).start()
    before = signal.set_wakeup_fd(telling)
    try:
        signal.signal(signal.SIGINT, interrupt)
        yield
    finally:
        over = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(before)
        os.close(telling)
