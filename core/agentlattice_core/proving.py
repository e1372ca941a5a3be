"""Proving one recorded entry to somebody who has nothing but the public key.

- The proof is against the log as it is now, signed for the purpose, so it also covers what was recorded a moment ago.
- What may be personal stays out of it unless the caller discloses it.
"""

from __future__ import annotations

from agentlattice_core.audit.entry import parse
from agentlattice_core.audit.proof import prove_entry
from agentlattice_core.audit.tiles import TiledHashes
from agentlattice_core.engine import Engine
from agentlattice_core.errors import AuditError, NotFoundError
from agentlattice_core.history import noted_history
from agentlattice_core.stores.base import Reader, Row

__all__ = ["prove"]

_EVENT = "evt_"
_INDEX_DIGITS = slice(4, 16)


def prove(engine: Engine, name: str, *, disclose: bool = False) -> bytes:
    """The proof document of one entry, by the id of its event or by its index; `disclose` puts the payload in.

    Raises NotFoundError if there is no such entry or no payload to disclose, and AuditError if the log is not the one
    that was signed.
    """
    note = engine.notary.sign()
    if note is None:
        raise AuditError(engine.notary.alarm or "the log could not be signed")
    with engine.read() as reader:
        row = _row(reader, name)
        if disclose and row[4] is None:
            raise NotFoundError(f"entry {row[0]} has no payload to disclose, or it was erased")
        hashes = TiledHashes(reader.tile, reader.leaves)
        keys = engine.notary.keyring(noted_history(reader))
        key = engine.notary.verifier_key()
        return prove_entry(row, note, key, hashes, disclose=disclose, statements=keys.up_to(key))


def _row(reader: Reader, name: str) -> Row:
    try:
        by_event = name.startswith(_EVENT)
        index = int(name[_INDEX_DIGITS], 16) if by_event else int(name)
    except ValueError:
        raise NotFoundError(f"`{name}` is neither the id of an event nor the index of an entry") from None
    row = reader.row(index) if 0 <= index < reader.head.size else None
    if row is None or (by_event and parse(row[1]).id != name):
        raise NotFoundError(f"there is no {'event' if by_event else 'entry'} `{name}` in this log")
    return row
