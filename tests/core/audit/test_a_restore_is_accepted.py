"""An older copy of the log that was restored on purpose: the log goes on, and says for ever what happened."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import apsw
import orjson
import pytest
from dying import lives_through

from agentlattice_core import (
    AgentLattice,
    AgentLatticeError,
    AuditError,
    ForbiddenError,
    IllegalTransitionError,
    InvalidRequestError,
    NotRecordedError,
    VerifyResult,
)
from agentlattice_core.audit.export import export_lines, verify_export
from agentlattice_core.engine import Engine, open_engine, release
from agentlattice_core.principals import Operator
from agentlattice_core.rebuilding import rebuild_state
from agentlattice_core.restoring import accept_restore, found_restore
from agentlattice_core.rotation import rotate_key
from agentlattice_core.verification import verify, verify_state

ADMIN = Operator("ada", "admin")


@contextmanager
def engine_of(path: Path) -> Iterator[Engine]:
    engine = open_engine(path)
    try:
        yield engine
    finally:
        release(engine)


def act(path: Path, count: int = 1) -> None:
    with AgentLattice.embedded(path, agent="ci") as al:
        for _ in range(count):
            al.execute_sync("pr.open")


def checkpoint(path: Path) -> str:
    with AgentLattice.embedded(path, operator="auditor") as al:
        return al.checkpoint_sync()


def checked(path: Path, note: str | None = None) -> VerifyResult:
    with engine_of(path) as engine:
        assert list(verify_state(engine)) == []
        return verify(engine, note)


def back_up(path: Path, to: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()
    shutil.copy(path, to)


def restore(backup: Path, path: Path) -> None:
    for beside in path.parent.glob(f"{path.name}-*"):
        beside.unlink()
    shutil.copy(backup, path)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A log of 7 entries, whose copy of the first 4 was restored: the key has signed all of them."""
    path, backup = tmp_path / "governance.db", tmp_path / "yesterday.db"
    act(path, 2)
    back_up(path, backup)
    act(path, 3)
    (tmp_path / "kept.txt").write_text(checkpoint(path))
    restore(backup, path)
    return path


def test_before_it_is_accepted_nothing_is_recorded(database: Path) -> None:
    """And what would be accepted can be looked at."""
    with pytest.raises(NotRecordedError, match="al audit accept-restore"):
        act(database)
    with engine_of(database) as engine:
        found = found_restore(engine)
        assert (found.kept, found.signed, found.vouched) == (4, 7, 4)
        assert not verify(engine).chain_valid


def test_after_it_is_accepted_the_log_goes_on_and_says_what_happened(database: Path) -> None:
    """Who, why, how many entries were lost; with the checkpoint over them, in the log and in each verification."""
    kept = (database.parent / "kept.txt").read_text()
    with engine_of(database) as engine:
        cut = accept_restore(engine, ADMIN, "disk died", "4/7")
        assert engine.notary.alarm is None
        with engine.read() as reader:
            row = reader.row(4)
    assert row is not None
    entry = orjson.loads(row[1])
    assert (entry["kind"], entry["data"]["event"], entry["who"]["operator"]) == ("log", "history_cut", "ada")
    assert entry["data"]["checkpoint"] == kept
    assert orjson.loads(row[4] or b"") == {"reason": "disk died"}
    act(database, 5)
    result = checked(database)
    assert result.chain_valid, result.problem
    assert result.cuts == [str(cut)]
    assert "7 entries had been signed, and a copy of 4 was restored" in result.cuts[0]
    assert "`ada` accepted it" in result.cuts[0]


def test_a_checkpoint_over_what_was_lost_never_verifies_again(database: Path) -> None:
    """Whoever kept one is told that its entries are gone, and who accepted that; also once the log is longer again."""
    kept = (database.parent / "kept.txt").read_text()
    with engine_of(database) as engine:
        accept_restore(engine, ADMIN, "disk died", "4/7")
    for _ in range(4):  # shorter than what was lost, of the same size, and longer
        result = checked(database, kept)
        assert not result.chain_valid
        assert "a copy of 4 was restored" in str(result.problem)
        act(database)
        checkpoint(database)


def edit(path: Path, statement: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(statement)
    assert connection.changes() == 1
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM state WHERE kind = 'history_cut'",
        "UPDATE state SET key = '000000000002' WHERE kind = 'history_cut'",
        "UPDATE state SET value = x'00' WHERE kind = 'history_cut'",
    ],
)
def test_edited_state_hides_no_cut(database: Path, statement: str) -> None:
    """The next checkpoint names the lost one, so the entries are searched for why; the edit is found, and mended."""
    with engine_of(database) as engine:
        cut = accept_restore(engine, ADMIN, "disk died", "4/7")
    act(database)
    edit(database, statement)
    with engine_of(database) as engine:
        found = verify(engine)
        assert (found.chain_valid, found.cuts) == (True, [str(cut)])
        assert next(iter(verify_state(engine))).kind == "history_cut"
        rebuild_state(engine, ADMIN, "edited")
    assert checked(database).cuts == [str(cut)]


def test_a_cut_is_not_verified_without_the_checkpoint_that_shows_it(database: Path) -> None:
    """That one is missed like any other that was signed."""
    with engine_of(database) as engine:
        accept_restore(engine, ADMIN, "disk died", "4/7")
    act(database)
    edit(database, "DELETE FROM checkpoints WHERE size = 5")
    with engine_of(database) as engine:
        assert not verify(engine).chain_valid


def test_a_signer_that_was_made_to_turn_back_is_found_out(database: Path) -> None:
    """Without an entry that says why, a checkpoint that follows a longer one is of a log that was cut."""
    with engine_of(database) as engine:
        engine.notary.accept_cut(engine.notary.last_note())
        result = verify(engine)
        assert not result.chain_valid
        assert "signed for 7 entries" in str(result.problem)
        note = engine.notary.last_note()
        with engine.read() as reader:
            key = engine.notary.verifier_key()
            lines = list(export_lines(reader.rows(), log=engine.store.log_id, key=key, checkpoint=note))
    with pytest.raises(AuditError, match="no entry says that the history was cut"):
        verify_export(lines, key)


def test_an_export_says_that_the_history_was_cut(database: Path) -> None:
    """To whoever has only the public key."""
    with engine_of(database) as engine:
        cut = accept_restore(engine, ADMIN, "disk died", "4/7")
        for _ in range(2):
            note = engine.notary.sign()
            assert note is not None
            with engine.read() as reader:
                key = engine.notary.verifier_key()
                lines = b"".join(
                    export_lines(reader.rows(), log=engine.store.log_id, key=key, checkpoint=note)
                )
            report = verify_export(io.BytesIO(lines), key)
            assert (report.ok, report.cuts) == (True, (cut,))
            act(database)


def test_a_log_may_be_cut_more_than_once(database: Path, tmp_path: Path) -> None:
    """Each time is on record; also if the second copy is from before the first was accepted."""
    for backup in (None, tmp_path / "again.db", tmp_path / "yesterday.db"):
        if backup is not None:
            back_up(database, tmp_path / "again.db")
            act(database, 4)
            restore(backup, database)
        with engine_of(database) as engine:
            accept_restore(engine, ADMIN, "again", found_restore(engine).confirmation)
        act(database)
        assert checked(database).chain_valid
    assert len(checked(database).cuts) == 1  # the copy from before the first cut knows of none but its own


def test_only_an_administrator_who_has_looked_accepts(database: Path) -> None:
    """Role, reason and both sizes; a refusal leaves the alarm and the log as they are."""
    with engine_of(database) as engine:
        for operator, reason, confirmation, error in (
            (Operator("m"), "why", "4/7", ForbiddenError),
            (ADMIN, " ", "4/7", InvalidRequestError),
            (ADMIN, "why", "", InvalidRequestError),
            (ADMIN, "why", "4/8", InvalidRequestError),
            (ADMIN, "why", "yes", InvalidRequestError),
        ):
            with pytest.raises(error):
                accept_restore(engine, operator, reason, confirmation)
        assert engine.notary.alarm is not None
        assert found_restore(engine).confirmation == "4/7"


def test_a_log_that_is_in_order_has_nothing_to_accept(tmp_path: Path) -> None:
    """So nobody can cut a history that is whole."""
    act(tmp_path / "governance.db", 2)
    with engine_of(tmp_path / "governance.db") as engine, pytest.raises(IllegalTransitionError):
        accept_restore(engine, ADMIN, "why", "1/2")


def test_a_copy_that_was_edited_is_not_accepted(database: Path) -> None:
    """Nor one that somebody made longer than what was signed, or of which a checkpoint is missing."""
    for statement in (
        "UPDATE entries SET payload = x'00' WHERE i = 3",
        "DELETE FROM checkpoints WHERE size = 1",
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM state; END",
    ):
        connection = apsw.Connection(str(database))
        connection.execute(statement)
        connection.close()
        with engine_of(database) as engine, pytest.raises(AuditError, match="does not verify by itself"):
            accept_restore(engine, ADMIN, "why", "4/7")
        restore(database.parent / "yesterday.db", database)


def test_a_copy_from_before_a_rotation_is_refused(tmp_path: Path) -> None:
    """The log does not say who its signer is any more; that is an error, and not a way around the statements."""
    path, backup = tmp_path / "governance.db", tmp_path / "old.db"
    act(path, 2)
    back_up(path, backup)
    with engine_of(path) as engine:
        rotate_key(engine, ADMIN, "yearly")
    restore(backup, path)
    with engine_of(path) as engine, pytest.raises(AuditError, match="does not verify by itself"):
        found_restore(engine)


def _accepting(engine: Engine) -> Callable[[], object]:
    return partial(accept_restore, engine, ADMIN, "killed", found_restore(engine).confirmation)


def test_a_crash_at_any_system_call_of_accepting_can_be_gone_on_from(database: Path, tmp_path: Path) -> None:
    """Either the alarm still stands and accepting again ends it, or it is over; the cut is recorded once."""
    files = {
        path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith("governance.db")
    }
    point, finished, half_way = 0, False, 0
    while not finished:
        point += 1
        for path in tmp_path.glob("governance.db*"):
            path.unlink()
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
            (tmp_path / name).chmod(0o600)
        finished = lives_through(database, _accepting, point, ("open", "fsync", "replace", "unlink", "close"))
        with engine_of(database) as engine:
            if engine.notary.alarm is not None:
                with engine.read() as reader:
                    half_way += reader.head.size == 5
                assert not verify(engine).chain_valid
                with pytest.raises(AgentLatticeError):
                    act(database)
                accept_restore(engine, ADMIN, "again", found_restore(engine).confirmation)
        act(database)
        result = checked(database)
        assert result.chain_valid, (point, result.problem)
        assert len(result.cuts) == 1
    assert half_way > 0
    assert point > half_way + 1
