"""The signer: its key and what it signed last lie outside the database, so the database cannot rewrite the
past.

- It signs only a tree that extends the last tree it signed, and asks for the proof. A database that was cut
  short, restored from an old copy or rewritten cannot give one, so `sign` refuses; that refusal is an alarm.
- What is about to be signed is on disk before the signature leaves, so a crash in between can only make it
  stricter.
- Each checkpoint names the one before it, and is only signed once that one is kept, so that of those kept none can be
  taken away unnoticed.
- The head is read while the signer's lock is held, so that of several processes none is refused for being
  late.
- Sign what is durable and nothing else: a head that a power cut takes back could never be signed past.
- Files: the key (0600; a raw private key in PEM, made at first use, or which key of a key service signs, see
  `key_service`), `<key>.signed` (the last checkpoint, itself signed), `<key>.lock`. A key without its `.signed` file,
  or the other way round, is refused: somebody removed one.
- Another key takes over in two steps, so that the log can say so in between: `prepare_rotation` makes it, in
  `<key>.next`, and `finish_rotation` has both sign the log as it is and puts the new one in the place of the old one. A
  crash before the second step leaves the old key signing; repeating the step is always right.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from agentlattice_core.audit.checkpoint import Checkpoint, log_origin
from agentlattice_core.audit.key_service import ServiceKey, read_service_key
from agentlattice_core.audit.keys import cosigned, state_rotation
from agentlattice_core.audit.merkle import EMPTY_ROOT, verify_consistency
from agentlattice_core.audit.note import SigningKey, VerifierKey, open_checkpoint, sign_note, verifier_key_of
from agentlattice_core.errors import AuditError, InvalidRequestError

__all__ = ["IN_FILE", "FileSigner", "Keep", "ProveConsistency", "ReadHead", "Signer"]

IN_FILE: Final = "file"
"""What a key is rotated to so that it lies in its file."""

ReadHead = Callable[[], tuple[int, bytes]]
"""Reads the size and root of the log as it is durably stored now."""
ProveConsistency = Callable[[int, int], Sequence[bytes]]
"""`prove(old, new)`: the consistency proof between two sizes of the log, see `merkle.consistency_proof`."""

Keep = Callable[[int, str], None]
"""`keep(size, note)`: have the checkpoint signed last stored durably, if it is not; asked before the next is signed."""


class Signer(Protocol):
    """Signs checkpoints of one log, each consistent with the one before."""

    def verifier_key(self) -> VerifierKey:
        """The public key that checkpoints are verified with."""
        ...

    def last(self) -> str:
        """The checkpoint signed last, as a signed note; at first that of the empty log."""
        ...

    def sign(self, read_head: ReadHead, prove: ProveConsistency, keep: Keep) -> str:
        """Sign the log as it is now; the signed note. Raises AuditError if it does not extend what was signed
        last."""
        ...


class FileSigner:
    """A signer whose key is a file, or is in the service that the file names. Many processes may share it; each call
    takes the lock and reads the files anew."""

    def __init__(self, path: str | os.PathLike[str], log: str, service: str | None = None) -> None:
        """The signer of log `log` with its key at `path`, made now if there is none: in the file, or, if `service` is
        the address of a key in a key service, by taking the newest version there.

        Raises AuditError if the key is unreadable, open to others, of another log, not of `service`, or if one of its
        files is missing, and KeyServiceError if a first key cannot be taken.
        """
        self._path = Path(os.path.abspath(path))  # the process may change its directory
        self._signed = self._path.with_name(self._path.name + ".signed")
        self._lock = self._path.with_name(self._path.name + ".lock")
        self._next = self._path.with_name(self._path.name + ".next")
        self._origin = log_origin(log)
        with self._locked():
            found = self._load(self._path) if self._path.exists() else None
            if found is None or isinstance(found, str):
                self._generate(found or service)
            self._read_last()
            self._check_service(service)

    def verifier_key(self) -> VerifierKey:
        """The public key as of the last call of another method: another process may have rotated it since."""
        return self._key

    def last(self) -> str:
        with self._locked():
            return self._read_last()[0]

    def sign(self, read_head: ReadHead, prove: ProveConsistency, keep: Keep) -> str:
        """Sign the log as it is now.

        The functions are called while the signer's lock is held; none may call the signer. Raises
        AuditError if the log does not extend the one signed last, or OSError if that cannot be written.
        """
        with self._locked():
            note, last = self._read_last()
            now = self._extended(last, read_head, prove)
            if now is last:
                return note
            if last.size > 0:
                keep(last.size, note)
            note = sign_note(now.format(), self._origin, self._private)
            self._write_last(note)
            return note

    @property
    def service(self) -> str | None:
        """The address of the key that signs, if it is in a key service; as of the last call of another method."""
        return self._private.address if isinstance(self._private, ServiceKey) else None

    def prepare_rotation(self, to: str | None = None) -> str:
        """Make the key that is to follow, in place of one that was made and not put in use; the statement of both.

        `to` is the address of a key in a key service, of which the newest version is taken, or `IN_FILE`; by default
        where the key is that signs now. Raises InvalidRequestError if the newest version there is what signs now, and
        KeyServiceError.
        """
        with self._locked():
            self._read_last()
            to = to or self.service or IN_FILE
            private = Ed25519PrivateKey.generate() if to == IN_FILE else ServiceKey.newest(to)
            if verifier_key_of(self._origin, private) == self._key:
                raise InvalidRequestError(
                    f"the newest version of `{to}` signs the log already; rotate the key there first"
                )
            statement = state_rotation(self._origin, self._private, private)
            _write_durably(self._next, _content(private), exclusive=False)
            return statement

    def next_key(self) -> VerifierKey | None:
        """The public side of the key that was made to follow, if there is one. Takes no lock."""
        return verifier_key_of(self._origin, self._load_key(self._next)) if self._next.exists() else None

    def finish_rotation(
        self, new: VerifierKey, read_head: ReadHead, prove: ProveConsistency, keep: Keep
    ) -> str:
        """Sign the log as it is now with both keys, and let the new one take over; the note with both signatures.

        As `sign`. Raises AuditError too if `new` is not the key that was made to follow.
        """
        with self._locked():
            note, last = self._read_last()
            if self._key == new:
                return note  # somebody else has finished it
            if self.next_key() != new:
                raise AuditError(
                    "another key was made to follow in the meantime; see which one the log names"
                )
            now = self._extended(last, read_head, prove)
            if last.size > 0 and now is not last:
                keep(last.size, note)
            note = cosigned(now.format(), self._origin, self._private, self._load_key(self._next))
            self._write_last(note)
            os.replace(self._next, self._path)
            _sync_directory(self._path.parent)
            self._read_last()
            return note

    def accept_cut(self, lost: str, read_head: ReadHead) -> str:
        """Sign a log that does not extend `lost`, which was signed last, and name that all the same; the note.

        Only for a log that says so itself. Raises AuditError if something else was signed last.
        """
        with self._locked():
            note, last = self._read_last()
            if note != lost:
                raise AuditError("another checkpoint was signed in the meantime; look again")
            note = sign_note(last.following(*read_head()).format(), self._origin, self._private)
            self._write_last(note)
            return note

    def _extended(self, last: Checkpoint, read_head: ReadHead, prove: ProveConsistency) -> Checkpoint:
        """The checkpoint to sign after `last`; `last` itself if the log has not grown."""
        size, root = read_head()
        if (size, root) == (last.size, last.root):
            return last
        if size < last.size:
            raise AuditError(
                f"the log has {size} entries, but {last.size} were signed: it was cut short or an old copy "
                "was restored; find the entries that are missing, nothing more is signed before",
                {"size": size, "signed_size": last.size},
            )
        try:
            verify_consistency(last.size, last.root, size, root, prove(last.size, size))
        except AuditError as error:
            raise AuditError(
                f"the log does not extend the {last.size} entries that were signed: {error.message}",
                {"size": size, "signed_size": last.size},
            ) from error
        return last.following(size, root)

    def _generate(self, service: str | None) -> None:
        if self._signed.exists() and self._size_on_file() > 0:
            raise AuditError(
                f"the signing key `{self._path}` is gone, but `{self._signed.name}` says that it signed "
                "checkpoints; restore the key"
            )
        private = ServiceKey.newest(service) if service is not None else Ed25519PrivateKey.generate()
        empty = Checkpoint(self._origin, 0, EMPTY_ROOT)
        # In this order a crash leaves a record without a key, of nothing, which the next start makes anew.
        self._write_last(sign_note(empty.format(), self._origin, private))
        _write_durably(self._path, _content(private), exclusive=not self._path.exists())

    def _size_on_file(self) -> int:
        """The size in a record whose key is gone, so that its signature cannot be checked."""
        try:
            text = self._signed.read_text(encoding="utf-8")
            return Checkpoint.parse(text.rpartition("\n\n")[0] + "\n").size
        except (OSError, ValueError, AuditError) as error:
            raise AuditError(
                f"`{self._signed}` cannot be read: {error}; restore the key and this file"
            ) from None

    def _check_service(self, service: str | None) -> None:
        if service is not None and service != self.service:
            there = f"`{self.service}`" if self.service else "a key in that file"
            raise AuditError(
                f"the log is signed by {there}, as `{self._path}` says, and not by `{service}`; name that file, and "
                "let the other key take over with `al audit rotate-key --to`"
            )

    def _load_key(self, path: Path) -> SigningKey:
        """The key in a file that was in use, or is to be."""
        key = self._load(path)
        if isinstance(key, str):
            raise AuditError(f"the signing key `{path}` lacks the version that signed; restore it")
        return key

    def _load(self, path: Path) -> SigningKey | str:
        """The key in a file, or the address at which it says that a first one is to be taken."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
                pem = file.read()
        except OSError as error:
            raise AuditError(f"the signing key `{path}` cannot be read: {error.strerror}") from None
        if mode & 0o077:
            raise AuditError(
                f"the signing key `{path}` can be read by others (mode {mode:04o}); run `chmod 600` on "
                "it, and replace it if somebody may have copied it"
            )
        try:
            kept = read_service_key(pem)
        except AuditError as error:
            raise AuditError(f"the signing key `{path}` cannot be used: {error.message}") from None
        if kept is not None:
            return kept
        try:
            private = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            private = None
        if not isinstance(private, Ed25519PrivateKey):
            raise AuditError(
                f"the signing key `{path}` is not an Ed25519 private key in PEM, and names none in a key service"
            )
        return private

    def _read_last(self) -> tuple[str, Checkpoint]:
        """What was signed last, with the key that is in use now."""
        self._private = self._load_key(self._path)
        self._key = verifier_key_of(self._origin, self._private)
        try:
            note = self._signed.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise AuditError(
                f"`{self._signed}`, the record of what was signed last, cannot be read: {error}; restore it"
            ) from None
        try:
            return note, open_checkpoint(note, self._key)
        except AuditError as error:
            raise AuditError(
                f"`{self._signed}`, the record of what was signed last, is not this key's: {error.message}"
            ) from None

    def _write_last(self, note: str) -> None:
        _write_durably(self._signed, note.encode(), exclusive=False)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the signer's lock. It is advisory and released by the system when a process dies."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise AuditError(f"`{self._lock}` cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            # Closing is not enough: a child forked meanwhile would hold the lock for as long as it lives.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _write_durably(path: Path, content: bytes, *, exclusive: bool) -> None:
    """Write a 0600 file that is there whole or not at all, also after a power cut.

    `exclusive`: raise FileExistsError rather than replace.
    """
    temporary = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # left by a process that died in here; the lock is ours
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    if exclusive:
        try:
            os.link(temporary, path)
        finally:
            os.unlink(temporary)
    else:
        os.replace(temporary, path)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _content(key: Ed25519PrivateKey | ServiceKey) -> bytes:
    """What the file of a key holds."""
    if isinstance(key, ServiceKey):
        return key.format().encode()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
