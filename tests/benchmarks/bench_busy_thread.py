"""One caller beside a thread that computes without a pause, at Python's default switch interval.

The interpreter lock passes from the computing thread only every 5 ms, and an action gives it away at every statement
and sync. The raw commit gives it away once or twice, and is the floor.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from load import Disk, bytes_per_action, fresh, opened, raw_rate, single_rate, threaded_rate
from measurement import Measurement, Scale

__all__ = ["measure"]


def measure(directory: Path, scale: Scale) -> Iterator[Measurement]:
    """Milliseconds of one action, alone and beside the computing thread."""
    rounds, seconds = (5, 1.0) if scale == "full" else (1, 0.05)
    size, disk = bytes_per_action(directory), Disk(False)
    taken: dict[str, list[float]] = {}

    def note(name: str, rate: float) -> None:
        taken.setdefault(name, []).append(1000 / rate)

    for _ in range(rounds):
        with opened(fresh(directory), disk) as al:
            note("alone", single_rate(al, seconds))
            with _computing():
                note("busy", single_rate(al, seconds))
                note("busy 64", threaded_rate(al, 64, seconds))
                note("raw", raw_rate(directory, disk, size, seconds))
    found = {name: statistics.median(values) for name, values in taken.items()}
    raw = "raw commit beside it"
    yield Measurement("action, 1 caller, no other thread", found["alone"], "ms")
    yield Measurement("raw commit of one row beside a CPU-bound thread", found["raw"], "ms")
    yield Measurement(
        "action, 1 caller, beside a CPU-bound thread", found["busy"], "ms", found["busy"] / found["raw"], raw
    )
    yield Measurement(
        "action, 64 threads, beside a CPU-bound thread",
        found["busy 64"],
        "ms",
        found["busy 64"] / found["raw"],
        raw,
    )


@contextmanager
def _computing() -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=_compute, args=(stop.is_set,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _compute(stopped: Callable[[], bool]) -> None:
    total = 0
    while not stopped():
        for number in range(1_000):
            total += number * number
