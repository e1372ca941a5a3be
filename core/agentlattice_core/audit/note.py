"""Signed notes: a text, an empty line, and who vouches for it.

    <text, ending in a newline>

    — agentlattice/acme x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8p...

- A signature line is an em dash, the key's name, and base64 of four bytes of key id and the signature over
  the text.
- Signatures by keys that are not asked for are ignored (they may be witnesses); one by the key that is asked
  for must be right; without one, the note is worth nothing.
- A verifier key is `name+id+base64(0x01 || Ed25519 public key)`, the id in eight hex digits.

Specification: https://c2sp.org/signed-note
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agentlattice_core.audit.checkpoint import Checkpoint
from agentlattice_core.errors import AuditError

__all__ = ["SigningKey", "VerifierKey", "open_checkpoint", "open_note", "sign_note", "verifier_key_of"]

_ED25519: Final = b"\x01"
_KEY_BYTES: Final = 32
_ID_BYTES: Final = 4
_SIGNATURE_BYTES: Final = 64
_MAX_NOTE: Final = 1 << 20
_MAX_SIGNATURES: Final = 100
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_LINE: Final = re.compile(r"— (?P<name>\S+) (?P<blob>[A-Za-z0-9+/]+={0,2})")


class SigningKey(Protocol):
    """An Ed25519 private key, or whoever signs with one."""

    def sign(self, data: bytes, /) -> bytes:
        """The signature over `data`. Raises KeyServiceError if whoever holds the key does not sign."""
        ...

    def public_key(self) -> Ed25519PublicKey:
        """What its signatures are verified with."""
        ...


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """An Ed25519 public key with the name it signs under. Raises AuditError if either is malformed."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        if not _is_key_name(self.name):
            raise AuditError("a key name is empty or holds a space, a plus sign or a control character")
        if type(self.public) is not bytes or len(self.public) != _KEY_BYTES:
            raise AuditError("an Ed25519 public key has 32 bytes")

    @property
    def id(self) -> bytes:
        """The four bytes that tell keys of one name apart."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_ID_BYTES]

    def format(self) -> str:
        """The text to publish and to hand to verifiers."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """The inverse of `format`. Raises AuditError for another algorithm, a wrong id, or anything
        malformed."""
        parts = text.split("+", 2)
        if len(parts) != 3:
            raise AuditError("a verifier key is written `name+id+key`")
        material = _base64(parts[2], "the verifier key")
        if material[:1] != _ED25519 or len(material) != 1 + _KEY_BYTES:
            raise AuditError("the verifier key is not an Ed25519 key")
        key = cls(parts[0], material[1:])
        if key.format() != text:
            raise AuditError("the id in the verifier key does not belong to its name and key")
        return key


def verifier_key_of(name: str, private: SigningKey) -> VerifierKey:
    """The public side of a private key that signs under `name`."""
    return VerifierKey(name, private.public_key().public_bytes_raw())


def sign_note(text: str, name: str, private: SigningKey) -> str:
    """`text` with one signature. Raises AuditError if the text cannot be a note's: it must end in a newline; and what
    the key raises."""
    _check_text(text)
    blob = verifier_key_of(name, private).id + private.sign(text.encode())
    return f"{text}\n— {name} {base64.b64encode(blob).decode()}\n"


def open_note(note: str, key: VerifierKey) -> str:
    """The text of a note that `key` has signed. Raises AuditError otherwise, and never answers with unsigned
    text."""
    if len(note) > _MAX_NOTE:
        raise AuditError(f"a signed note of more than {_MAX_NOTE} characters")
    text, separator, tail = note.rpartition("\n\n")
    text += "\n"
    if not separator or not tail.endswith("\n"):
        raise AuditError(
            "the signed note has no signatures: after an empty line, lines that begin with an em dash"
        )
    _check_text(text)
    lines = tail[:-1].split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise AuditError(f"the signed note has more than {_MAX_SIGNATURES} signatures")
    signed = False
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None or not _is_key_name(found["name"]):
            raise AuditError("the signed note has a malformed signature line")
        blob = _base64(found["blob"], "a signature of the note")
        if len(blob) <= _ID_BYTES:
            raise AuditError("the signed note has a signature that is cut short")
        if found["name"] != key.name or blob[:_ID_BYTES] != key.id:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(blob[_ID_BYTES:], text.encode())
        except (InvalidSignature, ValueError):
            raise AuditError(f"the signature by `{key.name}` does not belong to this text") from None
        signed = True
    if not signed:
        raise AuditError(f"the note is not signed by `{key.name}` with key id {key.id.hex()}")
    return text


def open_checkpoint(note: str, key: VerifierKey) -> Checkpoint:
    """The checkpoint in a note that `key` has signed for its own log: origin and key name must be the same.

    Raises AuditError otherwise.
    """
    checkpoint = Checkpoint.parse(open_note(note, key))
    if checkpoint.origin != key.name:
        raise AuditError(f"the checkpoint is for `{checkpoint.origin}`, but the key is `{key.name}`'s")
    return checkpoint


def _check_text(text: str) -> None:
    if not text.endswith("\n") or text == "\n" or _CONTROL.search(text):
        raise AuditError("the text of a note must end in a newline and hold no other control characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise AuditError("the text of a note holds a lone surrogate, which no encoding can carry") from None


def _is_key_name(name: str) -> bool:
    if type(name) is not str or not name or "+" in name or any(character.isspace() for character in name):
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return _CONTROL.search(name) is None


def _base64(text: str, what: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise AuditError(f"{what} is not base64") from None
    if base64.b64encode(found).decode() != text:
        raise AuditError(f"{what} is not written in the one base64 form there is")
    return found
