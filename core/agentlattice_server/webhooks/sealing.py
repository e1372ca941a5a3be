"""Keeping the secrets of webhooks: sealed in the log's erasable part, opened by a key that lies outside the database.

- A copy of the database or an export of the log tells no address and no secret.
- The file holds one key a line; the first seals, all of them open. To change keys, put a new one first.
- What is sealed names its subscription, so that one cannot be given another's secrets by editing the database.
- Fernet (AES-128-CBC with HMAC-SHA256) of the `cryptography` library. See docs/adr/0022-webhooks.md.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from agentlattice_core.errors import AgentLatticeError, StoreError

__all__ = ["SealingError", "SealingKey"]


class SealingError(AgentLatticeError):
    """What was sealed cannot be opened with the keys that are here."""

    def __init__(self, message: str) -> None:
        super().__init__("CANNOT_UNSEAL", message)


class SealingKey:
    """The keys in a file, which is made if it is not there and `make` says so."""

    def __init__(self, path: str | os.PathLike[str], *, make: bool = True) -> None:
        """Raises StoreError if the file cannot be used."""
        self.path = Path(path)
        try:
            if make:
                _make(self.path)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
                lines = file.read().split()
        except OSError as error:
            raise StoreError(f"the webhook key `{self.path}` cannot be used: {error.strerror}") from None
        if mode & 0o077:
            raise StoreError(
                f"the webhook key `{self.path}` can be read by others (mode {mode:04o}); run `chmod 600` on it"
            )
        try:
            self._keys = MultiFernet([Fernet(line) for line in lines])
        except ValueError:
            raise StoreError(
                f"the webhook key `{self.path}` holds no key, or something that is none"
            ) from None

    def seal(self, webhook_id: str, secrets: dict[str, Any]) -> str:
        """`secrets` of one subscription, sealed."""
        return self._keys.encrypt(orjson.dumps({**secrets, "webhook": webhook_id})).decode()

    def open(self, webhook_id: str, sealed: str | None) -> dict[str, Any]:
        """What was sealed. Raises SealingError."""
        if sealed is None:
            raise SealingError(
                f"the secrets of webhook `{webhook_id}` were erased; remove it and add it again"
            )
        try:
            found: dict[str, Any] = orjson.loads(self._keys.decrypt(sealed))
        except (InvalidToken, ValueError):
            found = {}
        if found.get("webhook") != webhook_id:
            raise SealingError(
                f"the secrets of webhook `{webhook_id}` were sealed with a key that is not in `{self.path}`; "
                "put that key back, or remove the webhook and add it again"
            )
        return found


def _make(path: Path) -> None:
    """Make the file with one key, whole or not at all, unless there is one."""
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # fails where another process was first, whose key then counts
    except FileExistsError:
        pass
    finally:
        os.unlink(draft)
