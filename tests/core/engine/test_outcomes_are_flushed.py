"""`flush` promises that everything posted before it is durable, also what another thread is just writing."""

from __future__ import annotations

import threading
import time

from agentlattice_core import AgentLattice
from agentlattice_core.stores.sqlite import SQLiteStore


def test_flush_waits_for_outcomes_that_somebody_else_is_writing(opened, monkeypatch) -> None:
    al: AgentLattice = opened()
    event = al.execute_sync("pr.open", metadata={"pr_size": 1}).audit_event_id
    taken, go_on = threading.Event(), threading.Event()
    commit = SQLiteStore.transact

    def slow(self, work, on_commit=None, offer=None):
        if threading.current_thread().name == "slow":
            taken.set()
            go_on.wait(60)
        return commit(self, work, on_commit, offer)

    monkeypatch.setattr(SQLiteStore, "transact", slow)
    al.record_outcome(event, "succeeded")
    writer = threading.Thread(target=al.flush, name="slow")
    writer.start()
    assert taken.wait(60)
    began = time.monotonic()
    threading.Timer(0.2, go_on.set).start()
    al.flush()
    assert al.audit_sync().events[0].claim == "succeeded"
    assert time.monotonic() - began > 0.1  # it had something to wait for
    writer.join()
