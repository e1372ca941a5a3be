"""Verification of a log beside a bare loop that hashes the same bytes of the same rows, in one process and one run.

    python tests/benchmarks/bench_verify.py [entries]

The bare loop computes what any verifier must: the hash of each entry, of each payload with its salt, and of each inner
node of the tree; it compares nothing. Prints one line and returns the figures for the benchmark report.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from agentlattice_core.audit.canonical import dumps_payload
from agentlattice_core.audit.entry import Sealer
from agentlattice_core.audit.verify import Row, verify_rows

ROUNDS = 5


def bench_verify(entries: int = 50_000) -> dict[str, Any]:
    """Medians over alternated runs: microseconds to seal, entries a second verified, and the ratio to the bare loop."""
    rows, seal_seconds, head = _sealed(entries)
    bare, verified = [], []
    for _ in range(ROUNDS):
        bare.append(_seconds(lambda: _bare(rows)))
        verified.append(_seconds(lambda: _verified(rows, head)))
    return {
        "entries": entries,
        "entry_bytes": len(rows[-1][1]),
        "payload_bytes": len(rows[-1][4] or b""),
        "seal_us": round(1e6 * seal_seconds / entries, 2),
        "bare_entries_per_second": round(entries / statistics.median(bare)),
        "verified_entries_per_second": round(entries / statistics.median(verified)),
        "ratio": round(statistics.median(one / two for one, two in zip(bare, verified, strict=True)), 3),
    }


def _sealed(entries: int) -> tuple[list[Row], float, Any]:
    sealer = Sealer("bench")
    rows: list[Row] = []
    seconds = 0.0
    for index in range(entries):
        data = {
            "action_type": "db.migrate",
            "conditions": [{"field": "count", "operator": "lte", "result": True}],
            "decision": {
                "outcome": "allow",
                "policy": {"digest": "f" * 64, "id": "p", "name": "n", "version": 3},
            },
        }
        who = {"agent": f"agent-{index % 8}", "run": "r1"}
        payload = dumps_payload({"metadata": {"files": index % 90, "note": "x" * 80, "share": 0.5}})
        at = f"2026-03-02T{index // 180_000 % 24:02}:{index // 3000 % 60:02}:{index // 50 % 60:02}.{index % 50:06}Z"
        begin = time.perf_counter()
        rows.append(tuple(sealer.seal("action", who, data, at=at, id=f"act-{index:09}", payload=payload)))
        seconds += time.perf_counter() - begin
    return rows, seconds, sealer.head()


def _bare(rows: list[Row]) -> None:
    sha256 = hashlib.sha256
    row = []
    for _, body, _, salt, payload in rows:
        assert salt is not None
        assert payload is not None
        row.append(sha256(b"\x00" + body).digest())
        sha256(salt + payload).digest()
    while len(row) > 1:
        row = [sha256(b"\x01" + row[at] + row[at + 1]).digest() for at in range(0, len(row) - 1, 2)]


def _verified(rows: list[Row], head: Any) -> None:
    report = verify_rows(rows, log="bench", head=head)
    assert report.ok, report.problem


def _seconds(run: Callable[[], None]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


if __name__ == "__main__":
    print(json.dumps(bench_verify(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)))
