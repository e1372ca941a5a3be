"""What verification of a real database finds, and what it does not mistake for tampering."""

from __future__ import annotations

import shutil
from pathlib import Path

import apsw
import pytest

from agentlattice_core import (
    AgentLattice,
    AgentLatticeError,
    AuditError,
    ForbiddenError,
    InvalidRequestError,
    NotRecordedError,
    ReportOutcome,
    VerifyResult,
)
from agentlattice_core.testing import ManualClock


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory, policy_text: str) -> Path:
    """The directory of a closed database with one of everything."""
    directory = tmp_path_factory.mktemp("untouched")
    policies = directory / "policies.yaml"
    policies.write_text(policy_text)
    clock = ManualClock()
    with AgentLattice.embedded(directory / "governance.db", policies=policies, agent="ci", clock=clock) as al:
        for number in range(300):
            al.execute_sync("pr.open", metadata={"pr_size": number})
        asked = al.execute_sync("deploy.production")
        spent = al.execute_sync("refund.issue", amount="40", currency="EUR")
        with al.for_operator("k.chen") as operator:
            operator.approve_action_sync(asked.approval_id, reason="fine")
            al.claim_sync(asked.audit_event_id)
            al.record_outcome(spent.audit_event_id, "succeeded")
            al.execute_sync("deploy.staging")
    return directory


@pytest.fixture
def database(untouched: Path, tmp_path: Path) -> Path:
    """A copy of it, with the key beside it that signed it."""
    shutil.copytree(untouched, tmp_path, dirs_exist_ok=True)
    return tmp_path / "governance.db"


def change(path: Path, statement: str, *values: object) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(statement, values)
    assert connection.changes() > 0
    connection.close()


def copy_database(path: Path, to: Path) -> None:
    """A copy of a closed database: everything is in the one file."""
    connection = apsw.Connection(str(path))
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()
    shutil.copy(path, to)


def flipped(value: bytes, bit: int) -> bytes:
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_an_untouched_log_verifies_and_so_does_its_state(opened, database: Path) -> None:
    al = opened()
    result = al.verify_sync()
    assert (result.chain_valid, result.first_broken_at_row_id, result.problem) == (True, None, None)
    assert result.verified_through_row > 300
    assert al.verify_state_sync() == []
    assert al.verify_sync(incremental=True).verified_from_checkpoint


@pytest.mark.parametrize("column", ["body", "leaf", "salt", "payload"])
@pytest.mark.parametrize("row", [0, 5, 255, 256, 301])
def test_a_changed_bit_is_found_and_its_row_named(
    database: Path, clock: ManualClock, column: str, row: int
) -> None:
    connection = apsw.Connection(str(database))
    (value,) = connection.execute(f"SELECT {column} FROM entries WHERE i = ?", (row,)).fetchone()
    connection.close()
    if value is None:
        row, value = 20, None
        connection = apsw.Connection(str(database))
        (value,) = connection.execute(f"SELECT {column} FROM entries WHERE i = ?", (row,)).fetchone()
        connection.close()
    for bit in (0, len(value) * 4, len(value) * 8 - 1):
        change(database, f"UPDATE entries SET {column} = ? WHERE i = ?", flipped(value, bit), row)
        with AgentLattice.embedded(database, agent="ci", clock=clock) as al:
            result = al.verify_sync()
            assert (result.chain_valid, result.first_broken_at_row_id) == (False, str(row))
        change(database, f"UPDATE entries SET {column} = ? WHERE i = ?", value, row)


def test_a_removed_entry_is_found(opened, database: Path) -> None:
    change(database, "DELETE FROM entries WHERE i = 100")
    result = opened(policies=None).verify_sync()
    assert (result.chain_valid, result.first_broken_at_row_id) == (False, "100")


def test_two_swapped_entries_are_found(opened, database: Path) -> None:
    change(database, "UPDATE entries SET i = -1 WHERE i = 100")
    change(database, "UPDATE entries SET i = 100 WHERE i = 101")
    change(database, "UPDATE entries SET i = 101 WHERE i = -1")
    result = opened(policies=None).verify_sync()
    assert (result.chain_valid, result.first_broken_at_row_id) == (False, "100")


@pytest.mark.parametrize(
    ("kind", "member"),
    [
        ("limit", '"used"'),
        ("approval", '"status"'),
        ("action", '"claim"'),
        ("agent", '"tags"'),
        ("pending", "{"),
    ],
)
def test_an_edited_state_table_is_found_and_the_document_named(
    opened, database: Path, kind: str, member: str
) -> None:
    connection = apsw.Connection(str(database))
    ((key, value),) = connection.execute(
        "SELECT key, value FROM state WHERE kind = ? AND CAST(value AS TEXT) LIKE ? LIMIT 1",
        (kind, f"%{member}%"),
    ).fetchall()
    connection.close()
    change(database, "UPDATE state SET value = ? WHERE kind = ? AND key = ?", b'{"used":"1"}', kind, key)
    al = opened(policies=None, agent=None, operator="auditor")
    assert [(d.kind, d.key) for d in al.verify_state_sync()] == [(kind, key)]
    change(database, "DELETE FROM state WHERE kind = ? AND key = ?", kind, key)
    assert "missing" in str(al.verify_state_sync()[0])
    change(database, "INSERT INTO state VALUES (?, 'invented', ?)", kind, value)
    assert any(d.key == "invented" and "knows nothing" in str(d) for d in al.verify_state_sync())


@pytest.mark.parametrize("kept", [0, 1, 255, 256, 257, 299])
def test_a_tail_cut_to_any_length_is_found_and_nothing_more_is_recorded(
    opened, database: Path, kept: int
) -> None:
    """The attacker rewrites the head too: everything that is left fits together, but not with what was signed."""
    from agentlattice_core.audit.entry import Head
    from agentlattice_core.audit.merkle import Frontier

    connection = apsw.Connection(str(database))
    rows = connection.execute("SELECT body, leaf FROM entries WHERE i < ? ORDER BY i", (kept,)).fetchall()
    frontier = Frontier()
    for _, leaf in rows:
        frontier.push(leaf)
    at = rows[-1][0][7:34].decode() if rows else ""
    head = Head(rows[-1][1] if rows else bytes(32), at, frontier)
    with connection:
        connection.execute("DELETE FROM entries WHERE i >= ?", (kept,))
        connection.execute("DELETE FROM checkpoints WHERE size > ?", (kept,))
        connection.execute("DELETE FROM tiles WHERE (n + 1) * 256 > ?", (kept,))
        connection.execute(
            "UPDATE head SET leaf = ?, at = ?, frontier = ?", (head.leaf, head.at, frontier.to_bytes())
        )
    connection.close()
    with pytest.raises(NotRecordedError, match="cut short or an old copy"):
        opened()
    al = AgentLattice.embedded(database, operator="auditor")
    result = al.verify_sync()
    al.close()
    assert not result.chain_valid
    assert result.problem is not None


def test_a_tail_that_was_deleted_and_nothing_else_is_found_on_opening(opened, database: Path) -> None:
    change(database, "DELETE FROM entries WHERE i >= 300")
    with pytest.raises(NotRecordedError, match="the last of its"):
        opened()


def test_an_old_copy_that_was_restored_is_found(opened, database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "backup.db"
    copy_database(database, copy)
    al = opened()
    al.execute_sync("pr.open", metadata={"pr_size": 1})
    al.close()
    for beside in tmp_path.glob("governance.db-*"):
        beside.unlink()
    shutil.copy(copy, database)
    with pytest.raises(NotRecordedError, match="not the one that was signed"):
        opened()


def test_a_log_rewritten_with_recomputed_hashes_is_found_against_a_kept_checkpoint(
    opened, database: Path, tmp_path: Path
) -> None:
    """The attacker has the database and the signing key's directory, but not the checkpoint kept elsewhere."""
    from agentlattice_core.audit.entry import Sealer, parse
    from agentlattice_core.audit.tiles import tiles_completed_by

    al = opened()
    kept = al.checkpoint_sync()
    org = al.org_id
    al.close()
    connection = apsw.Connection(str(database))
    rows = connection.execute("SELECT i, body, payload FROM entries ORDER BY i").fetchall()
    sealer, leaves = Sealer(org), []
    with connection:
        connection.execute("DELETE FROM checkpoints")
        for index, body, payload in rows:
            entry = parse(body)
            data = {**entry.data, "decision": "executed"} if index == 60 else dict(entry.data)
            sealed = sealer.seal(entry.kind, dict(entry.who), data, at=entry.at, id=entry.id, payload=payload)
            leaves.append(sealed.leaf)
            connection.execute(
                "UPDATE entries SET body = ?, leaf = ?, salt = ? WHERE i = ?",
                (sealed.body, sealed.leaf, sealed.salt, index),
            )
        head = sealer.head()
        connection.execute("UPDATE head SET leaf = ?, frontier = ?", (head.leaf, head.frontier.to_bytes()))
        connection.execute("DELETE FROM tiles")
        for tile in tiles_completed_by(
            0, head.size, lambda a, n: b"".join(leaves[a : a + n]), lambda a, b: None
        ):
            connection.execute("INSERT INTO tiles VALUES (?, ?, ?)", (tile.level, tile.index, tile.hashes))
    connection.close()
    al = AgentLattice.embedded(database, operator="auditor")
    result = al.verify_sync(kept)
    al.close()
    assert not result.chain_valid
    assert result.first_broken_at_row_id is not None
    assert int(result.first_broken_at_row_id) <= 60


def test_an_erased_payload_verifies_and_reads_as_erased(opened, database: Path) -> None:
    al = opened()
    admin = al.for_operator("dpo", role="admin")
    assert admin.erase_sync([20, 21, 20], "request of the person concerned") == 2
    assert admin.erase_sync([20], "again") == 0
    assert al.verify_sync().chain_valid
    assert al.verify_state_sync() == []
    erased = [event for event in admin.audit_sync(limit=200, cursor="16").events if event.erased]
    assert [int(event.id[4:16], 16) for event in erased] == [21, 20]
    assert erased[0].metadata == {}
    admin.close()


def test_a_payload_that_vanished_without_an_erasure_is_not_erased(opened, database: Path) -> None:
    change(database, "UPDATE entries SET salt = NULL, payload = NULL WHERE i = 20")
    result = opened(policies=None).verify_sync()
    assert (result.chain_valid, result.first_broken_at_row_id) == (False, "20")


def test_what_was_erased_is_not_left_in_the_files(opened, tmp_path: Path) -> None:
    secret = "unmistakable-personal-data-7361"
    al = opened()
    event = al.execute_sync("pr.open", metadata={"pr_size": 1, "who": secret}).audit_event_id
    admin = al.for_operator("dpo", role="admin")
    admin.erase_sync([int(event[4:16], 16)], "request")
    al.execute_sync("pr.open", metadata={"pr_size": 1})
    admin.close()
    al.close()
    for path in tmp_path.iterdir():
        assert secret.encode() not in path.read_bytes(), path.name


def test_only_administrators_erase_and_never_a_policy(opened, database: Path) -> None:
    al = opened()
    member, admin = al.for_operator("m"), al.for_operator("a", role="admin")
    with pytest.raises(ForbiddenError, match="takes an administrator"):
        member.erase_sync([20], "why")
    with pytest.raises(InvalidRequestError, match="holds a policy"):
        admin.erase_sync(range(2, 4), "why")
    member.close()
    admin.close()


def test_a_checkpoint_of_another_log_is_refused(opened, database: Path, tmp_path: Path) -> None:
    with AgentLattice.embedded(tmp_path / "other.db", agent="x") as other:
        foreign = other.checkpoint_sync()
    with pytest.raises(AuditError):
        opened().verify_sync(foreign)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE head SET at = '2099-01-01T00:00:00.000000Z'", "its head says"),
        ("UPDATE head SET leaf = zeroblob(32)", "is not what was written"),
        ("DELETE FROM head", "lost the head"),
        ("UPDATE head SET frontier = x'00'", "cut short"),
        ("UPDATE head SET log_id = 'org_other'", "not signed by"),
        ("UPDATE head SET log_id = CAST(x'ff' AS TEXT)", "cannot be read"),
        ("UPDATE head SET at = CAST(x'ff' AS TEXT)", "cannot be read"),
        ("DROP TABLE entries", "no such table"),
    ],
)
def test_a_changed_head_is_found_before_anything_is_recorded_after_it(
    opened, database: Path, statement: str, says: str
) -> None:
    """A head that lies in the future would make every deadline pass and every daily cap begin anew."""
    connection = apsw.Connection(str(database))
    connection.execute(statement)
    connection.close()
    with pytest.raises(AgentLatticeError, match=says):
        opened()


def test_an_entry_without_its_bytes_is_found_and_not_stumbled_over(opened, database: Path) -> None:
    """A torn page, or whoever changed the schema first, leaves what no table of ours holds."""
    for statement in (
        "PRAGMA writable_schema = 1; "
        "UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'entries'",
        "UPDATE entries SET body = NULL WHERE i >= 300",
    ):
        change(database, statement)
    with pytest.raises(NotRecordedError, match="cannot be read as a log"):
        opened()
    result = verified(database)
    assert (result.chain_valid, result.first_broken_at_row_id) == (False, "300")


def test_a_log_whose_signing_key_was_taken_away_is_not_signed_by_a_new_one(opened, database: Path) -> None:
    change(database, "DELETE FROM checkpoints")
    for name in ("governance.db.key", "governance.db.key.signed"):
        (database.parent / name).unlink()
    with pytest.raises(NotRecordedError, match="another key was put in its place") as refused:
        opened()
    assert "until the key that signed it is put back, or named as `signing_key`" in str(refused.value)
    assert "accept-restore" not in str(refused.value)  # which a key that has signed nothing is no reason for


def test_a_log_is_signed_before_anything_is_recorded_in_it(opened) -> None:
    al = opened(policies=None)
    assert al._opened.notary.signed == 1


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO entries SELECT i + 1, body, leaf, salt, payload FROM entries ORDER BY i DESC LIMIT 1",
        "INSERT INTO entries SELECT i + 9, body, leaf, salt, payload FROM entries ORDER BY i DESC LIMIT 1",
        "UPDATE checkpoints SET size = size - 1",
    ],
)
def test_what_was_put_beyond_the_end_or_beside_its_place_is_found(
    opened, database: Path, statement: str
) -> None:
    change(database, statement)
    assert not opened(policies=None).verify_sync().chain_valid


@pytest.fixture
def often_signed(opened, database: Path) -> Path:
    """The database with a dozen checkpoints, each one kept."""
    al = opened(policies=None)
    for number in range(12):
        al.execute_sync("pr.open", metadata={"pr_size": number})
        al.checkpoint_sync()
    al.close()
    return database


def verified(database: Path) -> VerifyResult:
    with AgentLattice.embedded(database, operator="auditor") as al:
        return al.verify_sync()


def test_a_kept_checkpoint_that_was_deleted_is_missed(often_signed: Path) -> None:
    """Each one alone, and all of them: the next one signed, in the end the signer's own record, names it."""
    connection = apsw.Connection(str(often_signed))
    kept = connection.execute("SELECT size, note FROM checkpoints ORDER BY size").fetchall()
    connection.close()
    assert len(kept) > 12
    for size, note in kept[:-1]:
        change(often_signed, "DELETE FROM checkpoints WHERE size = ?", size)
        result = verified(often_signed)
        assert not result.chain_valid
        assert f"signed for {size} entries is no longer kept" in str(result.problem)
        change(often_signed, "INSERT INTO checkpoints VALUES (?, ?)", size, note)
    assert verified(often_signed).chain_valid
    change(often_signed, "DELETE FROM checkpoints")
    assert not verified(often_signed).chain_valid


def test_a_checkpoint_that_its_signer_did_not_live_to_keep_is_kept_by_the_next_one(
    opened, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between signing and keeping is not mistaken for a deletion, whoever signs next."""
    al = opened(policies=None)
    engine = al._opened
    for number in range(3):
        al.execute_sync("pr.open", metadata={"pr_size": number})
        with monkeypatch.context() as dying:
            dying.setattr(engine.notary, "_keep_once", lambda size, note: None)
            signed = engine.notary._signer.sign(
                engine.notary._read_head, engine.notary._prove, engine.notary._keep
            )
        assert verified(database).chain_valid
        al.execute_sync("pr.open", metadata={"pr_size": number})
        al.checkpoint_sync()
        result = verified(database)
        assert result.chain_valid, result.problem
        with engine.read() as reader:
            assert signed in [note for _, note in reader.checkpoints()]


@pytest.mark.parametrize(
    ("statement", "row", "says"),
    [
        (
            "INSERT INTO entries SELECT -1, body, leaf, salt, payload FROM entries WHERE i = 5",
            "-1",
            "before the first",
        ),
        (
            "INSERT INTO entries SELECT -9223372036854775808, body, leaf, salt, payload FROM entries WHERE i = 5",
            "-9223372036854775808",
            "before the first",
        ),
        ("UPDATE entries SET i = -7 WHERE i = 20", "-7", "before the first"),
        (
            "INSERT INTO entries SELECT 9223372036854775807, body, leaf, salt, payload FROM entries WHERE i = 5",
            "9223372036854775807",
            "beyond the",
        ),
        ("INSERT INTO tiles VALUES (0, 99, zeroblob(8192))", None, "tile 0/99"),
        ("INSERT INTO tiles VALUES (0, -1, zeroblob(8192))", None, "tile 0/-1"),
        ("INSERT INTO tiles VALUES (9, 0, zeroblob(32))", None, "tile 9/0"),
        ("INSERT INTO tiles VALUES (2, 0, zeroblob(32))", None, "tile 2/0"),
        ("INSERT INTO tiles VALUES (0, 1, zeroblob(32))", None, "tile 0/1"),
        (
            "UPDATE tiles SET hashes = CAST(hashes || printf('%032d', 0) AS BLOB) WHERE level = 1",
            None,
            "tile 1/0",
        ),
        ("UPDATE tiles SET hashes = CAST(hashes || '0' AS BLOB) WHERE level = 0", None, "tile 0/0"),
        ("UPDATE tiles SET hashes = zeroblob(32) WHERE level = 1", "0", "tile 1/0"),
        ("DELETE FROM tiles WHERE level = 0", "0", "tile 0/0"),
        ("INSERT INTO checkpoints SELECT -size, note FROM checkpoints LIMIT 1", None, "kept for -"),
        (
            "INSERT INTO checkpoints SELECT size + 10000, note FROM checkpoints LIMIT 1",
            None,
            "is not what was signed",
        ),
    ],
)
def test_a_row_that_no_log_has_is_found_and_named(
    database: Path, statement: str, row: str | None, says: str
) -> None:
    """Entries before the first and far beyond the last, tiles of no tree, checkpoints of no possible size."""
    change(database, statement)
    result = verified(database)
    assert (result.chain_valid, result.first_broken_at_row_id) == (False, row)
    assert says in str(result.problem)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("CREATE TABLE notes (text TEXT)", "the table `notes`"),
        ("CREATE VIEW look AS SELECT i FROM entries", "the view `look`"),
        ("CREATE INDEX by_leaf ON entries (leaf)", "the index `by_leaf`"),
        (
            "CREATE TRIGGER refund AFTER INSERT ON entries BEGIN DELETE FROM state WHERE kind = 'limit'; END",
            "the trigger `refund` on `entries`",
        ),
        ("ALTER TABLE state ADD COLUMN more TEXT", "the table `state` of the database was changed"),
    ],
)
def test_whatever_was_added_to_the_schema_is_found(database: Path, statement: str, says: str) -> None:
    """Above all a trigger, which would go on changing state behind the log's back."""
    connection = apsw.Connection(str(database))
    connection.execute(statement)
    connection.close()
    result = verified(database)
    assert (result.chain_valid, result.first_broken_at_row_id) == (False, None)
    assert says in str(result.problem)


def test_statistics_that_an_operator_gathers_are_no_tampering(database: Path) -> None:
    """`ANALYZE` and `VACUUM` are maintenance: they change nothing that is recorded."""
    connection = apsw.Connection(str(database))
    connection.execute("ANALYZE")
    connection.execute("VACUUM")
    connection.close()
    result = verified(database)
    assert result.chain_valid, result.problem


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE state SET value = x'00'",
        "UPDATE state SET value = CAST('[]' AS BLOB)",
        "UPDATE state SET value = CAST('{}' AS BLOB)",
        "DELETE FROM state WHERE kind = 'approval'",
        "UPDATE entries SET payload = x'00' WHERE i > 299",
        "UPDATE entries SET body = x'00' WHERE i > 299",
    ],
)
def test_whatever_was_written_into_the_database_every_error_is_one_of_ours(
    opened, database: Path, statement: str
) -> None:
    al = opened()
    operator = al.for_operator("auditor")
    asked = al.execute_sync("deploy.late")
    al.checkpoint_sync()
    al.close()
    operator.close()
    change(database, statement)
    failed = []
    for call in (
        lambda: opened(policies=None).execute_sync("deploy.late"),
        lambda: opened(policies=None).claim_sync(asked.audit_event_id),
        lambda: opened(policies=None).report_sync(asked.audit_event_id, ReportOutcome("success")),
        lambda: opened(policies=None).audit_sync(limit=200),
        lambda: opened(policies=None).can_i_sync("deploy.late"),
        lambda: opened(policies=None).whoami_sync(),
        lambda: opened(policies=None).await_approval_sync(asked.approval_id, 0),
        lambda: AgentLattice.embedded(database, operator="o").list_pending_approvals_sync(),
        lambda: AgentLattice.embedded(database, operator="o").approve_action_sync(asked.approval_id),
        lambda: AgentLattice.embedded(database, operator="o").audit_sync(limit=200),
        lambda: AgentLattice.embedded(database, operator="o").verify_sync(),
        lambda: AgentLattice.embedded(database, operator="o").verify_state_sync(),
    ):
        try:
            call()
        except AgentLatticeError as error:
            failed.append(str(error))
    assert failed
    assert not any("\n" in message for message in failed)
