"""Verification beside a bare loop that hashes the same bytes of the same rows, and from a checkpoint.

- The bare loop computes what any verifier must: the hash of each entry, of each payload with its salt, and of each
  inner node of the tree; it compares nothing.
- `rows in memory` compares the verifier alone; `stored log` reads the rows from the database in both, and measures the
  whole of `verify`, with tiles, head and checkpoints.
- From a checkpoint, the same number of entries was added after it to a short log and to a long one, verified in turns.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import apsw
from load import Disk, opened
from long_logs import copied, log_of, record
from measurement import Bar, Measurement, Scale

from agentlattice_core.audit.canonical import dumps_payload
from agentlattice_core.audit.entry import Sealer
from agentlattice_core.audit.verify import Row, verify_rows

__all__ = ["measure"]

_BAR = Bar("at least", 0.6)


def measure(directory: Path, scale: Scale) -> Iterator[Measurement]:
    """Entries a second verified, the ratio to the bare loop, and milliseconds from a checkpoint."""
    full = scale == "full"
    yield from _in_memory(50_000 if full else 500, 9 if full else 1)
    few, many = (10_000, 1_000_000) if full else (200, 2_000)
    with copied(log_of(directory, few), directory) as path:
        yield from _stored(path, 9 if full else 1)
    added, rounds = (1_000, 15) if full else (50, 1)
    with ExitStack() as stack:
        logs = [stack.enter_context(copied(log_of(directory, size), directory)) for size in (few, many)]
        verified = [stack.enter_context(_from_a_checkpoint(path, added)) for path in logs]
        # In turns, because the processor may be twice as fast a moment later.
        taken = [[_seconds(verify) for verify in verified] for _ in range(rounds)]
    short, long = (1000 * statistics.median(column) for column in zip(*taken, strict=True))
    ratio = statistics.median(after / before for before, after in taken)
    yield Measurement(f"verifying {added:,} entries after a checkpoint at {few:,}", short, "ms")
    yield Measurement(
        f"verifying {added:,} entries after a checkpoint at {many:,}",
        long,
        "ms",
        ratio,
        f"checkpoint at {few:,}",
        Bar("at most", 1.5),
    )


def _in_memory(entries: int, rounds: int) -> Iterator[Measurement]:
    rows, seal_seconds, head = _sealed(entries)
    yield Measurement("sealing an entry", 1e6 * seal_seconds / entries, "us")
    yield _beside(
        f"verifying {entries:,} rows in memory",
        entries,
        rounds,
        lambda: _bare(rows),
        lambda: _verified(rows, head),
    )


def _stored(path: Path, rounds: int) -> Iterator[Measurement]:
    with opened(path, Disk(False)) as al:
        connection = apsw.Connection(str(path / "governance.db"), flags=apsw.SQLITE_OPEN_READONLY)
        ((entries,),) = connection.execute("SELECT count(*) FROM entries")
        query = "SELECT i, body, leaf, salt, payload FROM entries ORDER BY i"

        def verified() -> None:
            result = al.verify_sync()
            assert result.chain_valid, result.problem

        yield _beside(
            f"verifying a stored log of {entries:,} entries",
            entries,
            rounds,
            lambda: _bare(connection.execute(query)),
            verified,
        )
        connection.close()


def _beside(
    what: str, entries: int, rounds: int, bare: Callable[[], None], verified: Callable[[], None]
) -> Measurement:
    taken = [(_seconds(bare), _seconds(verified)) for _ in range(rounds)]
    ratio = statistics.median(loop / ours for loop, ours in taken)
    rate = entries / statistics.median(ours for _, ours in taken)
    return Measurement(what, rate, "entries/s", ratio, "bare hash loop", _BAR)


@contextmanager
def _from_a_checkpoint(path: Path, added: int) -> Iterator[Callable[[], None]]:
    """Verifies what was added to the log after a checkpoint."""
    with opened(path, Disk(False)) as al:
        note = al.checkpoint_sync()
        record(al, ["cs-agent"], 0, added)

        def verify() -> None:
            result = al.verify_sync(note, incremental=True)
            assert result.chain_valid, result.problem

        yield verify


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


def _bare(rows: Iterable[Row]) -> None:
    sha256 = hashlib.sha256
    row = []
    for _, body, _, salt, payload in rows:
        row.append(sha256(b"\x00" + body).digest())
        if salt is not None and payload is not None:
            sha256(salt + payload).digest()
    while len(row) > 1:
        row = [sha256(b"\x01" + row[at] + row[at + 1]).digest() for at in range(0, len(row) - 1, 2)]


def _verified(rows: list[Row], head: Any) -> None:
    report = verify_rows(rows, log="bench", head=head)
    assert report.ok, report.problem


def _seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
