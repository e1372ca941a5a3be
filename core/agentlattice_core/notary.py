"""Signing the log about once a second while there is traffic, and noticing when it is not the log that was signed.

- The signer's key and its record of what it signed last lie outside the database. A database that was cut short,
  restored from an old copy or rewritten does not extend that record.
- A log of which the key has signed nothing is not that key's: whoever began it signed it at once.
- Found out when the log is opened or when it is signed next, this is an alarm: the log can still be read and
  verified, but nothing more is recorded in it, because limits and approvals that were used would be free again.
- Only what is durable is signed, so a power cut never looks like tampering.
- The key may be rotated: the log records the statement by which the old key names the new one before that one signs.
- A key service that cannot be asked stops nothing: what is recorded meanwhile is signed as soon as it can be.
- Of many processes one signs at a time; whoever finds another at it looks again a moment later, so that nobody's death
  leaves the log unsigned.
- Every checkpoint is kept in the database, at the latest before the next one is signed, which names it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from agentlattice_core.audit.checkpoint import Checkpoint
from agentlattice_core.audit.entry import parse
from agentlattice_core.audit.keys import Keyring, read_statement
from agentlattice_core.audit.merkle import consistency_proof, leaf_hash, verify_consistency
from agentlattice_core.audit.note import VerifierKey, open_checkpoint
from agentlattice_core.audit.signer import FileSigner
from agentlattice_core.audit.tiles import TiledHashes
from agentlattice_core.errors import AuditError, StoreError
from agentlattice_core.history import History, noted_history
from agentlattice_core.stores.base import Reader, Store

__all__ = ["Notary"]

_log = logging.getLogger("agentlattice")


class Notary:
    """The signer of one store's log. `keep(size, note)` is called with each new checkpoint, to store it. `service` is
    the address of a key in a key service, if it must be that one that the file `key` names.
    """

    def __init__(
        self,
        store: Store,
        key: str | os.PathLike[str],
        keep: Callable[[int, str], None],
        service: str | None = None,
    ) -> None:
        self._store = store
        self._keep = keep
        try:
            self._signer = FileSigner(key, store.log_id, service)
        except OSError as error:
            raise StoreError(
                f"the signing key `{os.fspath(key)}` cannot be made: {error.strerror}"
            ) from error
        self.alarm: str | None = None
        self._kept = 0
        self.signed = self._compare()
        """How many entries were signed."""

    def verifier_key(self) -> VerifierKey:
        """The public key of the checkpoints."""
        return self._signer.verifier_key()

    @property
    def asks_a_service(self) -> bool:
        """Whether the key is in a key service, so that signing waits for another machine."""
        return self._signer.service is not None

    def last(self) -> Checkpoint:
        """What was signed last, by whichever process."""
        return open_checkpoint(self._signer.last(), self.verifier_key())

    def last_note(self) -> str:
        """The same, as the signed note."""
        return self._signer.last()

    def sign(self) -> str | None:
        """Sign the log as it is; the note, or None if the log does not extend what was signed before.

        Raises StoreError if the signer's files cannot be written, KeyServiceError if a key service does not sign.
        """
        with self._store.signing():
            return self._sign()

    def sign_unless_another_does(self) -> bool:
        """The same, unless another process signs at this moment; whether it was done here."""
        with self._store.signing(wait=False) as ours:
            if ours:
                self._sign()
        return ours

    def _sign(self) -> str | None:
        try:
            note = self._signer.sign(self._read_head, self._prove, self._keep_once)
        except AuditError as error:
            self._raise_alarm(error)
            return None
        except OSError as error:
            raise StoreError(f"the log could not be signed: {error.strerror}") from error
        self._note_signed(note)
        return note

    def keyring(self, history: History) -> Keyring:
        """The keys of this log, as its history tells them; the signer's own is the trusted one."""
        return Keyring(self.verifier_key(), history.statements)

    def rotate(
        self, record: Callable[[VerifierKey, str, Callable[[], None]], None], to: str | None = None
    ) -> VerifierKey:
        """Let a new key take over; its public side. `to` says where it is, as for `FileSigner.prepare_rotation`.

        `record(new, statement, check)` records the statement in the log, calling `check` in the transaction. Raises
        AuditError if the log is not the one that was signed, or somebody else rotates at the same time, and StoreError
        if the signer's files cannot be written.
        """
        if self.sign() is None:
            raise AuditError(self.alarm or "the log could not be signed")
        try:
            statement = read_statement(self._signer.prepare_rotation(to))

            def check() -> None:
                # Without the signer's lock: who holds it may wait for this very transaction to end.
                if self._signer.next_key() != statement.new:
                    raise AuditError("somebody else rotates the key at this moment; look which one is in use")

            record(statement.new, statement.note, check)
            self._finish(statement.new)
        except OSError as error:
            raise StoreError(f"the signing key could not be rotated: {error.strerror}") from error
        return statement.new

    def finish_rotation(self) -> None:
        """Finish what a process began that died after the log said that another key takes over."""
        if self.alarm is not None:
            return
        with self._store.read() as reader:
            statements = noted_history(reader).statements
        begun = read_statement(statements[-1]) if statements else None
        if begun is not None and begun.old == self.verifier_key() and begun.new == self._signer.next_key():
            self._finish(begun.new)

    def accept_cut(self, lost: str) -> None:
        """Go on from `lost` with a log that does not extend it, and says so in its last entry; the alarm ends.

        Raises AuditError if something else was signed last, StoreError if the signer's files cannot be written.
        """
        try:
            with self._store.signing():
                note = self._signer.accept_cut(lost, self._read_head)
        except OSError as error:
            raise StoreError(f"the log could not be signed: {error.strerror}") from error
        self.alarm, self.signed = None, 0
        self._note_signed(note)

    def _finish(self, new: VerifierKey) -> None:
        with self._store.signing():
            note = self._signer.finish_rotation(new, self._read_head, self._prove, self._keep_once)
        self._note_signed(note)

    def _note_signed(self, note: str) -> None:
        # Our own signer's, so that nobody asks which of its keys signed it.
        size = Checkpoint.parse(note.rpartition("\n\n")[0] + "\n").size
        if size > self.signed:
            self.signed = size
            self._keep_once(size, note)

    def _keep_once(self, size: int, note: str) -> None:
        """Keep a checkpoint, if this process has not done so; it may be another's that did not live to keep it."""
        if size != self._kept:
            self._keep(size, note)
            self._kept = size

    def _compare(self) -> int:
        """Whether the log extends what was signed last; the size of that."""
        last = self.last()
        try:
            with self._store.read() as reader:
                size, root = reader.head.size, reader.head.root()
                if size < last.size:
                    raise AuditError(
                        f"the log has {size} entries, but {last.size} were signed: it was cut short "
                        "or an old copy was restored"
                    )
                if size > 0:
                    _check_end(reader)
                # Asked once more: whoever recorded them may have begun and signed the log since it was read above.
                if last.size == 0 and size > 1 and self.last().size == 0:
                    self._raise_alarm(
                        AuditError(
                            f"the log has {size} entries, and its signing key has signed none: another key was put "
                            "in its place"
                        ),
                        "the key that signed it is put back, or named as `signing_key`",
                    )
                    return last.size
                verify_consistency(last.size, last.root, size, root, _proof(reader, last.size, size))
        except AuditError as error:
            self._raise_alarm(error)
        except (LookupError, TypeError, ValueError):
            self._raise_alarm(AuditError("what is stored cannot be read as a log"))
        return last.size

    def _raise_alarm(
        self,
        error: AuditError,
        until: str = "it is restored, or the copy accepted with `al audit accept-restore`",
    ) -> None:
        if self.alarm is None:
            _log.error("the audit log is not the one that was signed: %s", error)
        self.alarm = (
            f"the audit log is not the one that was signed ({error}); nothing is recorded in it until {until}"
        )

    def _read_head(self) -> tuple[int, bytes]:
        with self._store.read() as reader:
            return reader.head.size, reader.head.root()

    def _prove(self, old: int, new: int) -> list[bytes]:
        with self._store.read() as reader:
            return _proof(reader, old, new)


def _check_end(reader: Reader) -> None:
    """The stored head says after which entry the next one comes, and not before which time."""
    head = reader.head
    row = reader.row(head.size - 1)
    if row is None or not row[2] == leaf_hash(row[1]) == head.leaf:
        raise AuditError(f"the last of its {head.size} entries is missing or is not what was written")
    if parse(row[1]).at != head.at:
        raise AuditError(f"its head says that the last entry is of `{head.at}`, and the entry does not")


def _proof(reader: Reader, old: int, new: int) -> list[bytes]:
    return consistency_proof(old, new, TiledHashes(reader.tile, reader.leaves))
