"""The tables of the PostgreSQL store, and how a database of an older version becomes one of this version.

- They lie in a schema of their own, `agentlattice`, so that the database may hold other things as well.
- Every table but `schema_version` is keyed by the log, so that no query finds another organisation's rows.
- What they hold is what the SQLite store's hold (`stores.schema`): `entries` is the truth, state is one table of
  documents.
- A document's key is its UTF-8, which sorts as code points do and may hold what PostgreSQL's text may not. An index
  holds no long keys, so of a key of more than 500 bytes `key` has the first 500, `rest` the others, and `digest` the
  SHA-256 of the whole, which is empty for any other key.
- `schema_version` says which version the database has. A newer one is refused, at opening and in every transaction:
  an older writer must not touch it, also if it was running when a newer release came.
- Every change of the schema is a step in `_STEPS`, forwards only. All that are missing run in one transaction, under a
  lock, so that of many nodes that start at once one migrates.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg

from agentlattice_core.audit.entry import Head
from agentlattice_core.errors import StoreError
from agentlattice_core.stores.strays import misplaced_tile

__all__ = [
    "HEADS",
    "KEY_BYTES",
    "MIGRATIONS",
    "SCHEMA_VERSION",
    "SIGNERS",
    "migrate",
    "open_log",
    "organisations_in",
    "strays",
]

HEADS, SIGNERS, MIGRATIONS = 0x414C6701, 0x414C6702, 0x414C6703
"""Classes of advisory locks: a log's head, its signer, the schema."""

KEY_BYTES = 500
"""How much of a document's key is in the index."""

_CREATE: LiteralString = """
CREATE SCHEMA IF NOT EXISTS agentlattice;
CREATE TABLE agentlattice.schema_version (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), version integer NOT NULL
);
CREATE TABLE agentlattice.logs (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, log_id text COLLATE "C" NOT NULL UNIQUE,
    leaf bytea NOT NULL, at text NOT NULL, frontier bytea NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
CREATE TABLE agentlattice.entries (
    log integer NOT NULL, i bigint NOT NULL, body bytea NOT NULL, leaf bytea NOT NULL, salt bytea, payload bytea,
    PRIMARY KEY (log, i)
);
CREATE TABLE agentlattice.tiles (
    log integer NOT NULL, level smallint NOT NULL, n bigint NOT NULL, hashes bytea NOT NULL,
    PRIMARY KEY (log, level, n)
);
CREATE TABLE agentlattice.state (
    log integer NOT NULL, kind text COLLATE "C" NOT NULL,
    key bytea NOT NULL, digest bytea NOT NULL, rest bytea NOT NULL, value bytea NOT NULL,
    PRIMARY KEY (log, kind, key, digest)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
CREATE TABLE agentlattice.checkpoints (
    log integer NOT NULL, size bigint NOT NULL, note text NOT NULL, PRIMARY KEY (log, size)
);
INSERT INTO agentlattice.schema_version (version) VALUES (0);
"""

_STEPS: list[LiteralString] = [_CREATE]
"""Step n takes a database from version n to n + 1."""

SCHEMA_VERSION = len(_STEPS)

_CATALOGUE: LiteralString = """
WITH here AS (SELECT oid, relname, relkind FROM pg_class WHERE relnamespace = 'agentlattice'::regnamespace)
SELECT CASE relkind WHEN 'r' THEN 'table' WHEN 'i' THEN 'index' WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view'
    ELSE 'relation' END || ' `' || relname || '`' FROM here
UNION ALL SELECT 'column `' || relname || '.' || attname || '` of type ' || format_type(atttypid, atttypmod)
    FROM pg_attribute JOIN here ON attrelid = oid WHERE relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT 'trigger `' || tgname || '` on `' || relname || '`'
    FROM pg_trigger JOIN here ON tgrelid = here.oid WHERE NOT tgisinternal
UNION ALL SELECT 'rule `' || rulename || '` on `' || relname || '`'
    FROM pg_rewrite JOIN here ON ev_class = here.oid WHERE relkind IN ('r', 'p')
UNION ALL SELECT 'row policy `' || polname || '` on `' || relname || '`'
    FROM pg_policy JOIN here ON polrelid = here.oid
UNION ALL SELECT 'table that inherits `' || relname || '`' FROM pg_inherits JOIN here ON inhparent = oid
    WHERE relkind IN ('r', 'p')
UNION ALL SELECT 'function `' || proname || '`' FROM pg_proc WHERE pronamespace = 'agentlattice'::regnamespace
"""

_COLUMNS = {
    "schema_version": "one boolean, version integer",
    "logs": "id integer, log_id text, leaf bytea, at text, frontier bytea",
    "entries": "log integer, i bigint, body bytea, leaf bytea, salt bytea, payload bytea",
    "tiles": "log integer, level smallint, n bigint, hashes bytea",
    "state": "log integer, kind text, key bytea, digest bytea, rest bytea, value bytea",
    "checkpoints": "log integer, size bigint, note text",
}


def _expected() -> Iterator[str]:
    yield "sequence `logs_id_seq`"
    yield "index `logs_log_id_key`"
    for table, columns in _COLUMNS.items():
        yield f"table `{table}`"
        yield f"index `{table}_pkey`"
        for column in columns.split(", "):
            name, kind = column.split(" ")
            yield f"column `{table}.{name}` of type {kind}"


_EXPECTED = frozenset(_expected())


def migrate(connection: psycopg.Connection[Any], database: str) -> None:
    """Bring the database to this version, making the tables if there are none.

    Raises StoreError if it is of a newer version. The connection commits by itself.
    """
    if _version(connection) == SCHEMA_VERSION:
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", (MIGRATIONS,))
        version = _version(connection)
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"`{database}` was written by a newer release (schema {version}, this one knows {SCHEMA_VERSION}); "
                "upgrade first"
            )
        for step in _STEPS[version:]:
            connection.execute(step, prepare=False)
        connection.execute("UPDATE agentlattice.schema_version SET version = %s", (SCHEMA_VERSION,))


def _version(connection: psycopg.Connection[Any]) -> int:
    # By a query: what the server has cached of names may be older than the lock that others migrated under.
    table = "SELECT FROM pg_tables WHERE schemaname = 'agentlattice' AND tablename = 'schema_version'"
    if connection.execute(table).fetchone() is None:
        return 0
    row = connection.execute("SELECT version FROM agentlattice.schema_version").fetchone()
    if row is None:
        raise StoreError("the database has lost the version of its schema; restore it from a copy")
    version: int = row[0]
    return version


def organisations_in(connection: psycopg.Connection[Any]) -> list[str]:
    """The ids of the logs in the database, in order; none if there are no tables yet."""
    if _version(connection) == 0:
        return []
    return [log_id for (log_id,) in connection.execute("SELECT log_id FROM agentlattice.logs ORDER BY id")]


def open_log(connection: psycopg.Connection[Any], database: str, organisation: str | None) -> tuple[int, str]:
    """The number and id of an organisation's log, made if it is not there; without a name, of the only one.

    Raises StoreError if there are several and none is named.
    """
    known = _find(connection, organisation)
    if len(known) > 1:
        raise StoreError(f"`{database}` holds several organisations; name one of them")
    if known:
        return known[0]
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", (MIGRATIONS,))
        known = _find(connection, organisation)
        if not known:
            empty, log_id = Head(), organisation or f"org_{os.urandom(10).hex()}"
            known = connection.execute(
                "INSERT INTO agentlattice.logs (log_id, leaf, at, frontier) VALUES (%s, %s, %s, %s) "
                "RETURNING id, log_id",
                (log_id, empty.leaf, empty.at, empty.frontier.to_bytes()),
            ).fetchall()
        return known[0]


def _find(connection: psycopg.Connection[Any], organisation: str | None) -> list[tuple[int, str]]:
    query: LiteralString = "SELECT id, log_id FROM agentlattice.logs"
    if organisation is None:
        return connection.execute(query + " LIMIT 2").fetchall()
    return connection.execute(query + " WHERE log_id = %s", (organisation,)).fetchall()


def strays(connection: psycopg.Connection[Any], log: int, size: int) -> Iterator[tuple[str, int | None]]:
    """A sentence for each thing that a log of `size` entries does not have, with the index if it is an entry.

    Entries come first, in order. What does not belong to the schema is told of to every log in it.
    """
    outside = (
        "SELECT i FROM entries WHERE log = %(log)s AND i < 0 UNION ALL "
        "SELECT i FROM entries WHERE log = %(log)s AND i >= %(size)s ORDER BY i"
    )
    for (index,) in connection.execute(outside, {"log": log, "size": size}).fetchall():
        if index < 0:
            yield f"row {index} lies before the first entry", index
        else:
            yield f"row {index} lies beyond the {size} entries that the head counts", index
    impossible = "SELECT size FROM checkpoints WHERE log = %s AND size <= 0 ORDER BY size"
    for (signed,) in connection.execute(impossible, (log,)).fetchall():
        yield f"a checkpoint is kept for {signed} entries, and none was signed for so many", None
    tiles = "SELECT level, n, length(hashes) FROM tiles WHERE log = %s ORDER BY level, n"
    for level, number, length in connection.execute(tiles, (log,)).fetchall():
        wrong = misplaced_tile(level, number, length, size)
        if wrong is not None:
            yield wrong, None
    found = {line for (line,) in connection.execute(_CATALOGUE).fetchall()}
    for line in sorted(found - _EXPECTED):
        yield f"the {line} has no place in this database", None
    for line in sorted(_EXPECTED - found):
        yield f"the {line} is missing from this database", None
