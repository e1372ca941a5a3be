"""The cost of an action in a log of a thousand entries and in one of a million.

- The two logs are written to in turns, in one run; the long one is opened once, as a long-lived process has it.
- The long log is built in thousands of actions per transaction (`long_logs`).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from load import Disk, opened, single_rate, threaded_rate
from long_logs import copied, log_of
from measurement import Bar, Measurement, Scale

__all__ = ["measure"]


def measure(directory: Path, scale: Scale) -> Iterator[Measurement]:
    """Microseconds of one action in either log, one caller and 64, and the ratios."""
    few, many = (1_000, 1_000_000) if scale == "full" else (200, 2_000)
    rounds, seconds = (9, 1.0) if scale == "full" else (1, 0.05)
    long = log_of(directory, many)
    file = (long / "governance.db").stat().st_size
    yield Measurement(f"file of {many:,} entries", file / 2**20, "MiB")
    short = log_of(directory, few)
    disk = Disk(False)
    taken: dict[tuple[int, int], list[float]] = {
        (size, callers): [] for size in (few, many) for callers in (1, 64)
    }
    with copied(long, directory) as path, opened(path, disk) as large:
        for _ in range(rounds):
            with copied(short, directory) as fresh_path, opened(fresh_path, disk) as small:
                for callers in (1, 64):
                    for size, al in ((few, small), (many, large)):
                        rate = single_rate if callers == 1 else lambda al, s: threaded_rate(al, 64, s)
                        taken[size, callers].append(1e6 / rate(al, seconds))
    for callers, name in ((1, "1 caller"), (64, "64 threads")):
        ratio = statistics.median(
            large / small for small, large in zip(taken[few, callers], taken[many, callers], strict=True)
        )
        base = statistics.median(taken[few, callers])
        yield Measurement(f"action, {few:,} entries in the log, {name}", base, "us")
        yield Measurement(
            f"action, {many:,} entries in the log, {name}",
            statistics.median(taken[many, callers]),
            "us",
            ratio,
            f"{few:,} entries",
            Bar("at most", 1.2),
        )
