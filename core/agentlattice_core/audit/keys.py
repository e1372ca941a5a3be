"""Which keys have signed a log, one after the other.

    agentlattice-key-rotation
    agentlattice/acme+<id>+<key>
    agentlattice/acme+<id>+<key>

- A statement names the old key, then the new one, and both sign it: the old one says who comes after it, the new one
  that it is there and whom it follows. It can never be read as a checkpoint.
- From a key that is trusted, statements lead to every later one. Whoever has the first key of a log needs no other.
- A key that was rotated out may have been stolen, so nothing signed by an earlier key than the one that is trusted is
  believed. It is good only for checkpoints that were kept, which are compared with the tree and found out if wrong.
- A statement that was recorded and never carried out is overruled by the next one of the same old key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agentlattice_core.audit.checkpoint import Checkpoint
from agentlattice_core.audit.note import (
    SigningKey,
    VerifierKey,
    open_checkpoint,
    open_note,
    sign_note,
    verifier_key_of,
)
from agentlattice_core.errors import AuditError

__all__ = ["KEY_ROTATED", "Keyring", "Statement", "cosigned", "read_statement", "state_rotation", "texts_of"]

KEY_ROTATED: Final = "key_rotated"
"""The `event` of the log's entry that holds a statement."""

_TITLE: Final = "agentlattice-key-rotation"


@dataclass(frozen=True, slots=True)
class Statement:
    """That `new` signs after `old`. `note` is the statement as both signed it."""

    old: VerifierKey
    new: VerifierKey
    note: str


def state_rotation(name: str, old: SigningKey, new: SigningKey) -> str:
    """The statement that `new` follows `old`, both signing under `name`, as a signed note."""
    keys = [verifier_key_of(name, key).format() for key in (old, new)]
    return cosigned("\n".join((_TITLE, *keys, "")), name, old, new)


def cosigned(text: str, name: str, *keys: SigningKey) -> str:
    """`text` as a note with one signature by each key."""
    lines = [sign_note(text, name, key).removeprefix(f"{text}\n") for key in keys]
    return f"{text}\n{''.join(lines)}"


def read_statement(note: str) -> Statement:
    """A statement that both of its keys have signed. Raises AuditError for anything else.

    It says nothing of whether either key is to be trusted.
    """
    lines = note.partition("\n\n")[0].split("\n")
    if len(lines) != 3 or lines[0] != _TITLE:
        raise AuditError("this is not a statement that one key follows another")
    old, new = VerifierKey.parse(lines[1]), VerifierKey.parse(lines[2])
    if old.name != new.name or old == new:
        raise AuditError("a statement names the same key twice, or keys of two logs")
    for key in (old, new):
        open_note(note, key)
    return Statement(old, new, note)


def texts_of(statements: object) -> list[str]:
    """Statements as a document lists them. Raises AuditError for anything but a list of texts."""
    if type(statements) is not list or not all(type(one) is str for one in statements):
        raise AuditError("the statements of key rotation are not a list of texts")
    return statements


class Keyring:
    """The keys that statements lead to from one that is trusted."""

    def __init__(self, trusted: VerifierKey, statements: Iterable[str] = ()) -> None:
        """`statements` are in the order in which the log records them.

        Raises AuditError if one is not signed by both of its keys, if they do not follow each other, or if `trusted` is
        none of their keys.
        """
        chain: list[Statement] = []
        for note in statements:
            statement = read_statement(note)
            if chain and chain[-1].old == statement.old:
                chain.pop()
            if chain and chain[-1].new != statement.old:
                raise AuditError("the statements of key rotation do not follow each other")
            chain.append(statement)
        keys = [chain[0].old, *(one.new for one in chain)] if chain else [trusted]
        if trusted not in keys:
            raise AuditError(f"the key with id {trusted.id.hex()} is none of those that signed this log")
        self._keys = keys
        self._since = keys.index(trusted)
        self.statements = [one.note for one in chain]
        """Those that hold, in order."""

    @property
    def newest(self) -> VerifierKey:
        """The key that no statement replaces."""
        return self._keys[-1]

    def reaches(self, key: VerifierKey) -> bool:
        """Whether `key` is the trusted one or follows it."""
        return key in self._keys[self._since :]

    def up_to(self, key: VerifierKey) -> list[str]:
        """The statements that lead from the first key to `key`, which must be one of them."""
        return self.statements[: self._keys.index(key)]

    def open(self, note: str) -> Checkpoint:
        """A checkpoint that the trusted key or a later one has signed. Raises AuditError otherwise."""
        return self._open(note, self._keys[self._since :])

    def open_kept(self, note: str) -> Checkpoint:
        """A checkpoint that any of the keys has signed, to be compared with the tree. Raises AuditError otherwise."""
        return self._open(note, self._keys)

    def _open(self, note: str, keys: list[VerifierKey]) -> Checkpoint:
        for key in keys[:0:-1]:
            try:
                return open_checkpoint(note, key)
            except AuditError:
                continue  # then one before it must have
        return open_checkpoint(note, keys[0])
