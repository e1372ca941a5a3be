"""The tables of the SQLite store, and how a file of an older version becomes one of this version.

- `entries` is the truth and only ever grows, except that a payload may be erased. Everything else but `checkpoints`
  can be made from it again.
- State is one table of documents: what a document may hold is `projections`' business, so new features need no new
  tables and a rebuild is one fold.
- `user_version` is the schema's version. A file of a newer version is refused: an older writer must not touch it.
- Every change of the schema is a step in `_STEPS`, run in one transaction, forwards only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import apsw

from agentlattice_core.audit.entry import Head
from agentlattice_core.errors import StoreError

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "create_or_migrate", "expected_schema"]

APPLICATION_ID = 0x414C6774
"""`ALgt` in the file's header: what `file` and other tools may know the format by."""

_CREATE = """
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    log_id TEXT NOT NULL, leaf BLOB NOT NULL, at TEXT NOT NULL, frontier BLOB NOT NULL
) STRICT;
CREATE TABLE entries (
    i INTEGER PRIMARY KEY, body BLOB NOT NULL, leaf BLOB NOT NULL, salt BLOB, payload BLOB
) STRICT;
CREATE TABLE tiles (level INTEGER NOT NULL, n INTEGER NOT NULL, hashes BLOB NOT NULL, PRIMARY KEY (level, n)) STRICT;
CREATE TABLE state (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key))
    STRICT, WITHOUT ROWID;
CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
"""


def _delegations_and_registries(connection: apsw.Connection) -> None:
    """Nothing to change: a file that may hold them must not be written by a release that asks neither."""


def _webhooks(connection: apsw.Connection) -> None:
    """Nothing to change: a file that may hold them must not be written by a release that cannot fold them."""


_FIND_ACTIONS = """
INSERT OR IGNORE INTO state (kind, key, value)
SELECT 'acted', substr(key, 1, length(key) - 12) || CASE WHEN json_valid(CAST(value AS TEXT))
    THEN json_extract(CAST(value AS TEXT), '$.type') END || '/' || substr(key, -12, 9), CAST('{}' AS BLOB)
FROM state WHERE kind = 'action'
"""
"""A document that somebody made unreadable is passed over: verifying the state says so."""


def _find_actions_by_type(connection: apsw.Connection) -> None:
    """State is to say where an agent's actions of a type are, as the fold now does (`projections.acted_key`)."""
    connection.execute(_FIND_ACTIONS)


def _keys(connection: apsw.Connection) -> None:
    """Nothing to change: a release that knows no keys cannot fold their entries, and must not write such a file."""


_STEPS: list[Callable[[apsw.Connection], object]] = [
    lambda connection: connection.execute(_CREATE),
    _delegations_and_registries,
    _find_actions_by_type,
    _keys,
    _webhooks,
]
"""Step n takes a file from version n to n + 1."""

SCHEMA_VERSION = len(_STEPS)


@cache
def expected_schema() -> frozenset[tuple[str, str, str, str | None]]:
    """Type, name, table and text of everything in the schema of a file of this version."""
    connection = apsw.Connection(":memory:")
    for step in _STEPS:
        step(connection)
    return frozenset(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema"))


def create_or_migrate(connection: apsw.Connection, path: str, new_log_id: Callable[[], str]) -> str:
    """Bring the file to this version, creating its tables if it is empty, and return the id of its log.

    The caller holds the gate. Raises StoreError for a file of a newer version.
    """
    version = connection.pragma("user_version")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"`{path}` was written by a newer release (schema {version}, this one knows {SCHEMA_VERSION}); "
            "upgrade first"
        )
    if version < SCHEMA_VERSION:
        with connection:
            for step in _STEPS[version:]:
                step(connection)
            if version == 0:
                empty = Head()
                connection.execute(
                    "INSERT INTO head (one, log_id, leaf, at, frontier) VALUES (1, ?, ?, ?, ?)",
                    (new_log_id(), empty.leaf, empty.at, empty.frontier.to_bytes()),
                )
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", SCHEMA_VERSION)
    head = connection.execute("SELECT log_id FROM head").fetchone()
    if head is None:
        raise StoreError(f"`{path}` has lost the head of its log; restore it from a copy")
    log_id: str = head[0]
    return log_id
