"""Key rotation: the old key names the new one, the log says so, and whoever has the first key needs no other."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import apsw
import orjson
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from dying import lives_through
from memory_log import MemoryLog

from agentlattice_core import AgentLattice, AuditError, ForbiddenError, InvalidRequestError
from agentlattice_core.audit.canonical import dumps, loads
from agentlattice_core.audit.export import export_lines, keys_of_export, verify_export
from agentlattice_core.audit.keys import Keyring, cosigned, read_statement, state_rotation
from agentlattice_core.audit.note import VerifierKey, open_checkpoint, sign_note, verifier_key_of
from agentlattice_core.audit.proof import prove_entry, verify_proof
from agentlattice_core.engine import Engine, open_engine, release
from agentlattice_core.history import noted_history
from agentlattice_core.principals import Operator
from agentlattice_core.rebuilding import rebuild_state
from agentlattice_core.rotation import rotate_key
from agentlattice_core.verification import verify, verify_state

NAME = "agentlattice/acme"
VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "key_rotation.json").read_text())
PRIVATE = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(4)]
KEYS = [verifier_key_of(NAME, private) for private in PRIVATE]
CHAIN = [state_rotation(NAME, old, new) for old, new in pairwise(PRIVATE)]
ADMIN = Operator("ada", "admin")


def signed(log: MemoryLog, key: int, size: int | None = None) -> str:
    return sign_note(log.checkpoint(size).format(), NAME, PRIVATE[key])


@pytest.mark.parametrize("vector", VECTORS["statements"], ids=lambda vector: vector["name"])
def test_a_statement_has_one_text(vector: dict[str, str]) -> None:
    """The bytes are pinned, so that statements of today are read by any later release and by other code."""
    old, new = (Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector[name])) for name in ("old", "new"))
    assert state_rotation(vector["signer"], old, new) == vector["note"]
    statement = read_statement(vector["note"])
    assert (statement.old.format(), statement.new.format()) == (vector["old_key"], vector["new_key"])


@pytest.mark.parametrize("vector", VECTORS["statements"], ids=lambda vector: vector["name"])
def test_a_statement_is_checked_with_any_implementation_of_ed25519(vector: dict[str, str]) -> None:
    """Each signature is over the text before the empty line, and by the key whose line it is."""
    text, _, tail = vector["note"].partition("\n\n")
    lines = tail.splitlines()
    assert len(lines) == 2
    for key, line in zip((vector["old_key"], vector["new_key"]), lines, strict=True):
        name, key_id, material = key.split("+", 2)
        blob = base64.b64decode(line.split(" ")[2])
        assert line.split(" ")[1] == name
        assert blob[:4].hex() == key_id
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(material)[1:])
        public.verify(blob[4:], (text + "\n").encode())
        with pytest.raises(InvalidSignature):
            public.verify(blob[4:], text.encode())


def test_any_key_of_the_chain_leads_to_every_later_one_and_to_no_earlier_one() -> None:
    """What an earlier key signs is good for comparing kept checkpoints alone: it may have been stolen."""
    log = MemoryLog().fill(5)
    for trusted in range(4):
        keys = Keyring(KEYS[trusted], CHAIN)
        assert keys.newest == KEYS[3]
        for signer in range(4):
            note = signed(log, signer)
            assert keys.open_kept(note) == log.checkpoint()
            if signer >= trusted:
                assert keys.open(note) == log.checkpoint()
            else:
                with pytest.raises(AuditError, match="not signed by"):
                    keys.open(note)
    stranger = Ed25519PrivateKey.generate()
    for open_note in (Keyring(KEYS[0], CHAIN).open, Keyring(KEYS[0], CHAIN).open_kept):
        with pytest.raises(AuditError):
            open_note(sign_note(log.checkpoint().format(), NAME, stranger))


def test_statements_that_lead_nowhere_are_refused() -> None:
    """Out of order, of another log, by one key alone, naming a key twice, or not from the key that is trusted."""
    text = CHAIN[0].partition("\n\n")[0] + "\n"
    foreign = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (7, 8)]
    for statements in (
        [CHAIN[1], CHAIN[0]],
        [CHAIN[0], CHAIN[2]],
        [sign_note(text, NAME, PRIVATE[0])],
        [sign_note(text, NAME, PRIVATE[1])],
        [cosigned(text.replace("rotation", "notation"), NAME, PRIVATE[0], PRIVATE[1])],
        [state_rotation(NAME, PRIVATE[0], PRIVATE[0])],
        [state_rotation("agentlattice/else", PRIVATE[0], PRIVATE[1])],
        [state_rotation(NAME, *foreign)],
        ["", "nonsense"],
        [signed(MemoryLog().fill(2), 0)],
    ):
        with pytest.raises(AuditError):
            Keyring(KEYS[0], statements)
    for place in range(len(CHAIN[0])):
        with pytest.raises(AuditError):
            Keyring(KEYS[0], [CHAIN[0][:place] + CHAIN[0][place + 1 :]])


def test_a_statement_is_never_taken_for_a_checkpoint() -> None:
    """Though the same key has signed it."""
    for key in KEYS[:2]:
        with pytest.raises(AuditError):
            open_checkpoint(CHAIN[0], key)


def test_a_statement_that_was_not_carried_out_is_overruled_by_the_next() -> None:
    """After a crash the old key names another one, and the first one named has signed nothing."""
    second = state_rotation(NAME, PRIVATE[0], PRIVATE[2])
    keys = Keyring(KEYS[0], [CHAIN[0], second, CHAIN[2]])
    assert keys.statements == [second, CHAIN[2]]
    with pytest.raises(AuditError):
        keys.open(signed(MemoryLog().fill(2), 1))


@pytest.fixture(scope="module")
def rotated_log() -> MemoryLog:
    """A log in which the key was rotated three times."""
    log = MemoryLog().fill(10)
    for statement in CHAIN:
        log.append("log", {"event": "key_rotated", "statement": statement})
        log.fill(3)
    return log


def exported(log: MemoryLog, statements: Sequence[str] = CHAIN) -> list[bytes]:
    note = signed(log, len(statements))
    key = KEYS[len(statements)]
    return list(export_lines(log.rows, log="acme", key=key, checkpoint=note, statements=statements))


def test_an_export_verifies_with_the_first_key_and_with_each_later_one(rotated_log: MemoryLog) -> None:
    """Checkpoints that any of them signed and somebody kept are compared too."""
    lines = exported(rotated_log)
    for trusted in KEYS:
        kept = [
            keys_of_export(lines[0], trusted).open_kept(signed(rotated_log, signer, 4 + signer))
            for signer in range(4)
        ]
        report = verify_export(lines, trusted, checkpoints=kept)
        assert (report.ok, report.checkpoints) == (True, 5)
    with pytest.raises(AuditError):
        verify_export(lines, verifier_key_of(NAME, Ed25519PrivateKey.generate()))


def test_an_export_whose_statements_are_not_those_recorded_is_refused(rotated_log: MemoryLog) -> None:
    """Statements that the entries do not hold, or that are left out, lead to no other key."""
    unrecorded = MemoryLog().fill(12)
    with pytest.raises(AuditError, match="not those that the entries record"):
        verify_export(exported(unrecorded), KEYS[0])
    header = loads(exported(rotated_log)[0][:-1])
    for statements in ([], CHAIN[:2], CHAIN[1:], "text", [1], [*CHAIN, CHAIN[0]]):
        changed = dumps({**header, "statements": statements}) + b"\n"
        with pytest.raises(AuditError):
            verify_export([changed, *exported(rotated_log)[1:]], KEYS[0])


def test_a_stolen_old_key_cannot_forge_for_whoever_has_the_new_one(rotated_log: MemoryLog) -> None:
    """It signs another history, and shows the true statement with it."""
    forged = MemoryLog().fill(30)
    note = sign_note(forged.checkpoint().format(), NAME, PRIVATE[0])
    lines = list(export_lines(forged.rows, log="acme", key=KEYS[0], checkpoint=note))
    proof = prove_entry(forged.rows[5], note, KEYS[0], forged.hashes())
    shown = dumps({**loads(proof), "statements": CHAIN[:1]})
    for document in (proof, shown):
        with pytest.raises(AuditError):
            verify_proof(document, KEYS[1])
    for header in (lines[0], dumps({**loads(lines[0][:-1]), "statements": CHAIN[:1]}) + b"\n"):
        with pytest.raises(AuditError):
            verify_export([header, *lines[1:]], KEYS[1])


def test_a_proof_verifies_with_every_key_that_leads_to_its_signer(rotated_log: MemoryLog) -> None:
    """The statements are in the proof; a statement changed proves nothing."""
    proof = prove_entry(
        rotated_log.rows[4], signed(rotated_log, 3), KEYS[3], rotated_log.hashes(), statements=CHAIN
    )
    for key in KEYS:
        assert verify_proof(proof, key).entry.i == 4
    value = loads(proof)
    for statements in (CHAIN[:2], [], "x", [CHAIN[0], CHAIN[0][:-3] + "A=\n", CHAIN[2]]):
        with pytest.raises(AuditError):
            verify_proof(dumps({**value, "statements": statements}), KEYS[0])


# A real log


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "governance.db"
    with AgentLattice.embedded(path, agent="ci") as al:
        al.execute_sync("pr.open")
    return path


@pytest.fixture
def opened(database: Path) -> Iterator[Callable[[], Engine]]:
    """Opens the engine of the database; closes what the test leaves open."""
    engines: list[Engine] = []

    def open_one() -> Engine:
        engines.append(open_engine(database))
        return engines[-1]

    yield open_one
    for engine in engines:
        release(engine)


def act(database: Path) -> None:
    with AgentLattice.embedded(database, agent="ci") as al:
        al.execute_sync("pr.open")


def test_after_a_rotation_everything_signed_before_and_after_verifies(
    database: Path, opened: Callable[[], Engine]
) -> None:
    """Checkpoints kept elsewhere from before each rotation, whole and incremental; and the entry says who and why."""
    kept = []
    for number in range(3):
        engine = opened()
        kept.append(engine.notary.sign())
        old = engine.notary.verifier_key()
        new = rotate_key(engine, ADMIN, f"yearly {number}")
        assert new != old
        assert engine.notary.verifier_key() == new
        act(database)
        kept.append(engine.notary.sign())
        for note in kept:
            for incremental in (False, True):
                found = verify(engine, note, incremental=incremental)
                assert found.chain_valid, found.problem
        assert list(verify_state(engine)) == []
    with engine.read() as reader:
        entries = [(orjson.loads(row[1]), row[4]) for row in reader.rows()]
    rotations = [
        (entry, payload) for entry, payload in entries if entry["data"].get("event") == "key_rotated"
    ]
    assert [orjson.loads(payload or b"")["reason"] for _, payload in rotations] == [
        "yearly 0",
        "yearly 1",
        "yearly 2",
    ]
    assert rotations[0][0]["who"]["operator"] == "ada"
    assert rotations[2][0]["data"]["key"] == new.format()


def test_the_old_key_is_gone_from_the_disk(database: Path, opened: Callable[[], Engine]) -> None:
    """A key that was rotated out can sign nothing more, wherever this signer's files are copied to."""
    before = (database.parent / "governance.db.key").read_bytes()
    engine = opened()
    old = engine.notary.verifier_key()
    rotate_key(engine, ADMIN, "why")
    names = sorted(path.name for path in database.parent.iterdir() if ".key" in path.name)
    assert names == ["governance.db.key", "governance.db.key.lock", "governance.db.key.signed"]
    assert all(before not in (database.parent / name).read_bytes() for name in names)
    act(database)
    note = engine.notary.sign()
    assert note is not None
    with pytest.raises(AuditError, match="not signed by"):
        open_checkpoint(note, old)


def test_a_process_that_has_the_log_open_goes_on_with_the_new_key(
    database: Path, opened: Callable[[], Engine]
) -> None:
    """It signs with the key that is in use, whichever it knew, and raises no alarm."""
    engine = opened()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with AgentLattice.embedded(database, operator="x") as al:
                rotate_key(al._opened, ADMIN, "from another process")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    act(database)
    note = engine.notary.sign()
    assert engine.notary.alarm is None
    assert note is not None
    open_checkpoint(note, VerifierKey.parse(engine.notary.verifier_key().format()))
    assert verify(engine).chain_valid


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM state WHERE kind = 'signing_key'",
        "UPDATE state SET value = x'00'",
        "UPDATE state SET key = 'nothing' WHERE kind = 'signing_key'",
        "INSERT INTO state VALUES ('signing_key', '000000000001', x'00')",
    ],
)
def test_edited_state_hides_no_key(database: Path, opened: Callable[[], Engine], statement: str) -> None:
    """The entries say which keys there were: the log verifies, the edit is named, and state can be mended."""
    engine = opened()
    kept = engine.notary.sign()
    rotate_key(engine, ADMIN, "why")
    connection = apsw.Connection(str(database))
    connection.execute(statement)
    assert connection.changes() > 0
    connection.close()
    found = verify(engine, kept)
    assert found.chain_valid, found.problem
    assert list(verify_state(engine))
    rebuild_state(engine, ADMIN, "edited")
    assert list(verify_state(engine)) == []
    assert verify(engine, kept).chain_valid


def test_only_an_administrator_with_a_reason_rotates(opened: Callable[[], Engine]) -> None:
    """Refused before a key is made."""
    engine = opened()
    before = engine.notary.verifier_key()
    with pytest.raises(ForbiddenError, match="takes an administrator"):
        rotate_key(engine, Operator("m"), "why")
    with pytest.raises(InvalidRequestError, match="say why"):
        rotate_key(engine, ADMIN, "")
    assert engine.notary.verifier_key() == before
    assert engine.notary._signer.next_key() is None


def test_two_who_rotate_at_once_leave_one_key_that_the_log_names(
    database: Path, opened: Callable[[], Engine]
) -> None:
    """The one who is overtaken, at whichever step, is told, and everything verifies."""
    engine = opened()
    for before_recording in (True, False):

        def record(
            new: VerifierKey, statement: str, check: Callable[[], None], first: bool = before_recording
        ) -> None:
            def write() -> None:
                engine.run(
                    lambda batch: (
                        check(),
                        batch.record(
                            "log",
                            {"operator": "bob"},
                            {"event": "key_rotated", "key": new.format(), "statement": statement},
                        ),
                    )
                )

            if first:
                rotate_key(engine, ADMIN, "overtakes before")
                write()
            else:
                write()
                rotate_key(engine, ADMIN, "overtakes after")

        with pytest.raises(AuditError, match=r"somebody else rotates|another key was made"):
            engine.notary.rotate(record)
        act(database)
        engine.notary.sign()
        found = verify(engine)
        assert found.chain_valid, found.problem


def _rotating(engine: Engine) -> Callable[[], object]:
    return partial(rotate_key, engine, ADMIN, "killed")


def test_a_crash_at_any_system_call_of_a_rotation_leaves_one_key_that_goes_on(database: Path) -> None:
    """Old or new, the log says which; the first key still leads there, nothing alarms, and state is the fold."""
    engine = open_engine(database)
    first, kept = engine.notary.verifier_key(), engine.notary.sign()
    release(engine)
    point, finished, switched = 0, False, 0
    before = first
    while not finished:
        point += 1
        finished = lives_through(
            database, _rotating, point, ("open", "fsync", "replace", "unlink", "fdatasync")
        )
        act(database)
        engine = open_engine(database)
        try:
            assert engine.notary.alarm is None
            now = engine.notary.verifier_key()
            switched += now != before
            before = now
            found = verify(engine, kept)
            assert found.chain_valid, (point, found.problem)
            assert list(verify_state(engine)) == []
            note = engine.notary.sign()
            assert note is not None
            with engine.read() as reader:
                statements = engine.notary.keyring(noted_history(reader)).up_to(now)
                lines = list(
                    export_lines(
                        reader.rows(),
                        log=engine.store.log_id,
                        key=now,
                        checkpoint=note,
                        statements=statements,
                    )
                )
            assert verify_export(lines, first).ok
        finally:
            release(engine)
    assert finished
    assert 1 < switched < point
