"""What is read and written on one connection to the SQLite file, inside one transaction.

- A transaction reads state through a cache that holds as of one commit, and is emptied when anybody else began one.
- What is streamed is closed at the end of the transaction, whoever still holds it: as long as a statement is open, its
  connection goes on seeing the log as it was.
- Few statements for many rows: each statement gives the interpreter lock away once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

import apsw

from agentlattice_core.audit.entry import Head, SealedEntry
from agentlattice_core.audit.merkle import Frontier
from agentlattice_core.audit.tiles import tiles_completed_by
from agentlattice_core.errors import AuditError, NotRecordedError, StoreError
from agentlattice_core.stores.base import (
    CACHED_DOCUMENTS,
    Document,
    Round,
    Row,
    StateKey,
    beyond,
    decode,
    encode,
)
from agentlattice_core.stores.exchange import Exchange
from agentlattice_core.stores.strays import strays

__all__ = ["Cache", "SQLiteReader", "SQLiteTransaction"]


class Cache:
    """The head and state documents as of one commit; worthless as soon as another one was begun."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.number = -1
        self.head: Head | None = None
        self.documents: dict[StateKey, Document | None] = {}

    def valid_at(self, begun: int) -> bool:
        """Whether it still holds; if not, or if it has grown too large, it is emptied."""
        if self.number == begun and len(self.documents) <= CACHED_DOCUMENTS:
            return True
        self.clear()
        return False

    def commit(self, number: int, head: Head, writes: Mapping[StateKey, Document | None]) -> None:
        self.documents.update(writes)
        self.head = head
        self.number = number


class SQLiteReader:
    """Reads on one connection inside one transaction."""

    def __init__(self, connection: apsw.Connection, head: Head | None = None) -> None:
        self._connection = connection
        self._streams: list[apsw.Cursor] = []
        self.head = head if head is not None else self._read_head()

    def _read_head(self) -> Head:
        row = self._connection.execute("SELECT leaf, at, frontier FROM head").fetchone()
        if row is None:
            raise AuditError("the head of the log is missing from the database; restore it from a copy")
        leaf, at, frontier = row
        return Head(leaf, at, Frontier.from_bytes(frontier))

    def _stream(self, query: str, values: Sequence[Any] = ()) -> apsw.Cursor:
        cursor = self._connection.cursor()
        self._streams.append(cursor)
        return cursor.execute(query, values)

    def end(self) -> None:
        """Close what was not read to its end. Somebody may still hold it (an error does, by its traceback), and as long
        as it is open the connection goes on seeing the log as it was.
        """
        for cursor in self._streams:
            cursor.close(True)

    def get(self, kind: str, key: str) -> Document | None:
        row = self._connection.execute(
            "SELECT value FROM state WHERE kind = ? AND key = ?", (kind, key)
        ).fetchone()
        return None if row is None else decode(kind, key, row[0])

    def scan(
        self,
        kind: str,
        prefix: str = "",
        *,
        after: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Iterator[tuple[str, Document]]:
        order = "DESC" if reverse else "ASC"
        clause, values = "kind = ? AND key >= ?", [kind, prefix]
        end = beyond(prefix)
        if end is not None:
            clause += " AND key < ?"
            values.append(end)
        if after is not None:
            clause += " AND key < ?" if reverse else " AND key > ?"
            values.append(after)
        query = f"SELECT key, value FROM state WHERE {clause} ORDER BY key {order} LIMIT ?"  # noqa: S608 - constants
        for key, value in self._stream(query, (*values, -1 if limit is None else limit)):
            yield key, decode(kind, key, value)

    def row(self, index: int) -> Row | None:
        return self._connection.execute(f"{_ROWS} WHERE i = ?", (index,)).fetchone()

    def rows(self, start: int = 0, stop: int | None = None, *, reverse: bool = False) -> Iterator[Row]:
        end = self.head.size if stop is None else stop
        order = "DESC" if reverse else "ASC"
        return self._stream(f"{_ROWS} WHERE i >= ? AND i < ? ORDER BY i {order}", (start, end))

    def leaves(self, start: int, count: int) -> bytes:
        query = "SELECT leaf FROM entries WHERE i >= ? AND i < ? ORDER BY i"
        return b"".join(leaf for (leaf,) in self._stream(query, (start, start + count)))

    def tile(self, level: int, index: int) -> bytes | None:
        row = self._connection.execute(
            "SELECT hashes FROM tiles WHERE level = ? AND n = ?", (level, index)
        ).fetchone()
        return None if row is None else row[0]

    def checkpoints(self) -> Iterator[tuple[int, str]]:
        return self._stream("SELECT size, note FROM checkpoints ORDER BY size")

    def states(self) -> Iterator[tuple[str, str, bytes]]:
        return self._stream("SELECT kind, key, value FROM state ORDER BY kind, key")

    def strays(self) -> Iterator[tuple[str, int | None]]:
        return strays(self._stream, self.head.size)


class SQLiteTransaction(SQLiteReader):
    """Reads through the cache, and writes."""

    def __init__(
        self, connection: apsw.Connection, cache: Cache, begun: int, exchange: Exchange | None
    ) -> None:
        super().__init__(connection, cache.head if cache.valid_at(begun) else None)
        self._exchange = exchange
        self.round: Round | None = None
        self._documents = cache.documents
        self.erased = False
        self._appended = False
        self.writes: Mapping[StateKey, Document | None] = {}

    def get(self, kind: str, key: str) -> Document | None:
        name = (kind, key)
        if name in self._documents:
            return self._documents[name]
        document = self._documents[name] = super().get(kind, key)
        return document

    def prefetch(self, names: Iterable[StateKey], rows: Iterable[int] = ()) -> None:
        """Nothing is far away."""

    def collect(self) -> Round | None:
        if self._exchange is not None:
            self.round = self._exchange.collect()
        return self.round

    def append(
        self,
        entries: Sequence[SealedEntry],
        head: Head,
        writes: Mapping[StateKey, Document | None],
    ) -> None:
        if self._appended:
            raise StoreError("a transaction appends at most once")
        self._appended = True
        if not self._connection.in_transaction:  # after some errors SQLite takes everything back by itself
            raise NotRecordedError("the transaction was taken back because of an earlier error")
        _insert(
            self._connection,
            "INSERT INTO entries (i, body, leaf, salt, payload) VALUES",
            "",
            entries,
        )
        for tile in tiles_completed_by(self.head.size, head.size, self.leaves, self.tile):
            self._connection.execute(
                "INSERT INTO tiles (level, n, hashes) VALUES (?, ?, ?) "
                "ON CONFLICT (level, n) DO UPDATE SET hashes = excluded.hashes",
                (tile.level, tile.index, tile.hashes),
            )
        kept = [(*name, encode(document)) for name, document in writes.items() if document is not None]
        _insert(
            self._connection,
            "INSERT INTO state (kind, key, value) VALUES",
            "ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
            kept,
        )
        for name, document in writes.items():
            if document is None:
                self._connection.execute("DELETE FROM state WHERE kind = ? AND key = ?", name)
        self._connection.execute(
            "UPDATE head SET leaf = ?, at = ?, frontier = ?", (head.leaf, head.at, head.frontier.to_bytes())
        )
        self._documents.update(writes)
        self.head, self.writes = head, writes

    def erase(self, index: int) -> None:
        self.erased = True
        self._connection.pragma("secure_delete", 1)
        self._connection.execute("UPDATE entries SET salt = NULL, payload = NULL WHERE i = ?", (index,))

    def add_checkpoint(self, size: int, note: str) -> None:
        self._connection.execute("INSERT OR IGNORE INTO checkpoints (size, note) VALUES (?, ?)", (size, note))


_ROWS = "SELECT i, body, leaf, salt, payload FROM entries"


def _insert(connection: apsw.Connection, start: str, end: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert many rows by few statements: each statement gives the interpreter lock away once, not once per row."""
    position = 0
    while position < len(rows):
        left = len(rows) - position
        # Few different sizes, so that every statement is found prepared.
        count = 64 if left >= 64 else 16 if left >= 16 else min(left, 4)
        values = tuple(chain.from_iterable(rows[position : position + count]))
        connection.execute(_statement(start, end, len(rows[0]), count), values)
        position += count


@cache
def _statement(start: str, end: str, columns: int, rows: int) -> str:
    places = f"({','.join('?' * columns)})"
    return f"{start} {','.join([places] * rows)} {end}"
