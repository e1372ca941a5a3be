"""One file, many processes: forks, spawns, threads that start and end, clients that close."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agentlattice_core import AgentLattice, StoreError


def test_a_forked_child_reopens_and_both_go_on(al: AgentLattice) -> None:
    for _ in range(3):
        al.execute_sync("pr.open", metadata={"pr_size": 1})
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for _ in range(5):
                    assert al.execute_sync("pr.open", metadata={"pr_size": 1}).status == "executed"
                status = 0
            finally:
                os._exit(status)
        for _ in range(5):
            assert al.execute_sync("pr.open", metadata={"pr_size": 1}).status == "executed"
        assert os.waitpid(pid, 0)[1] == 0
    assert al.verify_sync().chain_valid
    assert len(al.audit_sync(limit=200).events) == 3 * 11
    assert al.verify_state_sync() == []


def test_a_fork_while_threads_write_loses_nothing(al: AgentLattice) -> None:
    stop = threading.Event()
    written: list[str] = []

    def work() -> None:
        while not stop.is_set():
            written.append(al.execute_sync("pr.open", metadata={"pr_size": 1}).audit_event_id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    children = []
    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                al.execute_sync("pr.open", metadata={"pr_size": 2})
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
        time.sleep(0.02)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 5
    stop.set()
    for thread in threads:
        thread.join()
    operator = al.for_operator("auditor")
    found: set[str] = set()
    cursor = None
    while True:
        page = operator.audit_sync(cursor=cursor, limit=200)
        found |= {event.id for event in page.events}
        cursor = page.next_cursor
        if cursor is None:
            break
    operator.close()
    assert set(written) <= found
    assert len(found) == len(written) + 5
    assert al.verify_sync().chain_valid


async def test_a_forked_child_may_use_async_calls_of_its_own(al: AgentLattice) -> None:
    await al.execute("pr.open", metadata={"pr_size": 1})  # the worker thread now exists, in the parent only
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            import asyncio

            def run() -> None:
                result = asyncio.run(al.execute("pr.open", metadata={"pr_size": 1}))
                assert result.status == "executed"

            thread = threading.Thread(target=run)  # this thread already runs the parent's loop
            thread.start()
            thread.join(20)
            status = 1 if thread.is_alive() else 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert (await al.execute("pr.open", metadata={"pr_size": 1})).status == "executed"


def _decide(path: str) -> None:
    operator = AgentLattice.embedded(path, operator="k.chen")
    while not (waiting := operator.list_pending_approvals_sync()):
        time.sleep(0.01)
    operator.approve_action_sync(waiting[0].id)
    operator.close()


def test_a_decision_in_another_process_wakes_the_gate(opened, tmp_path: Path) -> None:
    al = opened(clock=None)
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_decide, args=(str(tmp_path / "governance.db"),))
    process.start()
    assert al.gate_sync("deploy.production").claim == "started"
    process.join()


def test_clients_of_one_process_share_and_the_last_one_closes(opened, tmp_path: Path) -> None:
    one, other = opened(), opened()
    one.close()
    one.close()
    assert other.execute_sync("pr.open", metadata={"pr_size": 1}).status == "executed"
    other.close()
    with pytest.raises(StoreError, match="closed"):
        other.execute_sync("pr.open", metadata={"pr_size": 1})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.mkdir(), "directory"),
        (lambda path: path.write_bytes(b"not a database at all" * 100), "not a database"),
        (
            lambda path: (path.write_bytes(b""), path.chmod(0o400), path.unlink(), path.parent.rmdir()),
            "no directory",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, make, says: str) -> None:
    path = tmp_path / "sub" / "governance.db"
    path.parent.mkdir()
    make(path)
    with pytest.raises(StoreError, match=says) as raised:
        AgentLattice.embedded(path, agent="ci")
    assert "\n" not in str(raised.value)


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "chinook.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE albums (id)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="something else"):
        AgentLattice.embedded(path, agent="ci")
    assert path.read_bytes() == before


def test_a_file_of_a_newer_release_is_refused(opened, tmp_path: Path) -> None:
    import apsw

    opened().close()
    connection = apsw.Connection(str(tmp_path / "governance.db"))
    connection.pragma("user_version", 99)
    connection.close()
    with pytest.raises(StoreError, match="newer release"):
        opened()


def test_the_database_and_its_key_are_readable_by_their_owner_only(opened, tmp_path: Path) -> None:
    al = opened()
    al.execute_sync("pr.open", metadata={"pr_size": 1})
    al.checkpoint_sync()
    for path in tmp_path.glob("governance.db*"):
        assert path.stat().st_mode & 0o077 == 0, path.name


def test_outcomes_are_flushed_when_the_process_ends_normally(tmp_path: Path, policies: Path) -> None:
    script = (
        "import sys; from agentlattice_core import AgentLattice\n"
        "al = AgentLattice.embedded(sys.argv[1], policies=sys.argv[2], agent='ci')\n"
        "r = al.execute_sync('pr.open', metadata={'pr_size': 1}); al.record_outcome(r.audit_event_id, 'succeeded')\n"
    )
    path = tmp_path / "governance.db"
    subprocess.run([sys.executable, "-c", script, str(path), str(policies)], check=True, timeout=60)
    with AgentLattice.embedded(path, agent="ci") as al:
        assert al.audit_sync().events[0].claim == "succeeded"


def test_subscribers_hear_everything_in_order_whoever_wrote_it(opened, tmp_path: Path) -> None:
    al = opened(clock=None)
    heard: list[tuple[str, str]] = []
    done = threading.Event()

    def listen(event) -> None:
        heard.append((event.event_type, event.data.get("action_type", "")))
        if event.event_type == "approval.requested":
            done.set()

    al.subscribe_sync(al.org_id, listen)
    al.execute_sync("pr.open", metadata={"pr_size": 1})
    script = (
        "import sys; from agentlattice_core import AgentLattice\n"
        "al = AgentLattice.embedded(sys.argv[1], agent='other')\n"
        "al.execute_sync('secret.read'); al.execute_sync('deploy.x')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "governance.db")], check=True, timeout=60)
    assert done.wait(10)
    assert heard == [
        ("action.executed", "pr.open"),
        ("action.denied", "secret.read"),
        ("approval.requested", "deploy.x"),
    ]
    al.unsubscribe_sync()


def test_a_subscriber_that_raises_does_not_stop_the_others(al: AgentLattice) -> None:
    heard = threading.Event()

    def broken(event) -> None:
        raise RuntimeError("subscriber")

    al.subscribe_sync(al.org_id, broken)
    al.subscribe_sync(al.org_id, lambda event: heard.set(), events=["action.denied"])
    al.execute_sync("secret.read")
    assert heard.wait(10)
