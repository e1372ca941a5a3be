"""What is read and written on one connection to PostgreSQL, inside one transaction.

- A question is a journey to the server and back, so few are asked: what a transaction writes is sent together with the
  commit (or before the next read), many rows to a statement, and `prefetch` reads at once what commands will ask for.
- A writer reads through a cache that holds as of the head which this process wrote last. If another node wrote in
  between, the cache is emptied, and what was asked for again and again is read anew in one question.
- What is streamed is read in pages, so that nothing is open when the transaction ends.
- A statement that failed ends the transaction, whoever caught the error: it is kept in `failure`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, LiteralString

import psycopg

from agentlattice_core.audit.entry import Head, SealedEntry
from agentlattice_core.audit.merkle import Frontier
from agentlattice_core.audit.tiles import tiles_completed_by
from agentlattice_core.errors import AuditError, StoreError
from agentlattice_core.stores import postgres_schema
from agentlattice_core.stores.base import CACHED_DOCUMENTS, Document, Row, StateKey, beyond, decode, encode
from agentlattice_core.stores.postgres_arrays import Blobs, Integers, Texts
from agentlattice_core.stores.postgres_connections import Connection
from agentlattice_core.stores.postgres_schema import HEADS, KEY_BYTES

__all__ = ["CHANNEL", "Cache", "PostgresReader", "PostgresTransaction", "begin_reading", "begin_writing"]

CHANNEL = "agentlattice"
"""Where nodes tell each other of what somebody may wait for; the payload is the log's id."""

_AWAITED = frozenset({"approval", "due", "delegation", "policies", "reevaluation"})
"""Kinds of state whose change somebody may wait for: decisions, claims of approved actions, policy, delegations."""

_CACHED_ROWS = 512
_LARGEST_CACHED_ROW = 8_192
_ASKED_AGAIN = 256
_FIRST_PAGE, _LARGEST_PAGE = 32, 512

_HEAD: LiteralString = """
SELECT leaf, at, frontier, (SELECT version FROM agentlattice.schema_version) FROM agentlattice.logs WHERE id =
"""
_ROWS: LiteralString = "SELECT i, body, leaf, salt, payload FROM entries WHERE log = %s"


def begin_writing(connection: Connection, log: int, database: str) -> Head:
    """Begin a transaction, wait until nobody else writes to the log, and read its head."""
    # One message and one answer. Each statement sees what was committed before it, so the head is read under the lock.
    return _begin(connection, f"BEGIN; SELECT pg_advisory_xact_lock({HEADS}, {log}); {_HEAD} {log}", database)


def begin_reading(connection: Connection, log: int, database: str) -> Head:
    """Begin a transaction that sees one moment, and read the head of the log as of then."""
    return _begin(connection, f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_HEAD} {log}", database)


def _begin(connection: Connection, query: str, database: str) -> Head:
    cursor = connection.execute(query, prepare=False)
    while cursor.nextset():
        pass
    row = cursor.fetchone()
    if row is None:
        raise AuditError("the head of the log is missing from the database; restore it from a copy")
    leaf, at, frontier, version = row
    if version != postgres_schema.SCHEMA_VERSION:
        raise StoreError(
            f"`{database}` was taken over by another release (schema {version}, this one knows "
            f"{postgres_schema.SCHEMA_VERSION}); upgrade this node"
        )
    return Head(leaf, at, Frontier.from_bytes(frontier))


_APPEND: LiteralString = """
WITH written AS (
    INSERT INTO entries (log, i, body, leaf, salt, payload)
    SELECT %(log)s, new.* FROM unnest(%(indexes)s, %(bodies)s, %(leaves)s, %(salts)s, %(payloads)s) AS new
), kept AS (
    INSERT INTO state (log, kind, key, digest, rest, value)
    SELECT %(log)s, new.* FROM unnest(%(kinds)s, %(keys)s, %(digests)s, %(rests)s, %(values)s) AS new
    ON CONFLICT (log, kind, key, digest) DO UPDATE SET value = excluded.value
), gone AS (
    DELETE FROM state USING unnest(%(gone_kinds)s, %(gone_keys)s, %(gone_digests)s) AS gone (kind, key, digest)
    WHERE state.log = %(log)s AND state.kind = gone.kind AND state.key = gone.key AND state.digest = gone.digest
), moved AS (
    UPDATE logs SET leaf = %(leaf)s, at = %(at)s, frontier = %(frontier)s WHERE id = %(log)s
)
SELECT CASE WHEN %(awaited)s THEN pg_notify(%(channel)s, %(log_id)s) END
"""
"""All that a batch writes, in one journey: entries, state, the head, and telling other nodes if somebody may wait."""

_NO_ENTRIES: list[tuple[Any, ...]] = [()] * 5
_NO_DOCUMENTS: list[tuple[Any, ...]] = [()] * 5
_NO_KEYS: list[tuple[Any, ...]] = [()] * 4

_Values = Sequence[Any] | Mapping[str, Any]


class Cache:
    """What this process knows of a log as of the head it wrote last; worthless as soon as another node has written."""

    def __init__(self) -> None:
        self._asked_again: OrderedDict[StateKey, None] = OrderedDict()
        self.clear()

    def clear(self) -> None:
        self.head: Head | None = None
        self.documents: dict[StateKey, Document | None] = {}
        self.rows: dict[int, Row] = {}

    def holds_at(self, head: Head) -> bool:
        """Whether it still holds; if not, or if it has grown too large, it is emptied."""
        known = self.head
        same = known is not None and known.leaf == head.leaf and known.size == head.size
        if same and len(self.documents) <= CACHED_DOCUMENTS:
            return True
        self.clear()
        return False

    def note(self, name: StateKey) -> None:
        """Say that a document was asked for again."""
        asked = self._asked_again
        asked[name] = None
        asked.move_to_end(name)
        if len(asked) > _ASKED_AGAIN:
            asked.popitem(last=False)

    def asked_again(self) -> list[StateKey]:
        """The documents that were asked for more than once of late."""
        return list(self._asked_again)

    def commit(self, head: Head, entries: Sequence[SealedEntry]) -> None:
        """Keep what a transaction has read and written, which stands."""
        self.head = head
        for entry in entries[-_CACHED_ROWS:]:
            if len(entry.body) + len(entry.payload or b"") <= _LARGEST_CACHED_ROW:
                self.rows[entry.i] = tuple(entry)  # type: ignore[assignment]
        while len(self.rows) > _CACHED_ROWS:
            del self.rows[next(iter(self.rows))]


class PostgresReader:
    """Reads on one connection inside one transaction."""

    def __init__(self, connection: Connection, log: int, head: Head) -> None:
        self._connection = connection
        self._log = log
        self._ended = False
        self.head = head

    def end(self) -> None:
        """Ask nothing more on this connection, whoever still holds a stream."""
        self._ended = True

    def _ask(self, query: LiteralString, values: Sequence[Any] = ()) -> list[Any]:
        if self._ended:
            raise StoreError("this view of the log has ended; open another one")
        return self._connection.execute(query, values, binary=True).fetchall()

    def get(self, kind: str, key: str) -> Document | None:
        start, digest, _ = _stored(key)
        found = self._ask(
            "SELECT value FROM state WHERE log = %s AND kind = %s AND key = %s AND digest = %s",
            (self._log, kind, start, digest),
        )
        return decode(kind, key, found[0][0]) if found else None

    def scan(
        self,
        kind: str,
        prefix: str = "",
        *,
        after: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Iterator[tuple[str, Document]]:
        end, page = beyond(prefix), _FIRST_PAGE
        left = -1 if limit is None else limit
        while left != 0:
            count = page if left < 0 else min(page, left)
            query: LiteralString = "SELECT key, rest, value FROM state WHERE log = %s AND kind = %s"
            query += " AND (key, rest) >= (%s, %s)"
            values: list[Any] = [self._log, kind, *_bound(prefix)]
            if end is not None:
                query += " AND (key, rest) < (%s, %s)"
                values += _bound(end)
            if after is not None:
                query += " AND (key, rest) < (%s, %s)" if reverse else " AND (key, rest) > (%s, %s)"
                values += _bound(after)
            query += " ORDER BY key DESC, rest DESC LIMIT %s" if reverse else " ORDER BY key, rest LIMIT %s"
            found = self._ask(query, (*values, count))
            for start, rest, value in found:
                after = (start + rest).decode()
                yield after, decode(kind, after, value)
            if len(found) < count:
                return
            left, page = max(left - count, -1), min(page * 4, _LARGEST_PAGE)

    def row(self, index: int) -> Row | None:
        found = self._ask(_ROWS + " AND i = %s", (self._log, index))
        return found[0] if found else None

    def rows(self, start: int = 0, stop: int | None = None, *, reverse: bool = False) -> Iterator[Row]:
        end, page = self.head.size if stop is None else stop, _FIRST_PAGE
        order: LiteralString = " ORDER BY i DESC LIMIT %s" if reverse else " ORDER BY i LIMIT %s"
        while True:
            found = self._ask(_ROWS + " AND i >= %s AND i < %s" + order, (self._log, start, end, page))
            yield from found
            if len(found) < page:
                return
            if reverse:
                end = found[-1][0]
            else:
                start = found[-1][0] + 1
            page = min(page * 4, _LARGEST_PAGE)

    def leaves(self, start: int, count: int) -> bytes:
        found = self._ask(
            "SELECT leaf FROM entries WHERE log = %s AND i >= %s AND i < %s ORDER BY i",
            (self._log, start, start + count),
        )
        return b"".join(leaf for (leaf,) in found)

    def tile(self, level: int, index: int) -> bytes | None:
        found = self._ask(
            "SELECT hashes FROM tiles WHERE log = %s AND level = %s AND n = %s", (self._log, level, index)
        )
        return found[0][0] if found else None

    def checkpoints(self) -> Iterator[tuple[int, str]]:
        after = -(2**62)
        while True:
            found = self._ask(
                "SELECT size, note FROM checkpoints WHERE log = %s AND size > %s ORDER BY size LIMIT %s",
                (self._log, after, _LARGEST_PAGE),
            )
            yield from found
            if len(found) < _LARGEST_PAGE:
                return
            after = found[-1][0]

    def states(self) -> Iterator[tuple[str, str, bytes]]:
        kind, start, rest = "", b"", b""  # no document has an empty kind
        while True:
            found = self._ask(
                "SELECT kind, key, rest, value FROM state WHERE log = %s AND (kind, key, rest) > (%s, %s, %s) "
                "ORDER BY kind, key, rest LIMIT %s",
                (self._log, kind, start, rest, _LARGEST_PAGE),
            )
            for kind, start, rest, value in found:
                yield kind, (start + rest).decode(errors="replace"), value
            if len(found) < _LARGEST_PAGE:
                return

    def strays(self) -> Iterator[tuple[str, int | None]]:
        return postgres_schema.strays(self._connection, self._log, self.head.size)


class PostgresTransaction(PostgresReader):
    """Reads through the cache, and writes."""

    def __init__(self, connection: Connection, log: int, log_id: str, head: Head, cache: Cache) -> None:
        super().__init__(connection, log, head)
        self._log_id = log_id
        self._cache = cache
        self._waiting: list[tuple[LiteralString, _Values]] = []
        self._appended = False
        self._erased: set[int] = set()
        self.entries: Sequence[SealedEntry] = ()
        self.committed = False
        self.failure: psycopg.Error | None = None
        if not cache.holds_at(head):
            self.prefetch(cache.asked_again())

    # Reading

    def _ask(self, query: LiteralString, values: Sequence[Any] = ()) -> list[Any]:
        if self.failure is not None:
            raise self.failure
        try:
            self._send()
            return super()._ask(query, values)
        except psycopg.Error as error:
            self.failure = error
            raise

    def get(self, kind: str, key: str) -> Document | None:
        name = (kind, key)
        documents = self._cache.documents
        if name in documents:
            self._cache.note(name)
            return documents[name]
        document = documents[name] = super().get(kind, key)
        return document

    def row(self, index: int) -> Row | None:
        known = self._cache.rows.get(index)
        return known if known is not None else super().row(index)

    def prefetch(self, names: Iterable[StateKey], rows: Iterable[int] = ()) -> None:
        cache = self._cache
        wanted = [name for name in dict.fromkeys(names) if name not in cache.documents]
        if wanted:
            stored = [_stored(key) for _, key in wanted]
            found = dict(
                self._ask(
                    "SELECT wanted.position, state.value "
                    "FROM unnest(%s, %s, %s) WITH ORDINALITY "
                    "AS wanted (kind, key, digest, position) JOIN state ON state.log = %s "
                    "AND state.kind = wanted.kind AND state.key = wanted.key AND state.digest = wanted.digest",
                    (
                        Texts([kind for kind, _ in wanted]),
                        Blobs([start for start, _, _ in stored]),
                        Blobs([digest for _, digest, _ in stored]),
                        self._log,
                    ),
                )
            )
            for position, name in enumerate(wanted, 1):
                value = found.get(position)
                try:
                    cache.documents[name] = None if value is None else decode(*name, value)
                except AuditError:
                    pass  # whoever needs it is told
        indexes = [index for index in dict.fromkeys(rows) if index not in cache.rows]
        if indexes:
            for row in self._ask(_ROWS + " AND i = ANY(%s)", (self._log, Integers(indexes))):
                cache.rows[row[0]] = row

    def collect(self) -> None:
        """Nobody of another node has anything run here."""

    # Writing

    def _send(self) -> None:
        """Have the server do what was written so far."""
        waiting, self._waiting = self._waiting, []
        for query, values in waiting:
            self._connection.execute(query, values)

    def _write(self, query: LiteralString, values: _Values) -> None:
        if self._ended:
            raise StoreError("this transaction has ended; begin another one")
        self._waiting.append((query, values))

    def append(
        self,
        entries: Sequence[SealedEntry],
        head: Head,
        writes: Mapping[StateKey, Document | None],
    ) -> None:
        if self._appended:
            raise StoreError("a transaction appends at most once")
        self._appended = True
        indexes, *columns = zip(*entries, strict=True) if entries else _NO_ENTRIES
        kept = [
            (kind, *_stored(key), encode(document))
            for (kind, key), document in writes.items()
            if document is not None
        ]
        kinds, *documents = zip(*kept, strict=True) if kept else _NO_DOCUMENTS
        gone = [(kind, *_stored(key)) for (kind, key), document in writes.items() if document is None]
        gone_kinds, gone_keys, gone_digests, _ = zip(*gone, strict=True) if gone else _NO_KEYS
        self._write(
            _APPEND,
            {
                "log": self._log,
                "indexes": Integers(indexes),
                **dict(zip(("bodies", "leaves", "salts", "payloads"), map(Blobs, columns), strict=True)),
                "kinds": Texts(kinds),
                **dict(zip(("keys", "digests", "rests", "values"), map(Blobs, documents), strict=True)),
                "gone_kinds": Texts(gone_kinds),
                "gone_keys": Blobs(gone_keys),
                "gone_digests": Blobs(gone_digests),
                "leaf": head.leaf,
                "at": head.at,
                "frontier": head.frontier.to_bytes(),
                "awaited": any(kind in _AWAITED for kind, _ in writes),
                "channel": CHANNEL,
                "log_id": self._log_id,
            },
        )
        for tile in tiles_completed_by(self.head.size, head.size, self.leaves, self.tile):
            self._write(
                "INSERT INTO tiles (log, level, n, hashes) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (log, level, n) DO UPDATE SET hashes = excluded.hashes",
                (self._log, tile.level, tile.index, tile.hashes),
            )
        self._cache.documents.update(writes)
        self.entries, self.head = entries, head

    def erase(self, index: int) -> None:
        self._cache.rows.pop(index, None)
        self._erased.add(index)
        self._write(
            "UPDATE entries SET salt = NULL, payload = NULL WHERE log = %s AND i = %s", (self._log, index)
        )

    def add_checkpoint(self, size: int, note: str) -> None:
        self._write(
            "INSERT INTO checkpoints (log, size, note) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (self._log, size, note),
        )

    def finish(self) -> None:
        """Have the server do everything but commit."""
        if self.failure is not None:  # a command that could not read may have been content with that
            raise self.failure
        self._send()

    def commit(self) -> None:
        """Commit. If it raises and `committed` is not set, nobody knows whether the commit stands."""
        assert not self._waiting, "what was written is sent before the commit"
        ending = self._connection.execute("COMMIT", prepare=False)
        if ending.statusmessage != "COMMIT":
            raise psycopg.OperationalError("the server took the transaction back")
        self.committed = True

    def remember(self) -> None:
        """Keep in the cache what this transaction, which stands, has read and written."""
        self._cache.commit(self.head, [entry for entry in self.entries if entry.i not in self._erased])


def _stored(key: str) -> tuple[bytes, bytes, bytes]:
    """How a document's key is stored: what the index has of it, the digest of a long one, and the rest."""
    text = key.encode()
    if len(text) <= KEY_BYTES:
        return text, b"", b""
    return text[:KEY_BYTES], hashlib.sha256(text).digest(), text[KEY_BYTES:]


def _bound(text: str) -> tuple[bytes, bytes]:
    """A place in the order of keys, stored or not."""
    encoded = text.encode()
    return encoded[:KEY_BYTES], encoded[KEY_BYTES:]
