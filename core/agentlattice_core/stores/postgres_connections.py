"""Connections of this process to one PostgreSQL database.

- The logs of one database share them: one is borrowed for each transaction, and few lie idle.
- Only a server that takes writes is connected to; of several that are named, whichever is the primary now.
- A connection says what a commit is worth (`synchronous_commit` is never less than `on`), gives up a wait for a lock
  after 15 s, and is cut if it holds a transaction open without a word for 30 s, so that a node that has stalled
  keeps nobody else from writing for longer.
- Every query goes by an index; the planner is told so, because its statistics of a young table say otherwise.
- A connection carried across a fork is neither used nor said farewell to in the child, which would end the parent's.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from agentlattice_core.errors import InvalidRequestError, StoreError
from agentlattice_core.stores import postgres_arrays

__all__ = ["Connection", "Connections", "is_passing", "reason"]

Connection = psycopg.Connection[Any]

_IDLE = 8
_OLDEST = 140000  # the server version that the settings below need

_DEFAULTS = {
    "application_name": "agentlattice",
    "client_encoding": "UTF8",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "target_session_attrs": "read-write",
}

_SETTINGS = (
    "SELECT set_config(name, CASE WHEN current_setting(name) = ANY(unless) THEN value ELSE current_setting(name) END, "
    "false) FROM (VALUES "
    "('synchronous_commit', 'on', ARRAY['off', 'local']), "
    "('lock_timeout', '15s', ARRAY['0']), "
    "('statement_timeout', '60s', ARRAY['0']), "
    "('idle_in_transaction_session_timeout', '30s', ARRAY['0']), "
    "('client_connection_check_interval', '1s', ARRAY['0']), "
    "('search_path', 'agentlattice', ARRAY[current_setting('search_path')]), "
    "('plan_cache_mode', 'force_generic_plan', ARRAY['auto']), "
    "('enable_seqscan', 'off', ARRAY['on']), "
    "('enable_hashjoin', 'off', ARRAY['on']), "
    "('enable_mergejoin', 'off', ARRAY['on']), "
    "('jit', 'off', ARRAY['on'])"
    ") AS wanted (name, value, unless)"
)
"""What is set to something else by the database, the role or the URL stays, but for what durability rests on."""

_PASSING_CLASSES = ("08", "57")  # connection, operator intervention
_PASSING = (
    "25006",  # the server has become a standby
    "25P02",  # the transaction was aborted by an earlier error, which was told
    "25P03",  # idle in a transaction for too long
    "40001",  # serialisation failure
    "40P01",  # deadlock
    "53300",  # too many connections
    "55P03",  # waited too long for a lock
)


def is_passing(error: BaseException) -> bool:
    """Whether the same may succeed on a fresh connection: it is the connection, the server or another transaction."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate in _PASSING or error.sqlstate[:2] in _PASSING_CLASSES


def reason(error: BaseException) -> str:
    """What went wrong, for people: the server's words, one line."""
    text = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    lines = (text or str(error) or type(error).__name__).strip().splitlines()
    return lines[0].strip() if lines else "the connection was lost"


class Connections:
    """Connections to the database that `url` names. `name` is the database without user and password."""

    def __init__(self, url: str) -> None:
        try:
            given = conninfo_to_dict(url)
        except psycopg.Error:
            raise InvalidRequestError(
                "the database's URL cannot be read; write it as `postgresql://user@host:5432/database`"
            ) from None
        self._parameters: dict[str, Any] = {**_DEFAULTS, **given}
        port = f":{given['port']}" if given.get("port") else ""
        self.name = f"postgresql://{given.get('host', '')}{port}/{given.get('dbname', '')}"
        self.url = url
        self.users = 0
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked child: the connections are the parent's."""
        self._lock = threading.Lock()
        for connection in getattr(self, "_open", ()):
            _leave(connection)
        self._idle: list[Connection] = []
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._pid = os.getpid()

    def connect(self) -> Connection:
        """A connection of one's own. Raises psycopg.Error, and StoreError if the server is too old."""
        connection = psycopg.connect(**self._parameters, autocommit=True, prepare_threshold=0)
        try:
            if connection.info.server_version < _OLDEST:
                raise StoreError(f"`{self.name}` is served by a PostgreSQL older than 14; upgrade it")
            connection.execute(_SETTINGS, prepare=False)
            postgres_arrays.register(connection)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._open.add(connection)
        return connection

    def borrow(self) -> Connection:
        """A connection outside any transaction, to be given back or discarded. Raises psycopg.Error and StoreError."""
        if self._pid != os.getpid():
            raise StoreError(
                f"`{self.name}` was in use when this process was forked; open it again in the child"
            )
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self.connect()

    def give_back(self, connection: Connection) -> None:
        """Take a connection back; what is not fit to be used again is closed."""
        usable = not connection.closed and connection.info.transaction_status == _OUTSIDE
        with self._lock:
            if usable and self.users > 0 and len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def discard(self, connection: Connection) -> None:
        """Close a connection that failed, and those that lie idle: whatever befell it may have befallen them."""
        with self._lock:
            idle, self._idle = self._idle, []
        for one in (connection, *idle):
            one.close()

    def close_idle(self) -> None:
        """Close what nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            one.close()


_OUTSIDE = psycopg.pq.TransactionStatus.IDLE


def _leave(connection: Connection) -> None:
    """Close the child's copy of a connection's socket without a word to the server."""
    try:
        os.close(connection.pgconn.socket)
    except (OSError, psycopg.Error):
        pass  # closed before the fork
    _left.append(connection)


_left: list[Connection] = []
"""Connections of the parent, kept so that nobody closes them by forgetting them."""
