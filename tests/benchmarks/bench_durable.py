"""A durable governed action beside raw SQLite commits of the same bytes: one caller to 256, and eight processes.

- One round measures everything once, raw commits first and last; each ratio is to the raw commits of its own round, and
  the median over the rounds counts.
- Threads call `execute_sync`, tasks `execute` on one event loop.
- `64 threads share raw commits` is the most that 64 threads can reach.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from load import (
    Disk,
    asynchronous_rate,
    bytes_per_action,
    fresh,
    opened,
    process_shares,
    raw_rate,
    single_rate,
    threaded_rate,
)
from measurement import Bar, Measurement, Scale, medians
from shared_commits import shared_rate

__all__ = ["measure"]

_BARS = {
    (False, "1 caller"): 0.4,
    (True, "1 caller"): 0.8,
    (False, "64 threads"): 1.3,
    (True, "64 threads"): 12.0,
    (True, "8 processes"): 4.0,
}
_CALLERS = (8, 64, 256)
_PROCESSES = 8


def measure(directory: Path, scale: Scale) -> Iterator[Measurement]:
    """Actions a second and ratios to raw commits, on the disk as it is and with syncs slowed."""
    size = bytes_per_action(directory)
    yield Measurement("bytes that one action adds to the tables", size, "bytes")
    rounds, seconds = (5, 1.0) if scale == "full" else (1, 0.05)
    for disk in (Disk(False), Disk(True)):
        found = [_round(directory, disk, size, seconds, scale) for _ in range(rounds)]
        rates = medians([rates for rates, _ in found])
        ratios = medians([{name: rate / rates["raw"] for name, rate in rates.items()} for rates, _ in found])
        details = medians([details for _, details in found])
        yield Measurement(f"raw commits of one row, {disk}", rates.pop("raw"), "rows/s")
        for name, rate in rates.items():
            limit = _BARS.get((disk.slowed, name))
            bar = None if limit is None else Bar("at least", limit)
            unit = "rows/s" if "raw" in name else "actions/s"
            yield Measurement(f"{name}, {disk}", rate, unit, ratios[name], "raw commits of one row", bar)
        fair = Bar("at least", 0.7, of="value")
        wait = Bar("at most", 150, of="value")
        yield Measurement(
            f"{_PROCESSES} processes, slowest over busiest, {disk}", details["fairness"], "", bar=fair
        )
        yield Measurement(f"{_PROCESSES} processes, wait p99.9, {disk}", details["p999"], "ms", bar=wait)
        yield Measurement(f"{_PROCESSES} processes, worst wait, {disk}", details["worst"], "ms")
        yield Measurement(f"processor time of one action, 1 caller, {disk}", details["cpu 1"], "us")
        yield Measurement(f"processor time of one action, 64 threads, {disk}", details["cpu 64"], "us")


def _round(
    directory: Path, disk: Disk, size: int, seconds: float, scale: Scale
) -> tuple[dict[str, float], dict[str, float]]:
    rates: dict[str, float] = {}
    details: dict[str, float] = {}
    before = raw_rate(directory, disk, size, seconds / 2)
    with opened(fresh(directory), disk) as al:
        cpu = time.process_time()
        rates["1 caller"] = single_rate(al, seconds)
        details["cpu 1"] = (time.process_time() - cpu) / rates["1 caller"] / seconds * 1e6
        rates["1 task"] = asynchronous_rate(al, 1, seconds)
        for callers in _CALLERS:
            cpu = time.process_time()
            rates[f"{callers} threads"] = rate = threaded_rate(al, callers, seconds)
            details[f"cpu {callers}"] = (time.process_time() - cpu) / rate / seconds * 1e6
            rates[f"{callers} tasks"] = asynchronous_rate(al, callers, seconds)
    middle = raw_rate(directory, disk, size, seconds / 2)
    shares = process_shares(
        directory, disk, _PROCESSES if scale == "full" else 2, 3 * seconds if scale == "full" else 0.3
    )
    rates[f"{_PROCESSES} processes"] = shares.rate
    details |= {"fairness": shares.fairness, "p999": shares.wait_p999, "worst": shares.wait_worst}
    rates["64 threads share raw commits"] = shared_rate(directory, disk, size, 64, seconds)
    rates["raw commits of 100 rows"] = raw_rate(directory, disk, size, seconds / 2, rows=100)
    after = raw_rate(directory, disk, size, seconds / 2)
    return {"raw": statistics.mean((before, middle, after)), **rates}, details
