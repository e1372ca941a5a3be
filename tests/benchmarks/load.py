"""The governed action that is measured, the raw commits it is measured beside, and disks that sync slowly.

- The action passes a policy with a daily cap, is charged to it, and is recorded: one durable transaction.
- Raw commits insert one blob of as many bytes as such an action adds to the tables: one row per commit, or a hundred.
  They use the same SQLite library, in WAL mode with synchronous=FULL.
- Slowed, every sync takes at least one millisecond. Ours goes through the store's own seam. The raw commit then is
  synchronous=NORMAL followed by the same slowed sync of the write-ahead log: one sync for each commit, exactly as
  FULL does it, but without a file system shim in Python between SQLite and the disk, which would slow it down more.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from agentlattice_core import AgentLattice
from agentlattice_core.stores import sqlite

__all__ = [
    "ACTION",
    "POLICY",
    "Disk",
    "Shares",
    "act",
    "asynchronous_rate",
    "bytes_per_action",
    "fresh",
    "opened",
    "process_shares",
    "raw_rate",
    "single_rate",
    "threaded_rate",
    "threads_rate",
]

ACTION = "refund.issue"
POLICY = """version: 1
policies:
  - name: Refunds
    action: refund.issue
    effect: allow
    rules:
      - priority: 40
        type: DAILY_CAP
        cap: "100000000.00"
        currency: EUR
        per: agent
        timezone: Europe/Paris
        effect: REJECT
"""
_SLOW = 0.001  # seconds that a slowed sync takes at least
_WARM_UP = 20
_numbers = itertools.count()
_disk_sync = sqlite._fdatasync


@dataclass(frozen=True, slots=True)
class Disk:
    """How syncs behave: as they are, or slowed to a millisecond."""

    slowed: bool

    def __str__(self) -> str:
        return "1 ms syncs" if self.slowed else "disk as it is"

    def sync(self, file: int) -> None:
        """Make a file's data durable."""
        if not self.slowed:
            _disk_sync(file)
            return
        started = time.perf_counter()
        _disk_sync(file)
        left = _SLOW - (time.perf_counter() - started)
        if left > 0:
            time.sleep(left)


def fresh(directory: Path) -> Path:
    """An empty directory of its own."""
    path = directory / f"{os.getpid()}-{next(_numbers)}"
    path.mkdir(parents=True)
    return path


@contextmanager
def opened(directory: Path, disk: Disk, agent: str = "cs-agent") -> Iterator[AgentLattice]:
    """A client on the database in `directory`, warmed up."""
    policies = directory / "policies.yaml"
    if not policies.exists():
        policies.write_text(POLICY, encoding="utf-8")
    sqlite._fdatasync = disk.sync
    try:
        with AgentLattice.embedded(directory / "governance.db", policies=policies, agent=agent) as al:
            for _ in range(_WARM_UP):
                act(al)
            yield al
    finally:
        sqlite._fdatasync = _disk_sync


def _fields() -> dict[str, Any]:
    return {
        "amount": "0.01",
        "currency": "EUR",
        "metadata": {"order": f"A-{next(_numbers)}", "reason": "damaged on arrival"},
    }


def act(al: AgentLattice) -> None:
    """One durable governed action."""
    result = al.execute_sync(ACTION, **_fields())
    assert result.status == "executed", result


async def _act(al: AgentLattice) -> None:
    result = await al.execute(ACTION, **_fields())
    assert result.status == "executed", result


def bytes_per_action(directory: Path) -> int:
    """How many bytes one action adds to the tables."""
    where = fresh(directory)
    with opened(where, Disk(False)):
        pass
    connection = apsw.Connection(str(where / "governance.db"))
    entries = (
        "SELECT avg(length(body) + length(leaf) + length(salt) + length(payload)) FROM entries "
        'WHERE instr(body, CAST(\'"kind":"action"\' AS BLOB))'
    )
    state = "SELECT avg(length(kind) + length(key) + length(value)) FROM state WHERE kind = 'action'"
    ((entry,),) = connection.execute(entries)
    ((document,),) = connection.execute(state)
    connection.close()
    return int(entry + document)


def raw_rate(directory: Path, disk: Disk, size: int, seconds: float, rows: int = 1) -> float:
    """Rows a second, `rows` of `size` bytes in each durable commit, one caller."""
    path = str(fresh(directory) / "raw.db")
    connection = apsw.Connection(path)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", 1 if disk.slowed else 2)
    connection.execute("CREATE TABLE rows (i INTEGER PRIMARY KEY, content BLOB)")
    log = os.open(f"{path}-wal", os.O_RDWR)
    content = os.urandom(size)
    insert = "INSERT INTO rows (content) VALUES (?)"

    def commit() -> None:
        if rows == 1:
            connection.execute(insert, (content,))
        else:
            with connection:
                connection.executemany(insert, [(content,)] * rows)
        if disk.slowed:
            disk.sync(log)

    try:
        return rows * _rate(commit, seconds)
    finally:
        os.close(log)
        connection.close()


def _rate(run: Callable[[], object], seconds: float) -> float:
    for _ in range(3):
        run()
    started = time.perf_counter()
    for done in itertools.count(1):  # noqa: B007 - the loop is the count
        run()
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            break
    return done / elapsed


def single_rate(al: AgentLattice, seconds: float) -> float:
    """Actions a second of one caller."""
    return _rate(lambda: act(al), seconds)


def threaded_rate(al: AgentLattice, callers: int, seconds: float) -> float:
    """Actions a second of that many threads."""
    if callers == 1:
        return single_rate(al, seconds)
    return threads_rate([lambda: act(al)] * callers, seconds)


def threads_rate(calls: Sequence[Callable[[], object]], seconds: float) -> float:
    """Calls a second, a thread for each of `calls`, made again and again."""
    done = [0] * len(calls)
    start, stop = threading.Barrier(len(calls) + 1), threading.Event()

    def work(position: int) -> None:
        start.wait()
        while not stop.is_set():
            calls[position]()
            done[position] += 1

    threads = [threading.Thread(target=work, args=(position,)) for position in range(len(calls))]
    for thread in threads:
        thread.start()
    start.wait()
    started = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - started)


def asynchronous_rate(al: AgentLattice, callers: int, seconds: float) -> float:
    """Actions a second of that many asyncio tasks on one loop."""

    async def run() -> float:
        done, started = 0, time.perf_counter()

        async def call() -> None:
            nonlocal done
            while time.perf_counter() - started < seconds:
                await _act(al)
                done += 1

        await asyncio.gather(*(call() for _ in range(callers)))
        return done / (time.perf_counter() - started)

    return asyncio.run(run())


@dataclass(frozen=True, slots=True)
class Shares:
    """What several processes on one file got done: together, the slowest beside the busiest, and how long one waits.

    `rate` in actions a second, waits in milliseconds, `fairness` the slowest over the busiest.
    """

    rate: float
    fairness: float
    wait_p999: float
    wait_worst: float


def process_shares(directory: Path, disk: Disk, processes: int, seconds: float) -> Shares:
    """That many processes on one file, one caller each, begun at the same moment."""
    where = fresh(directory)
    with opened(where, disk):
        pass
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    start = context.Barrier(processes)
    workers = [
        context.Process(target=_work, args=(where, disk, position, seconds, start, answers))
        for position in range(processes)
    ]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    waits = sorted(wait for one in found for wait in one)
    counts = [len(one) for one in found]
    return Shares(
        sum(counts) / seconds,
        min(counts) / max(counts),
        waits[min(len(waits) - 1, int(len(waits) * 0.999))] * 1000,
        waits[-1] * 1000,
    )


def _work(where: Path, disk: Disk, position: int, seconds: float, start: Any, answers: Any) -> None:
    waits: list[float] = []
    with opened(where, disk, f"agent-{position}") as al:
        start.wait()
        end = time.perf_counter() + seconds
        while (before := time.perf_counter()) < end:
            act(al)
            waits.append(time.perf_counter() - before)
        answers.put(waits)
        start.wait()  # nobody closes while others still measure
