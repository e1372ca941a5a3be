"""A key service signs the log as a key in a file does, and is checked and waited for; it is not believed.

The service is `transit_engine`, which speaks the protocol of the real one.
"""

from __future__ import annotations

import logging
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from memory_log import MemoryLog
from transit_engine import TOKEN, TransitEngine, transit_engine

from agentlattice_core import AgentLattice, AuditError, InvalidRequestError
from agentlattice_core.audit.checkpoint import Checkpoint
from agentlattice_core.audit.key_service import ServiceKey, is_key_service, key_service
from agentlattice_core.audit.keys import Keyring, read_statement
from agentlattice_core.audit.merkle import consistency_proof
from agentlattice_core.audit.note import VerifierKey, open_checkpoint
from agentlattice_core.audit.proof import verify_proof
from agentlattice_core.audit.signer import IN_FILE, FileSigner
from agentlattice_core.engine import open_engine, release
from agentlattice_core.errors import KeyServiceError
from agentlattice_core.history import noted_history
from agentlattice_core.principals import Operator
from agentlattice_core.proving import prove
from agentlattice_core.rotation import rotate_key
from agentlattice_core.verification import verify

ADMIN = Operator("ada", "admin")


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[TransitEngine]:
    """A key service, and its token in the environment."""
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    for name in ("VAULT_TOKEN_FILE", "VAULT_NAMESPACE", "VAULT_CACERT"):
        monkeypatch.delenv(name, raising=False)
    with transit_engine() as engine:
        yield engine


@pytest.fixture(params=["file", "service"])
def service(request: pytest.FixtureRequest, vault: TransitEngine) -> str | None:
    """Where the key is: None for its file."""
    return vault.address if request.param == "service" else None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "acme.key"


def sign(signer: FileSigner, log: MemoryLog, size: int | None = None) -> Checkpoint:
    """Sign `log` as if it had `size` entries, and open what was signed."""
    now = log.checkpoint(size)
    note = signer.sign(lambda: (now.size, now.root), proof(log), lambda size, note: None)
    return open_checkpoint(note, signer.verifier_key())


def proof(log: MemoryLog) -> Any:
    return lambda old, new: consistency_proof(old, new, log.hashes())


# What holds of a signer wherever its key is


def test_a_key_signs_the_log_and_stays_the_same(path: Path, service: str | None) -> None:
    """It is taken or made once; what it signs verifies with the published key, after a restart too."""
    log, signer = MemoryLog().fill(5), FileSigner(path, "acme", service)
    assert (sign(signer, log).size, sign(signer, log.fill(3)).size) == (5, 8)
    for again in (FileSigner(path, "acme", service), FileSigner(path, "acme")):
        assert again.verifier_key() == signer.verifier_key()
        assert open_checkpoint(again.last(), again.verifier_key()).size == 8
        assert again.service == service
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o600}


def test_a_log_that_is_not_the_one_that_was_signed_is_refused(path: Path, service: str | None) -> None:
    """Cut short or rewritten, wherever the key is."""
    log, signer = MemoryLog().fill(12), FileSigner(path, "acme", service)
    sign(signer, log)
    with pytest.raises(AuditError, match="cut short"):
        sign(signer, log, 7)
    forged = log.resealed(lambda index, data: data.update(n=-1) if index == 3 else None).fill(1)
    with pytest.raises(AuditError, match="does not extend"):
        sign(signer, forged)


@pytest.mark.parametrize("missing", ["", ".signed"])
def test_a_key_whose_record_is_gone_is_refused(path: Path, service: str | None, missing: str) -> None:
    """Either file without the other means that somebody removed one."""
    sign(FileSigner(path, "acme", service), MemoryLog().fill(2))
    path.with_name(path.name + missing).unlink()
    with pytest.raises(AuditError, match=r"is gone|cannot be read"):
        FileSigner(path, "acme", service)


def test_a_key_is_rotated(path: Path, service: str | None, vault: TransitEngine) -> None:
    """Both keys sign the statement and the hand-over, and the new one goes on alone."""
    log, signer = MemoryLog().fill(5), FileSigner(path, "acme", service)
    sign(signer, log)
    old = signer.verifier_key()
    vault.rotate()
    statement = read_statement(signer.prepare_rotation())
    assert statement.old == old
    now = log.fill(1).checkpoint()
    note = signer.finish_rotation(
        statement.new, lambda: (now.size, now.root), proof(log), lambda size, note: None
    )
    for key in (old, statement.new):
        assert open_checkpoint(note, key).size == 6
    assert sign(signer, log.fill(1)).size == 7
    assert FileSigner(path, "acme", service).verifier_key() == statement.new != old
    assert Keyring(old, [statement.note]).reaches(statement.new)


# What holds of a key service


def test_what_the_service_rotates_does_not_change_who_signs(path: Path, vault: TransitEngine) -> None:
    """The version that was taken signs until the log names another, which is then taken from there."""
    log, signer = MemoryLog().fill(2), FileSigner(path, "acme", vault.address)
    first = signer.verifier_key()
    vault.rotate()
    vault.rotate()
    sign(signer, log)
    assert FileSigner(path, "acme", vault.address).verifier_key() == first
    assert first.public == vault.keys[0].public_key().public_bytes_raw()
    signer.prepare_rotation()
    following = signer.next_key()
    assert following is not None
    assert following.public == vault.keys[2].public_key().public_bytes_raw()


def test_a_rotation_takes_a_newer_version(path: Path, vault: TransitEngine) -> None:
    """Where the newest is what signs already, nothing is prepared, and it says what to do first."""
    signer = FileSigner(path, "acme", vault.address)
    with pytest.raises(InvalidRequestError, match="signs the log already; rotate the key there first"):
        signer.prepare_rotation()
    assert signer.next_key() is None


def test_the_private_key_and_the_token_are_in_no_file(path: Path, vault: TransitEngine) -> None:
    """The file names the key, its version and its public side."""
    sign(FileSigner(path, "acme", vault.address), MemoryLog().fill(2))
    lines = path.read_text().split("\n")
    assert lines[:2] == [vault.address, "1"]
    for one in path.parent.iterdir():
        assert TOKEN.encode() not in one.read_bytes()
        assert vault.keys[0].private_bytes_raw() not in one.read_bytes()


def test_a_file_may_say_where_the_first_key_is(path: Path, vault: TransitEngine) -> None:
    """One line, written by whoever deploys; the signer adds which version it took."""
    path.write_text(f"{vault.address}\n")
    path.chmod(0o600)
    signer = FileSigner(path, "acme")
    assert sign(signer, MemoryLog().fill(2)).size == 2
    assert ServiceKey(vault.address, "1", signer.verifier_key().public).format() == path.read_text()
    path.write_text(f"{vault.address}\n")
    with pytest.raises(AuditError, match="is gone, but"):
        FileSigner(path, "acme")


def test_a_file_that_was_changed_is_refused(path: Path, vault: TransitEngine) -> None:
    """Another version, another key, a line less or more: nothing is signed, and nobody is asked."""
    sign(FileSigner(path, "acme", vault.address), MemoryLog().fill(2))
    whole, asked = path.read_text(), len(vault.calls)
    address, version, public, _ = whole.split("\n")
    other = ServiceKey(address, version, bytes(32)).format()
    for changed in (f"{address}\n{version}\n", f"{address}\n\n{public}\n", f"{whole}x\n", other, whole[:-5]):
        path.write_text(changed)
        with pytest.raises(AuditError):
            FileSigner(path, "acme")
    assert len(vault.calls) == asked


def test_a_key_that_is_not_the_one_that_was_named_is_refused(path: Path, vault: TransitEngine) -> None:
    """Naming a service where a file signs, or another key of it, changes nothing; it says how to go over to it."""
    FileSigner(path, "acme")
    with pytest.raises(AuditError, match="rotate-key --to"):
        FileSigner(path, "acme", vault.address)
    other = path.with_name("other.key")
    FileSigner(other, "acme", vault.address)
    with pytest.raises(AuditError, match="is signed by"):
        FileSigner(other, "acme", f"{vault.address}-2")


def wrong_key(vault: TransitEngine) -> None:
    vault.keys[0] = Ed25519PrivateKey.generate()


def other_token(vault: TransitEngine) -> None:
    vault.token = "another"


def answering(status: int, document: Any) -> Any:
    def change(vault: TransitEngine) -> None:
        vault.answer = lambda path: (status, document)

    return change


FAULTS = {
    "a signature that does not verify": (wrong_key, "not by version 1"),
    "a token that is refused": (other_token, "refuses the token"),
    "a key that is gone": (answering(404, {"errors": []}), "knows no such key"),
    "a version that is gone": (answering(400, {"errors": ["too old"]}), "does not sign with that version"),
    "sealed": (answering(503, {"errors": ["Vault is sealed"]}), "is sealed"),
    "broken": (answering(500, {"errors": ["1 error occurred"]}), "HTTP 500"),
    "a redirect": (answering(307, {}), "HTTP 307"),
    "no JSON": (answering(200, b"<html>"), "does not speak"),
    "no data": (answering(200, {"data": None}), "does not speak"),
    "another version": (answering(200, {"data": {"signature": "vault:v2:AAAA"}}), "does not speak"),
    "no signature": (answering(200, {"data": {"signature": "vault:v1:!"}}), "does not speak"),
    "no end": (answering(200, b" " * (1 << 21)), "does not speak"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_service_does_wrong_signs_nothing(path: Path, vault: TransitEngine, fault: str) -> None:
    """One line that says what to do, without the token; what was signed stays, and signing goes on afterwards."""
    log, signer = MemoryLog().fill(2), FileSigner(path, "acme", vault.address)
    sign(signer, log)
    kept, before = vault.keys[0], path.with_name("acme.key.signed").read_bytes()
    change, says = FAULTS[fault]
    change(vault)
    with pytest.raises(KeyServiceError, match=says) as raised:
        sign(signer, log.fill(1))
    assert "\n" not in raised.value.message
    assert TOKEN not in raised.value.message
    assert path.with_name("acme.key.signed").read_bytes() == before
    vault.keys[0], vault.token, vault.answer = kept, TOKEN, lambda path: None
    assert sign(signer, log).size == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda vault: setattr(vault, "kind", "ecdsa-p256"), "of type `ecdsa-p256`"),
        (answering(404, {"errors": []}), "knows no such key"),
        (answering(200, {"data": {"type": "ed25519", "latest_version": 1, "keys": {}}}), "does not speak"),
        (other_token, "refuses the token"),
    ],
)
def test_a_first_key_that_cannot_be_taken_leaves_nothing(
    path: Path, vault: TransitEngine, change: Any, says: str
) -> None:
    """Of another kind, not there, or not for us: it says so, and the next start begins anew."""
    change(vault)
    with pytest.raises(KeyServiceError, match=says):
        FileSigner(path, "acme", vault.address)
    assert not path.exists()
    vault.kind, vault.token, vault.answer = "ed25519", TOKEN, lambda path: None
    assert sign(FileSigner(path, "acme", vault.address), MemoryLog().fill(1)).size == 1


def test_a_token_file_is_read_for_each_call(
    path: Path, vault: TransitEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that renews the token writes it there; a namespace is sent along."""
    monkeypatch.delenv("VAULT_TOKEN")
    file = path.with_name("token")
    monkeypatch.setenv("VAULT_TOKEN_FILE", str(file))
    with pytest.raises(KeyServiceError, match="cannot be read"):
        FileSigner(path, "acme", vault.address)
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("VAULT_NAMESPACE", "team")
    vault.namespace = "team"
    log, signer = MemoryLog().fill(1), FileSigner(path, "acme", vault.address)
    sign(signer, log)
    vault.token = "renewed"
    file.write_text("renewed\n")
    assert sign(signer, log.fill(1)).size == 2


def test_a_service_is_known_by_its_certificate(
    path: Path, vault: TransitEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is spoken to by TLS, with the authority in VAULT_CACERT; anybody else gets neither token nor data."""
    server, _ = certificate(path.parent, "127.0.0.1")
    with transit_engine(server) as secured:
        with pytest.raises(KeyServiceError, match=r"cannot be reached \(ConnectError\)"):
            FileSigner(path, "acme", secured.address)
        assert secured.calls == []
        monkeypatch.setenv("VAULT_CACERT", str(path.parent / "nothing.pem"))
        with pytest.raises(KeyServiceError, match="VAULT_CACERT"):
            FileSigner(path, "acme", secured.address)
        monkeypatch.setenv("VAULT_CACERT", str(path.parent / "chain.pem"))
        assert sign(FileSigner(path, "acme", secured.address), MemoryLog().fill(1)).size == 1


def test_a_service_that_is_not_there_is_said_by_its_address(path: Path, vault: TransitEngine) -> None:
    """Nothing listens: one line, and nothing was signed."""
    key = ServiceKey(
        "vault+http://127.0.0.1:1/transit/log", "1", vault.keys[0].public_key().public_bytes_raw()
    )
    with pytest.raises(KeyServiceError, match=r"`vault\+http://127.0.0.1:1/transit/log` cannot be reached"):
        key.sign(b"text")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("vault://vault.example.com", "MOUNT/NAME"),
        ("vault://vault.example.com/log", "MOUNT/NAME"),
        ("vault://vault.example.com/transit/../log", "MOUNT/NAME"),
        ("vault://vault.example.com/transit/log?x=1", "MOUNT/NAME"),
        ("vault://vault.example.com:x/transit/log", "MOUNT/NAME"),
        ("vault://token:hvs.secret@vault.example.com/transit/log", "MOUNT/NAME"),
        ("vault+http://vault.example.com/transit/log", "in the clear"),
        ("gopher://vault.example.com/transit/log", "no key service for `gopher://`"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused(address: str, says: str) -> None:
    """Before anybody is asked; a secret that somebody put into it is not repeated."""
    assert is_key_service(address)
    with pytest.raises(InvalidRequestError, match=says) as raised:
        key_service(address)
    assert "secret" not in raised.value.message


# What holds of a log whose key is in a service


def client(database: Path, vault: TransitEngine) -> AgentLattice:
    return AgentLattice.embedded(database, operator="ada", role="admin", signing_key=vault.address)


def test_a_log_is_signed_and_verified_by_the_public_key(tmp_path: Path, vault: TransitEngine) -> None:
    """Which the service made: what is signed is opened with it, and the log proves an entry to whoever has it."""
    with client(tmp_path / "governance.db", vault) as al:
        al.register_operator_sync("ada", role="admin")
        key = VerifierKey.parse(al.verifier_key())
        assert key.public == vault.keys[0].public_key().public_bytes_raw()
        assert open_checkpoint(al.checkpoint_sync(), key).size == 2
        assert al.verify_sync().chain_valid
    engine = open_engine(tmp_path / "governance.db", signing_key=vault.address)
    try:
        assert verify_proof(prove(engine, "1"), key)
    finally:
        release(engine)


def test_recording_goes_on_while_the_service_is_away(
    tmp_path: Path, vault: TransitEngine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises no alarm; opening, recording and closing work, and it is signed unasked when the service is back."""
    for name in ("_SIGNING_INTERVAL", "_KEY_SERVICE_INTERVAL"):
        monkeypatch.setattr(f"agentlattice_core.engine.{name}", 0.05)
    database = tmp_path / "governance.db"
    client(database, vault).close()
    vault.answer = lambda path: (503, {"errors": ["Vault is sealed"]})
    with caplog.at_level(logging.WARNING, "agentlattice"):
        with client(database, vault) as al:
            al.register_operator_sync("ada", role="admin")
            with pytest.raises(KeyServiceError, match="is sealed"):
                al.checkpoint_sync()
            assert al.verify_sync().chain_valid
        assert "is signed when it is opened again" in caplog.text
        engine = open_engine(database, signing_key=vault.address)
        try:
            until(lambda: engine.unsigned)
            behind = engine.notary.signed
            assert engine.notary.alarm is None
            vault.answer = lambda path: None
            until(lambda: engine.notary.signed > behind and not engine.unsigned)
            assert verify(engine).chain_valid
        finally:
            release(engine)
    assert caplog.text.count("the log waits to be signed") <= 2  # one for each time it was open
    assert TOKEN not in caplog.text


def until(holds: Callable[[], bool]) -> None:
    """Wait until `holds`."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_log_goes_over_to_a_service_and_back(tmp_path: Path, vault: TransitEngine) -> None:
    """To it, to its next version, into a file, to the next file: whoever has the first key believes each of them."""
    database = tmp_path / "governance.db"
    steps = (
        (None, vault.address, True),
        (vault.address, None, True),
        (vault.address, IN_FILE, False),
        (None, None, False),
    )
    first = None
    for named, to, in_service in steps:
        engine = open_engine(database, signing_key=named)
        try:
            first = first or engine.notary.verifier_key()
            vault.rotate()
            new = rotate_key(engine, ADMIN, "yearly", to)
            assert engine.notary.verifier_key() == new
            assert engine.notary.asks_a_service == in_service
            assert verify(engine).chain_valid
            with engine.read() as reader:
                assert Keyring(first, noted_history(reader).statements).reaches(new)
        finally:
            release(engine)


def test_a_rotation_that_the_service_did_not_finish_is_finished_later(
    tmp_path: Path, vault: TransitEngine
) -> None:
    """The log names the new key and the old one signs until both can be asked; then opening it is enough."""
    database = tmp_path / "governance.db"
    engine = open_engine(database, signing_key=vault.address)
    old = engine.notary.verifier_key()
    vault.rotate()
    asked = 0

    def once_more(path: str) -> tuple[int, Any] | None:
        # Both sign the statement, and the hand-over is refused.
        nonlocal asked
        asked += path.startswith("/v1/transit/sign")
        return (503, {"errors": ["Vault is sealed"]}) if asked > 3 else None

    vault.answer = once_more
    try:
        with pytest.raises(KeyServiceError, match="is sealed"):
            rotate_key(engine, ADMIN, "yearly")
    finally:
        release(engine)
    for answer, version in ((once_more, 0), (lambda path: None, 1)):
        vault.answer = answer
        engine = open_engine(database, signing_key=vault.address)
        try:
            assert engine.notary.alarm is None
            public = engine.notary.verifier_key().public
            assert public == vault.keys[version].public_key().public_bytes_raw()
            assert verify(engine).chain_valid
        finally:
            release(engine)
    assert public != old.public
