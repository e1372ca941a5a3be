"""PostgreSQL goes away at any moment, comes back, or does not: nothing is lost, doubled, or answered wrongly."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from postgres_proxy import Proxy

from agentlattice_core.errors import NotRecordedError, StoreError
from agentlattice_core.stores.base import Transaction
from agentlattice_core.stores.postgres import PostgresStore
from agentlattice_core.stores.postgres_schema import HEADS
from agentlattice_core.testing.store_contract import append

if TYPE_CHECKING:
    from postgres_server import PostgresServer

_NEVER = -2
_MESSAGES = range(10)
"""More than a transaction has."""


@pytest.fixture
def proxy(postgres_url: str, tmp_path: Path) -> Iterator[Proxy]:
    proxy = Proxy(postgres_url, tmp_path)
    yield proxy
    proxy.close()


@pytest.fixture
def store(proxy: Proxy) -> Iterator[PostgresStore]:
    store = PostgresStore(proxy.url, "org_lost")
    yield store
    store.close()


def count(store: PostgresStore) -> Callable[[Transaction], int]:
    """Adds one to a counter, and an entry to the log."""

    def work(transaction: Transaction) -> int:
        known = transaction.get("k", "counter") or {"n": 0}
        append(transaction, store.log_id, 1, {("k", "counter"): {"n": known["n"] + 1}})
        return int(known["n"])

    return work


def counted(store: PostgresStore) -> tuple[int, int]:
    """What the counter says, and how many entries there are."""
    with store.read() as reader:
        return (reader.get("k", "counter") or {"n": 0})["n"], reader.head.size


@pytest.mark.parametrize("answered", [False, True])
def test_a_connection_cut_at_any_message_loses_and_doubles_nothing(
    store: PostgresStore, proxy: Proxy, answered: bool
) -> None:
    """Before the server gets it, or before its answer comes back; in turn at each message of a transaction."""
    for done, message in enumerate(_MESSAGES):
        told: list[int] = []
        proxy.cut(message, answered=answered)
        assert store.transact(count(store), lambda told=told: told.append(1)) == done  # type: ignore[misc]
        assert told == [1]
        proxy.cut(_NEVER, answered=False)
        assert counted(store) == (done + 1, done + 1)
    proxy.cut(_NEVER, answered=False)
    store.transact(count(store))
    assert 0 < proxy.seen <= len(_MESSAGES), "a transaction has more messages than were cut"


def test_a_commit_whose_answer_is_lost_is_looked_up(store: PostgresStore, proxy: Proxy) -> None:
    """The work is not run again, because the log has what it recorded."""
    runs: list[int] = []

    def work(transaction: Transaction) -> int:
        runs.append(1)
        return count(store)(transaction)

    proxy.cut_commit(answered=True)
    assert store.transact(work) == 0
    assert len(runs) == 1
    proxy.cut_commit(answered=False)
    assert store.transact(work) == 1
    assert len(runs) == 3
    assert counted(store) == (2, 2)


def test_a_commit_of_which_nobody_can_tell_is_said_to_be_one(proxy: Proxy, postgres_url: str) -> None:
    """If the database stays away, whoever waits is told that it may have been recorded."""
    store = PostgresStore(proxy.url, "org_lost", patience=0.2)

    def work(transaction: Transaction) -> None:
        append(transaction, store.log_id, 1, {("k", "counter"): {"n": 1}})
        proxy.cut_commit(answered=True)
        proxy.refuse()

    with pytest.raises(NotRecordedError, match="may have done so"):
        store.transact(work)
    with pytest.raises(StoreError), store.read():
        pass
    store.close()
    directly = PostgresStore(postgres_url, "org_lost")
    assert counted(directly) == (1, 1)
    directly.close()


def test_an_interrupt_during_the_commit_is_raised_after_it_is_known_what_became_of_it(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C as the answer comes: the commit is told, then the interrupt raised."""
    from agentlattice_core.stores.postgres_transaction import PostgresTransaction

    commit = PostgresTransaction.commit

    def interrupted(transaction: PostgresTransaction) -> None:
        commit(transaction)
        transaction.committed = False
        raise KeyboardInterrupt

    told: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(PostgresTransaction, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.transact(count(store), lambda: told.append(1))
    assert told == [1]
    assert store.transact(count(store)) == 1
    assert counted(store) == (2, 2)


def test_a_command_that_is_content_with_a_failed_read_is_not_committed(
    store: PostgresStore, proxy: Proxy
) -> None:
    """Whoever catches the error of a statement: the transaction is run again, not committed without it."""

    def work(transaction: Transaction) -> str:
        if not cut:
            cut.append(1)
            proxy.cut_all()
        try:
            transaction.get("k", "counter")
        except Exception:
            return "gave up"
        append(transaction, store.log_id)
        return "read"

    cut: list[int] = []
    assert store.transact(work) == "read"
    assert counted(store)[1] == 1


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_writers_outlive_a_restart(postgres_server: PostgresServer, postgres_url: str, mode: str) -> None:
    """Stopped in an orderly way or as in a crash, while threads of two nodes write and read."""
    # A crashed server is as long in recovering as the machine is slow.
    stores = [PostgresStore(postgres_url, "org_lost", patience=100) for _ in range(2)]
    stop, done, errors = threading.Event(), list[int](), list[BaseException]()

    def work(store: PostgresStore) -> None:
        try:
            while not stop.is_set():
                done.append(store.transact(count(store)) or 0)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(store,)) for store in stores for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        _wait_for_more(done)
        postgres_server.restart(mode)
    _wait_for_more(done)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(done) == list(range(len(done)))
    assert counted(stores[0]) == (len(done), len(done))
    for store in stores:
        store.close()


@pytest.mark.parametrize("code", ["40001", "40P01", "57014", "25006", "55P03"])
def test_what_passes_is_tried_again(postgres_url: str, store: PostgresStore, code: str) -> None:
    """Serialisation failure, deadlock, timeout, a primary that became a standby, a lock that is held for long."""
    _fail_some_inserts(postgres_url, code, times=3)
    assert store.transact(count(store)) == 0
    assert store.transact(count(store)) == 1
    assert counted(store) == (2, 2)


def test_a_full_disk_is_told_at_once_and_forgiven(postgres_url: str, store: PostgresStore) -> None:
    """What does not pass by itself is no reason to wait; nothing is recorded, and the store goes on."""
    _fail_some_inserts(postgres_url, "53100", times=1)
    with pytest.raises(NotRecordedError, match="made to fail"):
        store.transact(count(store))
    assert counted(store) == (0, 0)
    assert store.transact(count(store)) == 0


def test_a_database_that_takes_no_writes_is_waited_for(
    postgres_server: PostgresServer, postgres_url: str, store: PostgresStore
) -> None:
    """A primary that is demoted, until there is one again."""
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    store.transact(count(store))
    postgres_server.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    postgres_server.cut_connections(postgres_url)
    promoted = threading.Timer(
        0.5, lambda: postgres_server.run(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    )
    promoted.start()
    assert store.transact(count(store)) == 1
    promoted.join()
    assert counted(store) == (2, 2)


def test_who_waits_longer_than_there_is_patience_is_told(postgres_url: str) -> None:
    """Another node that does not let go of the log: nothing is recorded, and once it has gone, the store goes on."""
    store = PostgresStore(f"{postgres_url}&options=-c%20lock_timeout%3D100ms", "org_lost", patience=0.3)
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s, %s)", (HEADS, store._log))
        with pytest.raises(NotRecordedError, match="lock timeout"):
            store.transact(count(store))
    assert store.transact(count(store)) == 0
    store.close()


def test_a_forked_child_makes_connections_of_its_own(store: PostgresStore) -> None:
    """Parent and child go on with the same store, while a thread of the parent is in the middle of a transaction."""
    inside, go_on = threading.Event(), threading.Event()

    def slow(transaction: Transaction) -> None:
        inside.set()
        go_on.wait(60)
        count(store)(transaction)

    thread = threading.Thread(target=lambda: store.transact(slow))
    thread.start()
    inside.wait()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for _ in range(3):
                store.transact(count(store))
            status = 0
        finally:
            os._exit(status)
    go_on.set()
    thread.join()
    for _ in range(3):
        store.transact(count(store))
    assert os.waitpid(pid, 0)[1] == 0
    assert store.transact(count(store)) == 7
    assert counted(store) == (8, 8)


def _fail_some_inserts(url: str, code: str, times: int) -> None:
    """Have the first `times` inserts of entries fail. A sequence counts, which no rollback takes back."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"""
            CREATE SEQUENCE failures;
            CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('public.failures') <= {times} THEN
                    RAISE EXCEPTION 'made to fail' USING ERRCODE = '{code}';
                END IF;
                RETURN NULL;
            END $$;
            CREATE TRIGGER fail AFTER INSERT ON agentlattice.entries FOR EACH STATEMENT EXECUTE FUNCTION fail()
            """  # type: ignore[arg-type]
        )


def _wait_for_more(done: list[int]) -> None:
    before, end = len(done), time.monotonic() + 60
    while len(done) < before + 5:
        assert time.monotonic() < end, "nobody writes any more"
        time.sleep(0.01)
