"""The commands of one transaction: what they read, what they record, and taking back one that fails.

- A command reads state as of the moment it runs, earlier commands of the same batch included.
- Whatever changes state is recorded first: `record` seals an entry and folds it into state by the same function that
  rebuilds state from the log. There is no other way to write.
- A command that raises leaves nothing behind; the others are not touched.
- Time is stamped once per batch and never runs backwards within the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from heapq import merge
from typing import Any, TypeVar

from agentlattice_core.audit.entry import Head, SealedEntry, Sealer
from agentlattice_core.clock import format_time, parse_time
from agentlattice_core.stores.base import Document, Row, StateKey, Transaction
from agentlattice_core.stores.projections import fold

__all__ = ["Batch"]

T = TypeVar("T")


class Batch:
    """State and log as one transaction sees them. `now` is the store's stamp, `at` the same as text."""

    def __init__(self, transaction: Transaction, log_id: str, now: datetime) -> None:
        self._transaction = transaction
        self._sealer = Sealer(log_id, transaction.head)
        self._entries: list[SealedEntry] = []
        self._writes: dict[StateKey, Document | None] = {}
        self._undo: list[tuple[StateKey, bool, Document | None]] | None = None
        self._erased: list[int] = []
        self._checkpoints: list[tuple[int, str]] = []
        self.log_id = log_id
        stamp = format_time(now)
        self.at = max(stamp, self._sealer.at)
        self.now = now if self.at == stamp else parse_time(self.at)

    @property
    def next_index(self) -> int:
        """The index that the next entry will have."""
        return self._sealer.size

    def get(self, kind: str, key: str) -> Document | None:
        """One state document, or None. Do not change it."""
        name = (kind, key)
        if name in self._writes:
            return self._writes[name]
        return self._transaction.get(kind, key)

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Document]]:
        """The state documents of one kind whose key starts with `prefix`, in key order; read as far as they are asked
        for. Record nothing before it ends.
        """
        own = sorted(
            (key, document)
            for (written, key), document in self._writes.items()
            if written == kind and key.startswith(prefix)
        )
        stored = (
            found for found in self._transaction.scan(kind, prefix) if (kind, found[0]) not in self._writes
        )
        for key, document in merge(stored, own):
            if document is not None:
                yield key, document

    def row(self, index: int) -> Row | None:
        """One entry, of this batch or before."""
        first = self._transaction.head.size
        if index >= first:
            position = index - first
            return self._entries[position] if position < len(self._entries) else None
        return self._transaction.row(index)

    def record(
        self,
        kind: str,
        who: dict[str, Any],
        data: dict[str, Any],
        *,
        id: str | None = None,
        payload: bytes | None = None,
    ) -> SealedEntry:
        """Seal an entry and fold it into state."""
        entry = self._sealer.seal(kind, who, data, at=self.at, id=id, payload=payload)
        self._entries.append(entry)
        undo, writes = self._undo, self._writes
        for name, document in fold(self.get, kind, entry.i, self.at, who, data, id).items():
            if undo is not None:
                undo.append((name, name in writes, writes.get(name)))
            writes[name] = document
        return entry

    def erase(self, index: int) -> None:
        """Drop the payload of an earlier entry. The caller records the erasure."""
        self._erased.append(index)

    def add_checkpoint(self, size: int, note: str) -> None:
        """Keep a signed checkpoint."""
        self._checkpoints.append((size, note))

    def attempt(self, command: Callable[[Batch], T]) -> tuple[T | None, Exception | None]:
        """Run a command; if it raises, take back what it recorded and return the error."""
        first, erased = len(self._entries), len(self._erased)
        before: Head | None = None if first == 0 else self._sealer.head()
        self._undo = []
        try:
            return command(self), None
        except Exception as error:
            if len(self._entries) > first:
                self._sealer.rewind(before or self._transaction.head)
                del self._entries[first:]
                for name, was_written, document in reversed(self._undo):
                    if was_written:
                        self._writes[name] = document
                    else:
                        del self._writes[name]
            del self._erased[erased:]
            return None, error
        finally:
            self._undo = None

    def finish(self) -> None:
        """Hand everything to the transaction."""
        if self._entries:
            self._transaction.append(self._entries, self._sealer.head(), self._writes)
        for index in self._erased:
            self._transaction.erase(index)
        for size, note in self._checkpoints:
            self._transaction.add_checkpoint(size, note)
