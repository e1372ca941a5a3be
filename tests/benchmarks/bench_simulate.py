"""Replaying a long log against other policies: processor time, and memory that does not grow with the log.

- What is replayed was recorded by the same code as in use; what it is replayed against has conditions, guardrails, caps
  and a registry, and decides otherwise about half of it.
- The whole is measured: reading and decoding the log, deciding, charging, counting what flips.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from long_logs import log_of
from measurement import Bar, Measurement, Scale
from memory import in_a_process, peak

from agentlattice_core.policy.document import PolicyDocument
from agentlattice_core.policy.evaluate import PolicySet
from agentlattice_core.policy.simulate import SimulationReport, simulate
from agentlattice_core.recorded import RecordedActions
from agentlattice_core.stores.sqlite import SQLiteStore

__all__ = ["measure"]

_CANDIDATE = """version: 1
policies:
  - name: Refunds
    action: refund.*
    effect: require_approval
    conditions:
      - {field: amount, operator: lt, value: "500"}
      - any:
          - {field: reason, operator: starts_with, value: damaged}
          - {field: time.weekday, operator: in, value: [mon, tue, wed, thu, fri]}
    rules:
      - {priority: 10, type: AMOUNT_THRESHOLD, max: "100.00", currency: EUR, effect: AUTO_APPROVE}
      - {priority: 40, type: DAILY_CAP, cap: "10.00", currency: EUR, per: agent, timezone: Europe/Paris, effect: REJECT}
  - {name: Everything, action: "*", effect: allow}
guardrails:
  - name: Nights
    action: "*"
    rules: [{priority: 1, type: TIME_WINDOW, from: "22:00", to: "22:01", timezone: UTC, effect: REJECT}]
"""


def measure(directory: Path, scale: Scale) -> Iterator[Measurement]:
    """Seconds of processor time, microseconds for each action, and mebibytes at the peak."""
    full = scale == "full"
    few, many = (10_000, 100_000) if full else (200, 1_000)
    path = log_of(directory, many) / "governance.db"
    seconds = statistics.median(in_a_process(_seconds, path, many) for _ in range(3 if full else 1))
    bar = Bar("at most", 10, of="value")
    yield Measurement(f"simulating {many:,} recorded actions", seconds, "s of CPU", bar=bar)
    yield Measurement("simulating one recorded action", seconds / many * 1e6, "us of CPU")
    small, large = (
        in_a_process(_peak, log_of(directory, entries) / "governance.db", entries) for entries in (few, many)
    )
    yield Measurement(f"memory peak of simulating {few:,} actions", small, "MiB")
    # The page cache of one connection is bounded at 16 MiB, and a short log does not fill it.
    limit = Bar("at most", 32, of="value")
    beside = f"{few:,} actions"
    yield Measurement(
        f"memory peak of simulating {many:,} actions", large, "MiB", large / max(small, 0.1), beside, limit
    )


def _replayed(path: Path, candidate: PolicySet) -> SimulationReport:
    store = SQLiteStore(path, new_log_id=lambda: "none")
    try:
        with store.read() as reader:
            return simulate(RecordedActions(reader), candidate, {})
    finally:
        store.close()


def _seconds(path: Path, entries: int) -> float:
    candidate = PolicySet.from_document(PolicyDocument.parse(_CANDIDATE))
    started = time.process_time()
    report = _replayed(path, candidate)
    taken = time.process_time() - started
    assert report.total >= entries, report.total
    assert entries < 10_000 or report.flips, "nothing flips, so nothing of a flip was measured"
    return taken


def _peak(path: Path, entries: int) -> float:
    candidate = PolicySet.from_document(PolicyDocument.parse(_CANDIDATE))
    gc.collect()
    return peak(lambda: _replayed(path, candidate))
