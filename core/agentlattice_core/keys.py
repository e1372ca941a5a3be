"""Keys: what a program shows the service to say who it is.

| kind | in its text | for |
|---|---|---|
| agent | `al_agent_` | one agent, a delegated child included: acting |
| service | `al_svc_` | a program that registers agents, and exports and imports; it cannot act or decide |
| operator | `al_op_` | one registered person: deciding |

- A key's text is `<prefix><log id>_<random><checksum>`: 190 random bits and a CRC-32 in letters and digits. The log id
  says whose key it is, so that nothing is looked up across organisations, and a mistyped key is told from a wrong one.
- Its text is shown once, to whoever asked for it. The log and its state hold the SHA-256 of it. A key of 190 random
  bits cannot be found from that, so it needs no salt and no slow hash.
- That a key is in force is asked in the transaction that does what its holder wants (`check`), so a key that was
  revoked on one node does nothing on another.
- A key whose successor was issued ends when their overlap does. What has ended or was revoked never comes back.
- An operator's keys end with their registration (`operators.remove`), and a child's key with the delegation that
  follows the one it is for.
- A service key has an owner, the person who made it; an agent that it registers is theirs unless another is named. The
  first keys of a log, made before anybody is there, have none.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol, get_args

from agentlattice_core.batch import Batch
from agentlattice_core.clock import format_time
from agentlattice_core.errors import (
    IllegalTransitionError,
    InvalidKeyError,
    InvalidRequestError,
    NotFoundError,
)
from agentlattice_core.stores.base import Document

__all__ = [
    "LONGEST_OVERLAP",
    "IssuedKey",
    "Key",
    "KeyKind",
    "KeyText",
    "check",
    "digest_of",
    "find",
    "issue",
    "keys",
    "known",
    "revoke",
    "rotate",
    "split",
]

KeyKind = Literal["agent", "service", "operator"]

LONGEST_OVERLAP = timedelta(days=30)
"""Longest time that a key and its successor may both be in force."""

_PREFIXES: dict[KeyKind, str] = {"agent": "al_agent_", "service": "al_svc_", "operator": "al_op_"}
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_LENGTH = 32
_CHECKSUM_LENGTH = 6
_SHAPE = re.compile(
    r"(?P<prefix>al_agent_|al_svc_|al_op_)(?P<organisation>[A-Za-z0-9_.\-]{1,100})"
    r"_[0-9A-Za-z]{32}(?P<checksum>[0-9A-Za-z]{6})"
)


class _State(Protocol):
    def get(self, kind: str, key: str) -> Document | None: ...

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Document]]: ...


@dataclass(frozen=True, slots=True)
class KeyText:
    """What a key's own text says: its kind and the organisation (log id) that it is a key of."""

    kind: KeyKind
    organisation: str


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is known. `holder` is the agent's or the operator's name, or what a service key is called.

    `owner` is the person behind a service key, `delegation` what a child's key is for. A `session` is what a login
    began. Times are RFC 3339; `expires_at` is None for one that lasts until it is revoked.
    """

    id: str
    kind: KeyKind
    holder: str
    owner: str | None
    issued_at: str
    expires_at: str | None = None
    revoked_at: str | None = None
    delegation: str | None = None
    session: bool = False

    def in_force(self, at: str) -> bool:
        """Whether it counts at the time `at` of the log."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key, and its text, which is known nowhere else. It is left out of what this prints as."""

    key: Key
    text: str

    def __repr__(self) -> str:
        return f"IssuedKey(key={self.key!r})"


# Texts


def split(text: str) -> KeyText | None:
    """What `text` says, or None if it is no key: another shape, or a checksum that does not fit."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        return None
    if _checksum(text[:-_CHECKSUM_LENGTH]) != found["checksum"]:
        return None
    kind = next(kind for kind, prefix in _PREFIXES.items() if prefix == found["prefix"])
    return KeyText(kind, found["organisation"])


def digest_of(text: str) -> str:
    """By what a key is known: the SHA-256 of its text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _new_text(kind: KeyKind, organisation: str) -> str:
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    body = f"{_PREFIXES[kind]}{organisation}_{random}"
    return body + _checksum(body)


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


# Who shows it


def find(state: _State, digest: str, at: str) -> Key:
    """The key known by `digest`. Raises InvalidKeyError for one that is not known, has ended, or was revoked."""
    document = state.get("key", digest)
    if document is not None and hmac.compare_digest(document["digest"], digest):
        key = _key(document)
        if key.in_force(at) and _still_held(state, key):
            return key
    raise InvalidKeyError


def _still_held(state: _State, key: Key) -> bool:
    """Whether its holder is who it was made for: a person who is registered, a child under the same delegation."""
    if key.kind == "operator":
        return state.get("operator", key.holder) is not None
    if key.delegation is None:
        return True
    child = state.get("agent", key.holder)
    return child is not None and child.get("delegation") == key.delegation


def check(batch: Batch, digest: str | None) -> None:
    """Raise InvalidKeyError unless the key known by `digest` is in force; None is no key, and nothing to check."""
    if digest is not None:
        find(batch, digest, batch.at)


def keys(state: _State) -> list[Key]:
    """Every key that was ever issued, the oldest first."""
    return sorted(
        (_key(document) for _, document in state.scan("key")), key=lambda key: (key.issued_at, key.id)
    )


# Changing


def issue(
    batch: Batch,
    kind: KeyKind,
    holder: str,
    by: dict[str, Any],
    *,
    owner: str | None = None,
    delegation: str | None = None,
    lasts: timedelta | None = None,
) -> IssuedKey:
    """Make a key for `holder`; one that `lasts` for a time only is a session. Who may is the caller's to ask; `by` is
    how the entry names them.

    Raises NotFoundError for an agent or an operator that is not registered, InvalidRequestError.
    """
    if kind not in get_args(KeyKind):
        raise InvalidRequestError(f"key kind `{kind!s:.80}` must be one of {', '.join(get_args(KeyKind))}")
    if kind != "service" and batch.get(kind, holder) is None:
        raise NotFoundError(f"there is no {kind} `{holder:.80}`; register it first")
    text = _new_text(kind, batch.log_id)
    data: dict[str, Any] = {
        "event": "issued",
        "key": f"key_{batch.next_index:012x}{secrets.token_hex(6)}",
        "kind": kind,
        "holder": holder,
        "digest": digest_of(text),
    }
    if owner is not None:
        data["owner"] = owner
    if delegation is not None:
        data["delegation"] = delegation
    if lasts is not None:
        data["expires_at"] = format_time(batch.now + lasts)
    batch.record("key", by, data)
    return IssuedKey(known(batch, data["key"]), text)


def rotate(batch: Batch, key_id: str, by: dict[str, Any], overlap: float) -> IssuedKey:
    """Make a successor of a key, which itself ends in `overlap` seconds.

    Raises NotFoundError, InvalidRequestError for an overlap that is negative or beyond `LONGEST_OVERLAP`,
    IllegalTransitionError for a key that has ended, was revoked, or has a successor.
    """
    longest = LONGEST_OVERLAP.total_seconds()
    if isinstance(overlap, bool) or not isinstance(overlap, int | float) or not 0 <= overlap <= longest:
        raise InvalidRequestError(f"overlap must be from 0 to {int(longest)} seconds (30 days)")
    key = _in_force(batch, key_id, "rotated")
    if key.session:
        raise IllegalTransitionError(f"key `{key_id:.80}` is a session, which ends and is not rotated")
    if key.expires_at is not None:
        raise IllegalTransitionError(f"key `{key_id:.80}` has a successor already; rotate that one")
    issued = issue(batch, key.kind, key.holder, by, owner=key.owner)
    batch.record(
        "key",
        by,
        {
            "event": "rotated",
            "key": key_id,
            "successor": issued.key.id,
            "expires_at": format_time(batch.now + timedelta(seconds=overlap)),
        },
    )
    return issued


def revoke(batch: Batch, key_id: str, by: dict[str, Any]) -> Key:
    """End a key at once. Raises NotFoundError, and IllegalTransitionError for one that has ended."""
    _in_force(batch, key_id, "revoked")
    batch.record("key", by, {"event": "revoked", "key": key_id})
    return known(batch, key_id)


def _in_force(batch: Batch, key_id: str, what: str) -> Key:
    key = known(batch, key_id)
    if not key.in_force(batch.at):
        how = "was revoked" if key.revoked_at is not None else "has ended"
        raise IllegalTransitionError(f"key `{key_id:.80}` {how} already, so it cannot be {what}")
    return key


def known(state: _State, key_id: str) -> Key:
    """A key by its id. Raises NotFoundError."""
    found = state.get("key_id", key_id) if isinstance(key_id, str) else None
    document = state.get("key", found["digest"]) if found is not None else None
    if document is None:
        raise NotFoundError(f"there is no key `{key_id!s:.80}`")
    return _key(document)


def _key(document: Document) -> Key:
    return Key(
        document["id"],
        document["kind"],
        document["holder"],
        document["owner"],
        document["issued_at"],
        document["expires_at"],
        document["revoked_at"],
        document.get("delegation"),
        document.get("session", False),
    )
