"""A checkpoint: what a log was when it had so many entries, in the text that is signed.

    agentlattice/acme
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

- First line the origin (which log), second its size in decimal, third the root in base64; then extension
  lines, if any.
- One extension line is ours: `previous <size> <root>` names the checkpoint that was signed before this one, so that
  one that is missing is missed.
- One checkpoint has one text: parsing refuses what formatting would not have written.

Specification: https://c2sp.org/tlog-checkpoint
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from agentlattice_core.audit.entry import check_log_id
from agentlattice_core.audit.merkle import EMPTY_ROOT, HASH_BYTES
from agentlattice_core.errors import AuditError

__all__ = ["Checkpoint", "log_origin"]

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_MAX_SIZE: Final = 1 << 63
_CONTROL: Final = re.compile(r"[\x00-\x1f]")
_PREVIOUS: Final = "previous "


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head. `root` is 32 bytes. Raises AuditError if its members cannot be a checkpoint."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for line in (self.origin, *self.extensions):
            if type(line) is not str or not line or _CONTROL.search(line):
                raise AuditError("a checkpoint line is empty or holds a control character")
            try:
                line.encode()
            except UnicodeEncodeError:
                raise AuditError(
                    "a checkpoint line holds a lone surrogate, which no encoding can carry"
                ) from None
        if type(self.size) is not int or not 0 <= self.size < _MAX_SIZE:
            raise AuditError(f"a checkpoint cannot be of `{self.size}` entries")
        if type(self.root) is not bytes or len(self.root) != HASH_BYTES:
            raise AuditError("the root of a checkpoint is not a SHA-256 hash of 32 bytes")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise AuditError("the checkpoint of an empty log has a root that is not the empty tree's")

    @property
    def previous(self) -> Checkpoint | None:
        """The checkpoint that was signed before this one, without its own extensions; None if no line names one.

        Raises AuditError if the line that should is malformed.
        """
        named = [line for line in self.extensions if line.startswith(_PREVIOUS)]
        if not named:
            return None
        found = Checkpoint.parse("\n".join((self.origin, *named[0].removeprefix(_PREVIOUS).split(" "), "")))
        if len(named) > 1 or found.extensions:
            raise AuditError("a checkpoint does not name one checkpoint before it")
        return found

    def following(self, size: int, root: bytes) -> Checkpoint:
        """The checkpoint of `size` entries that names this one as signed before it."""
        line = f"{_PREVIOUS}{self.size} {base64.b64encode(self.root).decode()}"
        return Checkpoint(self.origin, size, root, (line,))

    def format(self) -> str:
        """The text that is signed, ending in a newline."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions)
        return "\n".join(lines) + "\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The inverse of `format`. Raises AuditError for anything `format` would not have written."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] != "":
            raise AuditError("a checkpoint needs an origin, a size and a root, each on a line")
        origin, size, root, *extensions = lines[:-1]
        if _SIZE.fullmatch(size) is None:
            raise AuditError("the size of a checkpoint is not a plain decimal number")
        try:
            digest = base64.b64decode(root, validate=True)
        except (binascii.Error, ValueError):
            raise AuditError("the root of a checkpoint is not base64") from None
        checkpoint = cls(origin, int(size), digest, tuple(extensions))
        if checkpoint.format() != text:
            raise AuditError("the checkpoint is not written the one way it can be")
        return checkpoint


def log_origin(log: str) -> str:
    """The origin line, and the name of the signing key, of log `log`."""
    check_log_id(log)
    return f"agentlattice/{log}"
