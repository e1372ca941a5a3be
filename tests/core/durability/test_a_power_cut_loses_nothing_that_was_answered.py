"""Whatever the disk forgets at a power cut, no answered action, no limit and no claim is lost or doubled."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import apsw
import pytest
from power import Disk, Mark

from agentlattice_core import AgentLattice
from agentlattice_core.clock import SystemClock
from agentlattice_core.engine import Engine
from agentlattice_core.stores import backlog
from agentlattice_core.stores.sqlite import SQLiteStore

POLICIES = """
version: 1
policies:
  - name: Refunds
    action: refund.issue
    effect: allow
    rules:
      - {priority: 40, type: DAILY_CAP, cap: "1000000.00", currency: EUR, per: agent, timezone: UTC, effect: REJECT}
  - {name: Deploys, action: deploy.*, effect: require_approval}
"""


@contextmanager
def client(directory: Path, disk: Disk | None = None, **identity: Any) -> Iterator[AgentLattice]:
    """A client with a store of its own, as another process would have, on the recorded disk if one is given."""
    store = SQLiteStore(
        directory / "governance.db",
        new_log_id=lambda: "org_power",
        **({"vfs": disk.vfs_name, "fsync": disk.fsync} if disk is not None else {}),
    )
    engine = Engine(store, SystemClock(), directory / "signing.key")
    engine.users = 1
    al = AgentLattice._over(engine, "enforce", 1000)
    own = al.for_agent("ci") if "operator" not in identity else al.for_operator(identity["operator"])
    try:
        yield own
    finally:
        own.close()
        al.close()


def load(directory: Path, disk: Disk, actions: int) -> None:
    """Two stores on one file, four threads each, recording what each caller was told."""
    (directory / "policies.yaml").write_text(POLICIES)
    with client(directory, disk) as one, client(directory, disk) as other:
        disk.mark(("opened", "", ""))
        one.apply_policies_sync(directory / "policies.yaml")

        def work(al: AgentLattice, name: str) -> None:
            operator = al.for_operator("k.chen")
            for number in range(actions):
                event_id = f"{name}-{number}"
                result = al.execute_sync("refund.issue", amount="1.25", currency="EUR", event_id=event_id)
                disk.mark(("executed", event_id, result.audit_event_id))
                if number % 3 == 0:
                    al.record_outcome(result.audit_event_id, "succeeded")
                if number % 5 == 0:
                    asked = al.execute_sync("deploy.production")
                    assert asked.approval_id is not None
                    operator.approve_action_sync(asked.approval_id)
                    disk.mark(("approved", asked.approval_id, asked.audit_event_id))
                    claimed = al.claim_sync(asked.audit_event_id)
                    assert claimed.claim == "started"
                    disk.mark(("claimed", asked.approval_id, asked.audit_event_id))
            operator.close()

        threads = [
            threading.Thread(target=work, args=(al, f"{place}-{number}"))
            for place, al in (("one", one), ("other", other))
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def check(image: Path, facts: list[Any]) -> None:
    """Raise AssertionError unless everything that was answered is there, and nothing twice."""
    with client(image) as al:
        verified = al.verify_sync()
        assert verified.chain_valid, verified.problem
        assert al.verify_state_sync() == []
        operator = al.for_operator("auditor")
        found, cursor = {}, None
        while True:
            page = operator.audit_sync(cursor=cursor, limit=200)
            found |= {event.id: event for event in page.events}
            cursor = page.next_cursor
            if cursor is None:
                break
        for kind, name, action in facts:
            if kind == "opened":
                continue
            assert action in found, f"{kind} {name} was answered and is lost"
            if kind == "executed":
                again = al.execute_sync("refund.issue", amount="1.25", currency="EUR", event_id=name)
                assert (again.audit_event_id, again.replayed) == (action, True)
            elif kind == "claimed":
                assert found[action].claim == "started"
                assert found[action].approved_by == "k.chen"
        refunds = [event for event in found.values() if event.action_type == "refund.issue"]
        with operator._engine.read() as reader:
            used = [Decimal(document["used"]) for _, document in reader.scan("limit")]
        assert sum(used) == Decimal("1.25") * len(refunds)
        operator.close()


def cuts(tmp_path: Path, disk: Disk, count: int, seed: int) -> int:
    """How many of `count` power cuts lose or double something, from the moment on at which the log was open."""
    chance = random.Random(seed)
    # After the mark, not at it: an image holds the signer's files as of the last mark before the cut.
    opened = 1 + next(i for i, event in enumerate(disk.events) if isinstance(event, Mark))
    broken = 0
    for number in range(count):
        image = tmp_path / f"image-{number}"
        image.mkdir()
        facts = disk.image(chance.randrange(opened, len(disk.events) + 1), chance, image)
        try:
            check(image, facts)
        except Exception as error:
            print(f"seed {seed}, cut {number}: {type(error).__name__}: {error}")
            broken += 1
    return broken


@pytest.fixture(autouse=True)
def _frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "_DUE_PAGES", 40)


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_answered_is_lost_or_doubled(tmp_path: Path, seed: int) -> None:
    disk = Disk(f"disk-{seed}", tmp_path / "live")
    disk.directory.mkdir()
    load(disk.directory, disk, 15)
    assert cuts(tmp_path, disk, 20, seed) == 0


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10, 20))
def test_two_hundred_power_cuts(tmp_path: Path, seed: int) -> None:
    disk = Disk(f"disk-{seed}", tmp_path / "live")
    disk.directory.mkdir()
    load(disk.directory, disk, 25)
    assert cuts(tmp_path, disk, 20, seed) == 0


def test_a_store_that_does_not_sync_is_caught(tmp_path: Path) -> None:
    disk = Disk("disk-lying", tmp_path / "live", lying=True)
    disk.directory.mkdir()
    load(disk.directory, disk, 15)
    assert cuts(tmp_path, disk, 20, 3) > 0


def test_a_store_with_synchronous_off_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store syncs its log, but SQLite syncs nothing when it moves the log into the database."""
    connect = SQLiteStore._connect

    def off(store: SQLiteStore) -> apsw.Connection:
        connection = connect(store)
        connection.pragma("synchronous", 0)
        return connection

    disk = Disk("disk-off", tmp_path / "live")
    disk.directory.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(SQLiteStore, "_connect", off)
        load(disk.directory, disk, 25)
    assert cuts(tmp_path, disk, 20, 4) > 0
