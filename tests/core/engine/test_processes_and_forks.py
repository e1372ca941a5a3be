"""One file, many processes: forks, spawns, threads that start and end, clients that close."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agentlattice_core import AgentLattice, ForbiddenError, GovernanceEvent, NotRecordedError, StoreError
from agentlattice_core import engine as engine_module
from agentlattice_core.audit.signer import FileSigner


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
            thread.join(60)
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


def _fork_and_wait() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("closing", ["client", "fork"])
def test_what_was_recorded_when_the_file_was_closed_is_answered(
    opened, monkeypatch: pytest.MonkeyPatch, closing: str
) -> None:
    """Another thread closes the client, or forks, between a commit and its sync. The file is closed with everything on
    the disk, so that the action is recorded, and its caller holds the claim and knows it.
    """
    al = opened()
    other = al.for_agent("other")
    store = al._opened.store
    sync, closes = store.sync, [al.close if closing == "client" else _fork_and_wait]

    def closed_meanwhile() -> None:
        if closes:
            thread = threading.Thread(target=closes.pop())
            thread.start()
            thread.join()
        sync()

    monkeypatch.setattr(store, "sync", closed_meanwhile)
    answered = other.execute_sync("pr.open", metadata={"pr_size": 1})
    assert answered.claim == "started"
    with opened(agent="other") as again:
        assert [event.id for event in again.audit_sync().events] == [answered.audit_event_id]


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


def test_an_operator_hears_everything_in_order_whoever_wrote_it(opened, tmp_path: Path) -> None:
    al = opened(clock=None)
    operator = al.for_operator("ana")
    heard: list[tuple[str, str]] = []
    done = threading.Event()

    def listen(event) -> None:
        heard.append((event.event_type, event.data.get("action_type", "")))
        if event.event_type == "approval.requested":
            done.set()

    operator.subscribe_sync(al.org_id, listen)
    al.execute_sync("pr.open", metadata={"pr_size": 1})
    script = (
        "import sys; from agentlattice_core import AgentLattice\n"
        "al = AgentLattice.embedded(sys.argv[1], agent='other')\n"
        "al.execute_sync('secret.read'); al.execute_sync('deploy.x')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "governance.db")], check=True, timeout=60)
    assert done.wait(60)
    assert heard == [
        ("action.executed", "pr.open"),
        ("action.denied", "secret.read"),
        ("approval.requested", "deploy.x"),
    ]
    operator.close()


def test_an_agent_hears_of_its_own_actions_and_of_policy_and_of_nothing_else(
    opened, tmp_path: Path, policies: Path
) -> None:
    """What another agent does, asks for and is answered is not its business, whichever events it names."""
    al = opened(clock=None)
    other, operator = al.for_agent("other"), al.for_operator("ana")
    heard: list[tuple[str, str | None]] = []
    done = threading.Event()

    def listen(event: GovernanceEvent) -> None:
        heard.append((event.event_type, event.data.get("action_type")))
        if event.event_type == "policy.changed":
            done.set()

    al.subscribe_sync(al.org_id, listen)
    for client in (other, al):
        client.execute_sync("secret.read")
        asked = client.execute_sync("deploy.x")
        operator.approve_action_sync(asked.approval_id)
        client.claim_sync(asked.audit_event_id)
        client.cancel_sync(client.execute_sync("deploy.y").audit_event_id)
    policies.write_text(policies.read_text().replace("value: 50", "value: 60"))
    operator.apply_policies_sync(policies)
    assert done.wait(60)
    assert heard == [
        ("action.denied", "secret.read"),
        ("approval.requested", "deploy.x"),
        ("approval.resolved", "deploy.x"),
        ("action.executed", None),
        ("approval.requested", "deploy.y"),
        ("approval.resolved", "deploy.y"),
        ("policy.changed", None),
    ]
    with pytest.raises(ForbiddenError, match="`ci` hears of its own actions only"):
        al.subscribe_sync(al.org_id, listen, agent_filter=other.whoami_sync().config_id)
    al.subscribe_sync(al.org_id, listen, agent_filter=al.whoami_sync().config_id)
    other.close()
    operator.close()


def test_a_subscriber_that_raises_does_not_stop_the_others(al: AgentLattice) -> None:
    heard = threading.Event()

    def broken(event) -> None:
        raise RuntimeError("subscriber")

    al.subscribe_sync(al.org_id, broken)
    al.subscribe_sync(al.org_id, lambda event: heard.set(), events=["action.denied"])
    al.execute_sync("secret.read")
    assert heard.wait(60)


@pytest.mark.parametrize("what", ["governance.db", "governance.db-wal"])
def test_a_file_removed_while_it_is_open_is_refused_and_not_written_into_nothing(
    al: AgentLattice, tmp_path: Path, what: str
) -> None:
    """What is written to a file without a name is gone with the process, so it is no answer."""
    al.execute_sync("pr.open", metadata={"pr_size": 1})
    (tmp_path / what).rename(tmp_path / "aside")
    with pytest.raises(NotRecordedError, match="removed or replaced"):
        al.execute_sync("pr.open", metadata={"pr_size": 1})
    (tmp_path / "aside").rename(tmp_path / what)
    assert al.execute_sync("pr.open", metadata={"pr_size": 1}).status == "executed"


def test_opening_a_file_twice_keeps_the_locks_of_the_first(opened, tmp_path: Path) -> None:
    """The system drops a process's locks on a file when any handle on it is closed, and without SQLite's own lock
    another process may take itself for the last one and remove the write-ahead log from under us.
    """
    one, other = opened(), opened(clock=None)  # two clocks, so two stores
    others_claim = (
        "import fcntl, os, sys\n"
        "file = os.open(sys.argv[1], os.O_RDWR)\n"
        "shared = 0x40000000 + 2  # where SQLite's readers lock, 510 bytes\n"
        "try: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, shared)\n"
        "except OSError: print('held')\n"
    )
    command = [sys.executable, "-c", others_claim, str(tmp_path / "governance.db")]
    assert subprocess.run(command, check=True, timeout=60, capture_output=True).stdout == b"held\n"
    for client in (one, other):
        assert client.execute_sync("pr.open", metadata={"pr_size": 1}).status == "executed"


def test_a_subscriber_that_joins_hears_all_from_then_on_and_nothing_before(al: AgentLattice) -> None:
    """Also while the log is being read for others."""
    follower = al._opened.follower
    reading, go_on = threading.Event(), threading.Event()
    heard: list[str] = []

    def slow(event: GovernanceEvent) -> None:
        reading.set()
        assert go_on.wait(60)

    al.subscribe_sync(al.org_id, slow)
    al.execute_sync("pr.open", metadata={"pr_size": 1})
    assert reading.wait(60)
    for _ in range(3):
        al.execute_sync("pr.open", metadata={"pr_size": 2})
    late = al.for_operator("late")
    done = threading.Event()

    def listen(event: GovernanceEvent) -> None:
        heard.append(event.data["action_type"])
        if len(heard) == 4:
            done.set()

    late.subscribe_sync(al.org_id, listen)
    for action_type in ("deploy.a", "deploy.b", "deploy.c", "deploy.d"):
        al.execute_sync(action_type)
    go_on.set()
    assert done.wait(60)
    assert heard == ["deploy.a", "deploy.b", "deploy.c", "deploy.d"]
    assert follower._cursor > 0
    late.close()


def test_a_disturbance_does_not_end_the_following_of_the_log(
    al: AgentLattice, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = threading.Event()
    al.subscribe_sync(al.org_id, lambda event: heard.set())
    store = al._opened.store
    disturbed = threading.Event()
    read = store.read

    def fails() -> Any:
        if threading.current_thread().name == "agentlattice-follower" and not disturbed.is_set():
            disturbed.set()
            raise OSError(5, "Input/output error")
        return read()

    monkeypatch.setattr(store, "read", fails)
    al.execute_sync("pr.open", metadata={"pr_size": 1})
    assert disturbed.wait(60)
    assert heard.wait(60)


def test_a_child_forked_while_every_lock_is_held_goes_on(al: AgentLattice) -> None:
    """Locks that a thread of the parent held stay locked in the child, where that thread does not run."""
    engine = al._opened
    locks = [engine._sequencer._mutex, engine.policies._lock, engine.follower._lock, engine.keeper._wake]
    for lock in locks:
        lock.acquire()
    with engine_module._engines_lock:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                answers: list[str] = []

                def act() -> None:
                    answers.append(al.execute_sync("pr.open", metadata={"pr_size": 1}).status)
                    al.subscribe_sync(al.org_id, print)
                    al.for_agent("child").close()

                threads = [threading.Thread(target=act, daemon=True) for _ in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(60)
                status = 0 if answers == ["executed"] * 4 else 1
            finally:
                os._exit(status)
    for lock in locks:
        lock.release()
    assert os.waitpid(pid, 0)[1] == 0
    assert al.execute_sync("pr.open", metadata={"pr_size": 1}).status == "executed"


def test_processes_that_begin_a_log_together_do_not_suspect_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process begins, signs and writes between this one's look at the signer and its look at the log."""
    script = (
        "import sys; from agentlattice_core import AgentLattice\n"
        "with AgentLattice.embedded(sys.argv[1], agent='other') as al: al.execute_sync('pr.open')\n"
    )
    path, begun, last = tmp_path / "governance.db", [], FileSigner.last

    def last_of_then(signer: FileSigner) -> str:
        note = last(signer)
        if not begun:
            begun.append(1)
            subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=60)
        return note

    monkeypatch.setattr(FileSigner, "last", last_of_then)
    with AgentLattice.embedded(path, agent="ci") as al:
        assert al.execute_sync("pr.open").status == "policy_not_found"


NEVER_CLOSED = """
import atexit, logging, os, sys, threading
from agentlattice_core import AgentLattice

logging.basicConfig()
al = AgentLattice.embedded(sys.argv[1], agent="ci")
al.execute_sync("pr.open")
child = os.fork()
if child:
    os.waitpid(child, 0)
    os._exit(0)

def refuse(self):
    raise RuntimeError("can't create new thread at interpreter shutdown")

atexit.register(setattr, threading.Thread, "start", refuse)
"""


def test_a_client_that_was_never_closed_ends_with_its_process_in_silence(tmp_path: Path) -> None:
    """At exit newer interpreters begin no thread. What is outstanding is signed all the same, and nothing is said."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NEVER_CLOSED, str(tmp_path / "governance.db")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr == ""
    with AgentLattice.embedded(tmp_path / "governance.db", agent="ci") as al:
        result = al.verify_sync()
        assert (result.chain_valid, result.problem) == (True, None)
