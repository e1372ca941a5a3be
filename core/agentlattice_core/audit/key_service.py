"""A signing key that a key service (KMS) holds, and the file that says which one it is.

    vault://vault.example.com:8200/transit/agentlattice
    3
    mDRPfK9ylLvDqEbIQcgcgGhdJKnPO4tRAnJx6QKxPJ4=

- The first line says where the key is. Alone, it stands for the version that is newest when the signer first uses it.
  Then the version and its public key are added, and that version signs until the log says that another takes over,
  whatever the service rotates meanwhile.
- A signature that the public key in the file does not verify is refused: the service is not believed, it is checked.
- The private key is never here, and neither is what opens the service.
- A service that cannot be asked says nothing about the log. So that is no alarm: entries wait to be signed.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agentlattice_core.audit.vault import VaultTransit
from agentlattice_core.errors import AuditError, InvalidRequestError, KeyServiceError

__all__ = ["KeyService", "ServiceKey", "is_key_service", "key_service", "read_service_key"]

_KEY_BYTES: Final = 32
_ADDRESS: Final = re.compile(r"[a-z][a-z+]*://\S+")
_FILE: Final = "file://"


class KeyService(Protocol):
    """One named key in a key service, in all its versions."""

    def newest(self) -> tuple[str, bytes]:
        """The newest version, and its Ed25519 public key of 32 bytes. Raises KeyServiceError."""
        ...

    def sign(self, version: str, data: bytes) -> bytes:
        """The Ed25519 signature over `data` by a version of the key. Raises KeyServiceError."""
        ...


def is_key_service(place: str) -> bool:
    """Whether `place` is a key in a service, and not the file of a key."""
    return _ADDRESS.fullmatch(place) is not None and not place.startswith(_FILE)


def key_service(address: str) -> KeyService:
    """The key at `address`. Raises InvalidRequestError for an address of no service that is known; asks nobody."""
    if address.startswith(("vault://", "vault+http://")):
        return VaultTransit(address)
    raise InvalidRequestError(
        f"there is no key service for `{address.partition('://')[0]:.20}://`; "
        "name a key as vault://HOST:PORT/MOUNT/NAME, or a file"
    )


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """One version of a key in a service, which signs as the private key in a file would."""

    address: str
    version: str
    public: bytes

    @classmethod
    def newest(cls, address: str) -> ServiceKey:
        """The version that is newest at `address` now. Raises KeyServiceError, InvalidRequestError."""
        version, public = key_service(address).newest()
        return cls(address, version, public)

    def public_key(self) -> Ed25519PublicKey:
        """What its signatures are verified with."""
        return Ed25519PublicKey.from_public_bytes(self.public)

    def sign(self, data: bytes, /) -> bytes:
        """The signature over `data`, verified. Raises KeyServiceError."""
        signature = key_service(self.address).sign(self.version, data)
        try:
            self.public_key().verify(signature, data)
        except InvalidSignature:
            raise KeyServiceError(
                f"the key service answered for `{self.address}` with a signature that is not by version "
                f"{self.version} of the key; nothing was signed. see whether that key was replaced"
            ) from None
        return signature

    def format(self) -> str:
        """What its file holds."""
        return f"{self.address}\n{self.version}\n{base64.b64encode(self.public).decode()}\n"


def read_service_key(content: bytes) -> ServiceKey | str | None:
    """What the file of a key says: a key in a service, or only where the first one is to be taken from; None if it is
    not about a service. Raises AuditError if it is cut short or was changed.
    """
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        return None
    if not is_key_service(lines[0]):
        return None
    if lines[1:] in ([], [""]):
        return lines[0]
    if len(lines) != 4 or lines[3] or not lines[1].isascii() or not lines[1].isprintable() or not lines[1]:
        raise AuditError("it names a key in a service, and not as it was written; restore it")
    try:
        public = base64.b64decode(lines[2], validate=True)
    except (binascii.Error, ValueError):
        public = b""
    if len(public) != _KEY_BYTES:
        raise AuditError("it names a key in a service without its public key; restore it")
    return ServiceKey(lines[0], lines[1], public)
