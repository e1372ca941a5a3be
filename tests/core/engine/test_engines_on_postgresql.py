"""What the engine promises, on PostgreSQL: many organisations, many nodes, one signer at a time, tampering found."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from agentlattice_core import AgentLattice, InvalidRequestError, NotRecordedError, StoreError
from agentlattice_core.audit.cuts import Cut
from agentlattice_core.clock import SystemClock
from agentlattice_core.engine import Engine, open_engine, organisations, release
from agentlattice_core.metering import Measured
from agentlattice_core.principals import Operator
from agentlattice_core.rebuilding import rebuild_state
from agentlattice_core.restoring import accept_restore, found_restore
from agentlattice_core.stores import postgres_schema
from agentlattice_core.stores.postgres import PostgresStore
from agentlattice_core.waiting import until_resolved_sync

SPENDER = Path(__file__).parents[1] / "durability" / "spender.py"
CAPPED = """
version: 1
policies:
  - name: Refunds
    action: refund.issue
    effect: allow
    rules:
      - {priority: 40, type: DAILY_CAP, cap: "100", currency: EUR, timezone: Etc/GMT+12, effect: REJECT}
"""

Opens = Callable[..., AgentLattice]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "signing.key"


@pytest.fixture
def on_postgres(postgres_url: str, policies: Path, key: Path) -> Iterator[Opens]:
    """Opens clients on one organisation; closes what the test leaves open."""
    clients: list[AgentLattice] = []

    def open_client(**options: Any) -> AgentLattice:
        options = {"organisation": "acme", "signing_key": key, "agent": "ci", "policies": policies, **options}
        clients.append(AgentLattice.embedded(postgres_url, **options))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


@pytest.fixture
def node(postgres_url: str, key: Path) -> Iterator[Callable[[], Engine]]:
    """Opens an engine of its own, as another node does."""
    engines: list[Engine] = []

    def open_one() -> Engine:
        engines.append(Engine(PostgresStore(postgres_url, "acme"), SystemClock(), key))
        return engines[-1]

    yield open_one
    for engine in engines:
        engine.close()


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    """Do to the database what its administrator can."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []


def test_a_cap_is_exact_over_processes_and_restarts(postgres_url: str, tmp_path: Path) -> None:
    """Four processes of eight threads that begin at the same moment, on a database without tables, twice."""
    (tmp_path / "policies.yaml").write_text(CAPPED)
    allowed = 0
    for tries in ("2", "3"):
        processes = [
            subprocess.Popen(
                [sys.executable, str(SPENDER), postgres_url, "policies.yaml", "", tries],
                stdout=subprocess.PIPE,
                cwd=tmp_path,
            )
            for _ in range(4)
        ]
        for process in processes:
            output, _ = process.communicate(timeout=200)
            assert process.returncode == 0
            allowed += int(output)
    assert allowed == 100
    (organisation,) = organisations(postgres_url)
    with AgentLattice.embedded(
        postgres_url, operator="auditor", signing_key=tmp_path / f"{organisation}.key"
    ) as al:
        assert al.verify_sync().chain_valid
        assert al.verify_state_sync() == []


def test_organisations_share_a_database_and_nothing_else(postgres_url: str, tmp_path: Path) -> None:
    """Each has its log, its state, its key; closing one leaves the other; none is opened for want of a name."""
    assert organisations(postgres_url) == []
    one = open_engine(postgres_url, signing_key=tmp_path / "one.key", organisation="one")
    assert open_engine(postgres_url, organisation="one") is one
    assert open_engine(postgres_url) is one
    two = open_engine(postgres_url, signing_key=tmp_path / "two.key", organisation="two")
    assert organisations(postgres_url) == ["one", "two"]
    one.run(lambda batch: batch.record("log", {"system": "open"}, {"event": "state_rebuilt"}))
    with one.read() as reader, two.read() as other:
        assert (reader.head.size, other.head.size) == (2, 1)
        assert other.row(1) is None
        assert [b'"log":"two"' in row[1] for row in other.rows()] == [True]
        assert list(other.strays()) == []
    for _ in range(3):
        release(one)
    two.run(lambda batch: batch.record("log", {"system": "open"}, {"event": "state_rebuilt"}))
    release(two)
    with pytest.raises(StoreError, match="name one"):
        open_engine(postgres_url)


def test_a_decision_of_another_node_wakes_who_waits(
    node: Callable[[], Engine], on_postgres: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told at once: nobody has to look at the log by themselves."""
    monkeypatch.setattr(PostgresStore, "poll", (1000.0, 1000.0))
    monkeypatch.setattr("agentlattice_core.waiting._LONGEST_NAP", 1000.0)
    here, there = node(), on_postgres()
    approval_id = there.execute_sync("deploy.prod").approval_id
    assert approval_id is not None
    woken: list[Any] = []
    waiting = threading.Thread(target=lambda: woken.append(until_resolved_sync(here, approval_id, 600)))
    listening = threading.Event()
    ring = here.follower._bell.set
    monkeypatch.setattr(here.follower._bell, "set", lambda: (ring(), listening.set()))
    waiting.start()
    assert listening.wait(60)
    with there.for_operator("k.chen@acme.com") as lead:
        lead.approve_action_sync(approval_id)
    waiting.join(60)
    assert [document["status"] for document in woken] == ["approved"]


def test_whoever_waits_when_the_transaction_opens_is_served_in_it(
    node: Callable[[], Engine], postgres_url: str
) -> None:
    """While another node writes, one caller leads and others queue behind it: all of them share one commit."""
    engine, batches = node(), []

    class Counts:
        def batch(self, measured: Measured) -> None:
            batches.append(len(measured.answers))

    engine.measure(Counts())
    ((log,),) = ask(postgres_url, "SELECT id FROM agentlattice.logs")
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s, %s)", (postgres_schema.HEADS, log))
        threads = [threading.Thread(target=engine.run, args=(lambda batch: batch.at,)) for _ in range(9)]
        threads[0].start()
        while not ask(postgres_url, "SELECT 1 FROM pg_locks WHERE NOT granted"):
            pass
        for thread in threads[1:]:
            thread.start()
        while engine.waiting < 8:
            pass
    for thread in threads:
        thread.join()
    assert batches == [9]


def test_one_node_signs_at_a_time_and_another_takes_over(node: Callable[[], Engine]) -> None:
    """Whoever finds another at it leaves it alone, and signs once that one has ended, died or lost its connection."""
    one, two = node(), node()
    one.run(lambda batch: batch.record("log", {"system": "open"}, {"event": "state_rebuilt"}))
    with one.store.signing() as ours:
        assert ours
        assert not two.notary.sign_unless_another_does()
        with two.store.signing(wait=False) as theirs:
            assert not theirs
    assert two.notary.sign_unless_another_does()
    assert two.notary.signed == 2


def test_a_signer_that_dies_lets_go(node: Callable[[], Engine], postgres_url: str) -> None:
    """Killed while it signs: the lock goes with its connection."""
    engine = node()
    held, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with PostgresStore(postgres_url, "acme").signing():
            os.write(tell, b"held")
            threading.Event().wait(600)
            os._exit(0)
    assert os.read(held, 4) == b"held"
    assert not engine.notary.sign_unless_another_does()
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert engine.notary.sign() is not None


def test_many_nodes_that_start_at_once_make_one_database(postgres_url: str) -> None:
    stores: list[PostgresStore] = []
    threads = [
        threading.Thread(target=lambda: stores.append(PostgresStore(postgres_url, "acme"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 8
    assert {store._log for store in stores} == {1}
    for store in stores:
        store.close()


def test_a_database_of_a_newer_release_is_left_alone(postgres_url: str, on_postgres: Opens) -> None:
    """At opening, and by a node that was running when the newer one came."""
    running = on_postgres()
    ask(postgres_url, "UPDATE agentlattice.schema_version SET version = 99")
    with pytest.raises(StoreError, match="newer release"):
        PostgresStore(postgres_url, "acme")
    with pytest.raises(NotRecordedError, match="upgrade this node"):
        running.execute_sync("pr.open", metadata={"pr_size": 1})
    version = postgres_schema.SCHEMA_VERSION
    ask(postgres_url, f"UPDATE agentlattice.schema_version SET version = {version}")
    assert running.execute_sync("pr.open", metadata={"pr_size": 1}).status == "executed"


def test_a_database_of_an_older_release_is_brought_forward(
    postgres_url: str, on_postgres: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step once, in order; what was recorded stays."""
    before = on_postgres()
    before.execute_sync("pr.open", metadata={"pr_size": 1})
    before.close()
    version = postgres_schema.SCHEMA_VERSION
    steps = [*postgres_schema._STEPS, "CREATE TABLE agentlattice.added ()", "DROP TABLE agentlattice.added"]
    monkeypatch.setattr(postgres_schema, "_STEPS", steps)
    monkeypatch.setattr(postgres_schema, "SCHEMA_VERSION", version + 2)
    for _ in range(2):
        store = PostgresStore(postgres_url, "acme")
        with store.read() as reader:
            assert reader.head.size > 1
            assert list(reader.strays()) == []
        store.close()
    assert ask(postgres_url, "SELECT version FROM agentlattice.schema_version") == [(version + 2,)]


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        ("CREATE TABLE agentlattice.notes ()", "table `notes`"),
        ("ALTER TABLE agentlattice.state ADD COLUMN note text", "column `state.note`"),
        ("CREATE RULE keep AS ON DELETE TO agentlattice.state DO INSTEAD NOTHING", "rule `keep`"),
        ("CREATE VIEW agentlattice.look AS SELECT 1", "view `look`"),
        (
            "INSERT INTO agentlattice.entries SELECT log, 4000, body, leaf FROM agentlattice.entries LIMIT 1",
            "3999",
        ),
        ("INSERT INTO agentlattice.tiles VALUES (1, 0, 7, 'x')", "tile 0/7"),
    ],
)
def test_what_does_not_belong_is_found(postgres_url: str, on_postgres: Opens, edit: str, named: str) -> None:
    al = on_postgres()
    assert al.verify_sync().chain_valid
    ask(postgres_url, edit)
    problem = al.verify_sync().problem
    assert problem is not None
    assert named in problem


def test_state_that_was_edited_is_found_and_made_anew(postgres_url: str, on_postgres: Opens) -> None:
    """By nodes that have it cached, too: what they write next does not hide it."""
    al = on_postgres()
    al.execute_sync("refund.issue", amount="10", currency="EUR")
    ask(postgres_url, "UPDATE agentlattice.state SET value = '{\"used\":\"0\"}' WHERE kind = 'limit'")
    (difference,) = al.verify_state_sync()
    assert difference.kind == "limit"
    mended = rebuild_state(al._engine, Operator("root", "admin", frozenset()), "it was edited")
    assert [one.kind for one in mended] == ["limit"]
    assert al.verify_state_sync() == []
    assert al.verify_sync().chain_valid


def test_an_older_copy_is_refused_until_somebody_accepts_it(
    postgres_url: str, on_postgres: Opens, key: Path
) -> None:
    """What was signed lies outside the database: a copy put back is noticed by whoever opens it."""
    al = on_postgres()
    saved = "CREATE TABLE public.saved_{0} AS SELECT * FROM agentlattice.{0}"
    tables = ("logs", "entries", "state", "checkpoints")
    for table in tables:
        ask(postgres_url, saved.format(table))
    al.execute_sync("pr.open", metadata={"pr_size": 1})
    al.checkpoint_sync()
    al.close()
    columns = "UPDATE agentlattice.logs SET (leaf, at, frontier) = (SELECT leaf, at, frontier FROM public.saved_logs)"
    ask(postgres_url, columns)
    for table in tables[1:]:
        ask(postgres_url, f"DELETE FROM agentlattice.{table}")
        ask(postgres_url, f"INSERT INTO agentlattice.{table} SELECT * FROM public.saved_{table}")
    with pytest.raises(NotRecordedError, match="not the one that was signed"):
        on_postgres()
    engine = open_engine(postgres_url, organisation="acme", signing_key=key)
    try:
        admin = Operator("root", "admin", frozenset())
        cut = accept_restore(engine, admin, "the disk died", found_restore(engine).confirmation)
        assert isinstance(cut, Cut)
    finally:
        release(engine)
    assert on_postgres().execute_sync("pr.open", metadata={"pr_size": 1}).status == "executed"


def test_a_url_that_cannot_be_used_is_said_so_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as refused:
        open_engine(f"postgresql://me:hunter2@/nothing?host={tmp_path}")
    assert "hunter2" not in refused.value.message
    assert str(tmp_path) in refused.value.message
    with pytest.raises(InvalidRequestError) as unreadable:
        open_engine("postgresql://me:hunter2@host:no-port/x?sslmode")
    assert "hunter2" not in unreadable.value.message


def test_without_the_driver_one_is_told_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from agentlattice_core.engine import open_engine\n"
        "open_engine(sys.argv[1]).close()\n"
        "open_engine('postgresql://host/database')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "governance.db")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pip install 'agentlattice-integrations[server]'" in done.stderr
