"""How much memory something takes: the resident set of a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["in_a_process", "peak", "resident"]

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> float:
    """The resident set of this process in mebibytes."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * _PAGE / 2**20


def in_a_process(task: Callable[..., float], *arguments: Any) -> float:
    """What `task` returns in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(task, arguments)


def peak(run: Callable[[], object]) -> float:
    """By how many mebibytes the resident set grew at most while `run` ran, sampled."""
    before, most = resident(), 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.002):
            most = max(most, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return max(most, before) - before
