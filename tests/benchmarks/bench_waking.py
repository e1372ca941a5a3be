"""How soon a waiter wakes after a person has decided, and what waiting costs.

- From the moment `approve_action` has returned, which is after its commit is durable, to the moment the waiter has the
  decision in hand. A waiter of the same process may be there first; that counts as zero.
- Across processes the decider waits until the waiter's polling has slowed down as far as it goes.
"""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from load import fresh
from measurement import Bar, Measurement, Scale

from agentlattice_core import AgentLattice
from agentlattice_core.waiting import until_resolved_sync

__all__ = ["measure"]

_POLICY = "version: 1\npolicies:\n  - {name: Deploys, action: deploy.run, effect: require_approval}\n"
_SETTLING = 0.4  # seconds in which polling slows down


def measure(directory: Path, scale: Scale) -> Iterator[Measurement]:
    """Milliseconds to wake, and the processor time of waiting."""
    rounds = 40 if scale == "full" else 2
    where = fresh(directory)
    (where / "policies.yaml").write_text(_POLICY, encoding="utf-8")
    with _opened(where) as al, al.for_operator("lead") as lead:
        here = [_woken_here(al, lead) for _ in range(rounds)]
        yield Measurement("waking in the same process, median", statistics.median(here), "ms")
        there = _woken_there(al, lead, where, rounds)
        bar = Bar("at most", 100, of="value")
        yield Measurement("waking in another process, median", statistics.median(there), "ms", bar=bar)
        yield Measurement("waking in another process, worst", max(there), "ms", bar=bar)
        idle = _idle(al, lead, 5.0 if scale == "full" else 0.2)
        yield Measurement("processor time of an idle waiter", idle, "% of a core")


def _opened(where: Path) -> AgentLattice:
    return AgentLattice.embedded(where / "governance.db", policies=where / "policies.yaml", agent="ci")


def _requested(al: AgentLattice) -> str:
    approval_id = al.execute_sync("deploy.run").approval_id
    assert approval_id is not None
    return approval_id


def _wait(al: AgentLattice, approval_id: str) -> float:
    document = until_resolved_sync(al._engine, approval_id, 30.0)
    assert document["status"] == "approved", document
    return time.perf_counter()


def _woken_here(al: AgentLattice, lead: AgentLattice) -> float:
    approval_id = _requested(al)
    woken: list[float] = []
    waiter = threading.Thread(target=lambda: woken.append(_wait(al, approval_id)))
    waiter.start()
    time.sleep(0.05)
    lead.approve_action_sync(approval_id)
    decided = time.perf_counter()
    waiter.join()
    return max(0.0, woken[0] - decided) * 1000


def _woken_there(al: AgentLattice, lead: AgentLattice, where: Path, rounds: int) -> list[float]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    other = context.Process(target=_wait_for_many, args=(where, theirs))
    other.start()
    found = []
    for _ in range(rounds):
        approval_id = _requested(al)
        ours.send(approval_id)
        ours.recv()
        time.sleep(_SETTLING)
        lead.approve_action_sync(approval_id)
        decided = time.perf_counter()  # one clock for all processes of a machine
        found.append(max(0.0, ours.recv() - decided) * 1000)
    ours.send(None)
    other.join()
    return found


def _wait_for_many(where: Path, pipe: Any) -> None:
    with _opened(where) as al:
        while (approval_id := pipe.recv()) is not None:
            pipe.send("waiting")
            pipe.send(_wait(al, approval_id))


def _idle(al: AgentLattice, lead: AgentLattice, seconds: float) -> float:
    approval_id = _requested(al)
    waiter = threading.Thread(target=_wait, args=(al, approval_id))
    waiter.start()
    time.sleep(_SETTLING)
    started = time.process_time()
    time.sleep(seconds)
    used = time.process_time() - started
    lead.approve_action_sync(approval_id)
    waiter.join()
    return used / seconds * 100
