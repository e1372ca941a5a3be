"""State that somebody edited is made anew from the log, and from nothing else."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import apsw
import orjson
import pytest

from agentlattice_core import (
    AgentLattice,
    AgentLatticeError,
    AuditError,
    ForbiddenError,
    InvalidRequestError,
)
from agentlattice_core.engine import Engine, open_engine, release
from agentlattice_core.principals import Operator
from agentlattice_core.rebuilding import rebuild_state
from agentlattice_core.stores.sqlite_transaction import SQLiteTransaction
from agentlattice_core.verification import verify, verify_state

POLICIES = """
version: 1
policies:
  - name: Refunds
    action: refund.issue
    effect: allow
    rules:
      - {priority: 40, type: DAILY_CAP, cap: "100.00", currency: EUR, timezone: UTC, effect: REJECT}
  - name: Deploys
    action: deploy.*
    effect: require_approval
"""
ADMIN = Operator("ada", "admin")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A closed database with limits, approvals and claims in its state."""
    (tmp_path / "policies.yaml").write_text(POLICIES)
    path = tmp_path / "governance.db"
    with AgentLattice.embedded(path, policies=tmp_path / "policies.yaml", agent="cs") as al:
        for _ in range(9):
            al.execute_sync("refund.issue", amount="10", currency="EUR")
        al.execute_sync("deploy.staging")
        asked = al.execute_sync("deploy.production")
        with al.for_operator("ana") as ana:
            ana.approve_action_sync(asked.approval_id)
    return path


@pytest.fixture
def engine(database: Path) -> Iterator[Callable[[], Engine]]:
    """Opens the engine of the database; closes what the test leaves open."""
    opened: list[Engine] = []

    def open_one() -> Engine:
        opened.append(open_engine(database))
        return opened[-1]

    yield open_one
    for one in opened:
        release(one)


def states(path: Path) -> list[tuple[str, str, bytes]]:
    connection = apsw.Connection(str(path))
    found = connection.execute("SELECT kind, key, value FROM state ORDER BY kind, key").fetchall()
    connection.close()
    return found


def change(path: Path, statement: str, *values: object) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(statement, values)
    assert connection.changes() > 0
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE state SET value = CAST('{\"used\":\"0\"}' AS BLOB) WHERE kind = 'limit'",
        "DELETE FROM state WHERE kind = 'limit'",
        "DELETE FROM state WHERE kind = 'approval'",
        "DELETE FROM state",
        "INSERT INTO state VALUES ('limit', 'invented', CAST('{\"used\":\"-500\"}' AS BLOB))",
        "UPDATE state SET value = x'00'",
        "UPDATE state SET value = CAST('[]' AS BLOB) WHERE kind IN ('policy', 'policies')",
    ],
)
def test_whatever_was_edited_is_again_what_the_log_makes_of_it(
    database: Path, engine: Callable[[], Engine], statement: str
) -> None:
    """Byte for byte, and with an entry that says who had it done and how much there was to mend."""
    before = states(database)
    change(database, statement)
    opened = engine()
    different = list(verify_state(opened))
    assert different
    assert rebuild_state(opened, ADMIN, "limits were edited") == different
    assert states(database) == before
    assert list(verify_state(opened)) == []
    assert verify(opened).chain_valid
    with opened.read() as reader:
        row = reader.row(reader.head.size - 1)
    assert row is not None
    entry = orjson.loads(row[1])
    assert (entry["kind"], entry["data"]["event"]) == ("log", "state_rebuilt")
    assert entry["who"] == {"operator": "ada", "role": "admin", "established": "asserted"}
    assert sum(entry["data"][name] for name in ("missing", "unknown", "changed")) == len(different)
    assert orjson.loads(row[4] or b"") == {"reason": "limits were edited"}


def test_state_that_was_rolled_back_as_a_whole_counts_again(
    database: Path, engine: Callable[[], Engine]
) -> None:
    """An older copy of every state row fits itself, and would let a cap be spent twice; the log knows better."""
    old = states(database)
    with AgentLattice.embedded(database, agent="cs") as al:
        assert al.execute_sync("refund.issue", amount="10", currency="EUR").status == "executed"
    now = states(database)
    connection = apsw.Connection(str(database))
    with connection:
        connection.execute("DELETE FROM state")
        connection.executemany("INSERT INTO state VALUES (?, ?, ?)", old)
    connection.close()
    opened = engine()
    assert verify(opened).chain_valid
    assert list(verify_state(opened))
    rebuild_state(opened, ADMIN, "restored by mistake")
    assert states(database) == now
    with AgentLattice.embedded(database, agent="cs") as al:
        assert al.execute_sync("refund.issue", amount="10", currency="EUR").status == "denied"


def test_state_that_is_right_is_left_alone(database: Path, engine: Callable[[], Engine]) -> None:
    """Nothing is changed and nothing is recorded."""
    opened = engine()
    size = verify(opened).verified_through_row
    assert rebuild_state(opened, ADMIN, "to be sure") == []
    assert verify(opened).verified_through_row == size


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET payload = NULL, salt = NULL WHERE i = 9",
        "UPDATE entries SET body = CAST(replace(CAST(body AS TEXT), '\"10\"', '\"90\"') AS BLOB) WHERE i = 9",
        "DELETE FROM entries WHERE i = 9",
        "INSERT INTO entries SELECT -1, body, leaf, salt, payload FROM entries WHERE i = 9",
    ],
)
def test_no_state_is_made_from_a_log_that_does_not_verify(
    database: Path, engine: Callable[[], Engine], statement: str
) -> None:
    """The refusal says what is wrong with the log; log and state stay as they were found."""
    change(database, statement)
    change(database, "DELETE FROM state WHERE kind = 'limit'")
    before = states(database)
    with pytest.raises(AuditError, match="no state is made from a log that does not verify"):
        rebuild_state(engine(), ADMIN, "why not")
    assert states(database) == before


def test_only_an_administrator_with_a_reason_rebuilds(database: Path, engine: Callable[[], Engine]) -> None:
    """Refused before anything is read."""
    with pytest.raises(ForbiddenError, match="takes an administrator"):
        rebuild_state(engine(), Operator("m"), "why")
    with pytest.raises(InvalidRequestError, match="say why"):
        rebuild_state(engine(), ADMIN, " ")


def test_a_rebuild_that_fails_half_way_changes_nothing(
    database: Path, engine: Callable[[], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entry and state go together: after a failure at the last moment neither is there, and a second try mends it."""
    change(database, "DELETE FROM state WHERE kind = 'limit'")
    before, opened = states(database), engine()
    append = SQLiteTransaction.append
    with monkeypatch.context() as failing:

        def fail(self: SQLiteTransaction, *arguments: object) -> None:
            append(self, *arguments)  # type: ignore[arg-type]
            raise OSError("the disk is full")

        failing.setattr(SQLiteTransaction, "append", fail)
        with pytest.raises(AgentLatticeError, match="the disk is full"):
            rebuild_state(opened, ADMIN, "limits were deleted")
    assert states(database) == before
    assert verify(opened).chain_valid
    assert len(rebuild_state(opened, ADMIN, "limits were deleted")) == 1
    assert list(verify_state(opened)) == []


_SIGNING = """
import sys
from agentlattice_core import AgentLattice

al = AgentLattice.embedded(sys.argv[1], agent="cs")
notary = al._engine.notary
al._engine.keeper.later = lambda *job: None  # nothing is signed before it is asked for
al.execute_sync("deploy.staging")
keep = notary._keep

def keep_while_somebody_rebuilds(size, note):
    notary._keep = keep
    print("holds the signer's lock", flush=True)
    keep(size, note)

notary._keep = keep_while_somebody_rebuilds
print("ready", flush=True)
sys.stdin.readline()
print(notary.sign() is not None, flush=True)
"""


def test_rebuilding_does_not_wait_for_a_signer_that_waits_for_the_log(
    database: Path, engine: Callable[[], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process signs in the middle of it, and keeps a checkpoint before it lets the signer go: both end."""
    change(database, "DELETE FROM state WHERE kind = 'limit'")
    signing = subprocess.Popen(
        [sys.executable, "-c", _SIGNING, str(database)], stdin=PIPE, stdout=PIPE, text=True
    )
    assert signing.stdin is not None
    assert signing.stdout is not None
    mended: list[object] = []
    rebuilding = threading.Thread(target=lambda: mended.extend(rebuild_state(engine(), ADMIN, "why")))
    try:
        assert signing.stdout.readline() == "ready\n"
        told, said = signing.stdin, signing.stdout

        def verify_once_it_signs(*arguments: Any, **options: Any) -> Any:
            told.write("sign\n")
            told.flush()
            assert said.readline() == "holds the signer's lock\n"
            return verify(*arguments, **options)

        monkeypatch.setattr("agentlattice_core.rebuilding.verify", verify_once_it_signs)
        rebuilding.start()
        rebuilding.join(timeout=60)
        assert not rebuilding.is_alive(), "each waits for the other"
        assert said.readline() == "True\n"
        assert len(mended) == 1
    finally:
        signing.kill()  # which lets the other go
        rebuilding.join()
        signing.communicate()
