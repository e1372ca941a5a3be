"""The store in a PostgreSQL database, shared by many nodes; each organisation has its own log in it.

- One writer at a time for each log, by an advisory lock that a transaction holds from its beginning to its end. What
  waits for it stands in line. Writers of different logs do not meet.
- A commit is durable when it returns: `sync` has nothing left to do. Reads come from the primary, each in one snapshot.
- A transaction that failed before its commit was sent has done nothing, and is run again on a fresh connection if the
  failure was one that passes: a lost connection, a restart, a primary that became a standby, a deadlock, a timeout.
- If the answer to a commit is lost, the log is asked: the last entry names the one before it, so it is there with all
  others of its transaction or not at all, and who holds the log's lock knows that the transaction has ended one way or
  the other. Only then is it run again.
- After `patience` seconds whoever waits gets NotRecordedError.
- Other nodes are told of what somebody may wait for, and of nothing else, because telling costs every commit
  (docs/adr/0019-postgresql.md).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg

from agentlattice_core.errors import NotRecordedError, StoreError
from agentlattice_core.stores import postgres_schema
from agentlattice_core.stores.base import Offer, Store, Transaction
from agentlattice_core.stores.postgres_connections import Connection, Connections, is_passing, reason
from agentlattice_core.stores.postgres_listening import Listener
from agentlattice_core.stores.postgres_transaction import (
    Cache,
    PostgresReader,
    PostgresTransaction,
    begin_reading,
    begin_writing,
)

__all__ = ["PostgresStore", "organisations"]

T = TypeVar("T")

_PATIENCE = 20.0  # seconds: what a failover or a restart may take
_READERS_PATIENCE = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5


class PostgresStore(Store):
    """The log of `organisation` in the database at `url`, made if it is not there; by default that of the only one.

    `patience` is for how many seconds the database may be away before whoever waits for a commit is told. Raises
    StoreError if the database cannot be used, InvalidRequestError for a URL that cannot be read.
    """

    is_distant = True
    poll = (0.1, 1.0)

    def __init__(self, url: str, organisation: str | None = None, *, patience: float = _PATIENCE) -> None:
        self._database = _Database.at(url)
        self._connections = self._database.connections
        self.name = self._connections.name
        self._patience = patience
        self._closed = False
        self._changed: bytes | None = None
        self.restart()
        try:
            connection = self._connections.borrow()
            try:
                postgres_schema.migrate(connection, self.name)
                self._log, self.log_id = postgres_schema.open_log(connection, self.name, organisation)
            finally:
                self._connections.give_back(connection)
        except psycopg.Error as error:
            self._database.leave()
            raise StoreError(f"cannot open `{self.name}`: {reason(error)}") from error
        except BaseException:
            self._database.leave()
            raise
        self._database.stores.append(self)

    def restart(self) -> None:
        """Begin anew in a forked child: a thread of the parent may have held the lock."""
        self._write_lock = threading.RLock()
        self._cache = Cache()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"`{self.name}` was closed; open it again to use it")

    def close(self) -> None:
        with self._write_lock:
            if self._closed:
                return
            self._closed = True
            self._database.stores.remove(self)
            if all(store.log_id != self.log_id for store in self._database.stores):
                self._database.listener.forget(self.log_id)
            self._database.leave()

    # Writing

    def transact(
        self,
        work: Callable[[Transaction], T],
        on_commit: Callable[[], None] | None = None,
        offer: Offer | None = None,
    ) -> T | None:
        with self._write_lock:
            self._check_open()
            pauses = _Pauses(self._patience)
            while True:
                try:
                    return self._attempt(work, on_commit)
                except psycopg.Error as error:
                    if not is_passing(error) or not pauses.another():
                        raise NotRecordedError(
                            f"`{self.name}` could not be written: {reason(error)}"
                        ) from error

    def _attempt(self, work: Callable[[Transaction], T], on_commit: Callable[[], None] | None) -> T:
        """Run `work` once. A psycopg.Error says that nothing of it stands."""
        connection = self._connections.borrow()
        transaction: PostgresTransaction | None = None
        try:
            try:
                head = begin_writing(connection, self._log, self.name)
            except StoreError as error:
                raise NotRecordedError(error.message) from error
            transaction = PostgresTransaction(connection, self._log, self.log_id, head, self._cache)
            result = work(transaction)
            transaction.finish()
        except BaseException as error:
            self._take_back(connection, transaction, error)
            raise
        told = False
        try:
            transaction.commit()
            told = True
            self._stand(transaction, on_commit)
        except BaseException as error:
            transaction.end()
            self._cache.clear()
            self._connections.discard(connection)
            if not told:
                if not (transaction.committed or self._is_recorded(transaction, error)):
                    raise
                self._stand(transaction, on_commit)
            if not isinstance(error, psycopg.Error):
                raise
            return result
        transaction.end()
        self._connections.give_back(connection)
        return result

    def _take_back(
        self, connection: Connection, transaction: PostgresTransaction | None, error: BaseException
    ) -> None:
        """End a transaction that is not to be. Raises what the database said, if that is at the bottom of `error`."""
        self._cache.clear()
        if transaction is not None:
            transaction.end()
        failure = transaction.failure if transaction is not None else None
        try:
            if failure is not None or not isinstance(error, Exception) or isinstance(error, psycopg.Error):
                self._connections.discard(connection)
            else:
                connection.execute("ROLLBACK", prepare=False)
                self._connections.give_back(connection)
        except psycopg.Error:
            self._connections.discard(connection)
        if failure is not None and isinstance(error, Exception):
            raise failure

    def _stand(self, transaction: PostgresTransaction, on_commit: Callable[[], None] | None) -> None:
        if on_commit is not None:
            on_commit()
        transaction.remember()

    def _is_recorded(self, transaction: PostgresTransaction, error: BaseException) -> bool:
        """Whether a transaction whose commit got no answer stands.

        Without entries it wrote nothing that may not be written again. Raises NotRecordedError if nobody can tell.
        """
        if not transaction.entries:
            return False
        last, pauses = transaction.entries[-1], _Pauses(self._patience)
        while True:
            try:
                connection = self._connections.borrow()
                try:
                    # Under the lock: the server may still be busy with the commit, or with taking it back.
                    begin_writing(connection, self._log, self.name)
                    found = connection.execute(
                        "SELECT leaf FROM entries WHERE log = %s AND i = %s", (self._log, last.i)
                    ).fetchone()
                    connection.execute("ROLLBACK", prepare=False)
                except BaseException:
                    self._connections.discard(connection)
                    raise
                self._connections.give_back(connection)
                return found is not None and found[0] == last.leaf
            except (psycopg.Error, StoreError):
                if not pauses.another():
                    raise NotRecordedError(
                        f"`{self.name}` went away while it recorded this ({reason(error)}), and may have done so; "
                        "look in the log before it is tried again under another event id"
                    ) from error

    def sync(self) -> None:
        """A commit is durable when it returns."""
        self._check_open()

    @property
    def is_untidy(self) -> bool:
        return False

    def tidy(self) -> None:
        """The server tidies up by itself."""

    @contextmanager
    def signing(self, *, wait: bool = True) -> Iterator[bool]:
        self._check_open()
        query = "SELECT pg_advisory_lock(%s, %s)" if wait else "SELECT pg_try_advisory_lock(%s, %s)"
        name = (postgres_schema.SIGNERS, self._log)
        with self._lent() as connection:
            row = connection.execute(query, name).fetchone()
            ours = wait or row == (True,)
            try:
                yield ours
            finally:
                if ours and not connection.closed:
                    connection.execute("SELECT pg_advisory_unlock(%s, %s)", name)

    # Reading

    @contextmanager
    def read(self) -> Iterator[PostgresReader]:
        self._check_open()
        pauses = _Pauses(min(self._patience, _READERS_PATIENCE))
        while True:
            try:
                connection = self._connections.borrow()
                try:
                    reader = PostgresReader(
                        connection, self._log, begin_reading(connection, self._log, self.name)
                    )
                except BaseException:
                    self._connections.discard(connection)
                    raise
                break
            except psycopg.Error as error:
                if not is_passing(error) or not pauses.another():
                    raise StoreError(f"`{self.name}` could not be read: {reason(error)}") from error
        try:
            yield reader
        except psycopg.Error as error:
            raise StoreError(f"`{self.name}` could not be read: {reason(error)}") from error
        finally:
            reader.end()
            try:
                connection.execute("ROLLBACK", prepare=False)
                self._connections.give_back(connection)
            except psycopg.Error:
                self._connections.discard(connection)

    def changed(self) -> bool:
        self._check_open()
        with self._lent() as connection:
            row = connection.execute("SELECT leaf FROM logs WHERE id = %s", (self._log,)).fetchone()
        leaf = None if row is None else row[0]
        changed, self._changed = leaf != self._changed, leaf
        return changed

    def listen(self, bell: Callable[[], None]) -> None:
        self._check_open()
        self._database.listener.listen(self.log_id, bell)

    @contextmanager
    def _lent(self) -> Iterator[Connection]:
        """A connection for a statement or two outside any transaction. Raises StoreError if there is none."""
        try:
            connection = self._connections.borrow()
            try:
                yield connection
            except psycopg.Error:
                self._connections.discard(connection)
                raise
            finally:
                if not connection.closed:
                    self._connections.give_back(connection)
        except psycopg.Error as error:
            raise StoreError(f"`{self.name}` could not be asked: {reason(error)}") from error


class _Pauses:
    """Ever longer pauses between attempts, for as long as there is patience."""

    def __init__(self, patience: float) -> None:
        self._end = time.monotonic() + patience
        self._pause = _FIRST_PAUSE

    def another(self) -> bool:
        """Pause; False, at once, if there is no time left for another attempt."""
        pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - so that nodes do not come back all at once
        if time.monotonic() + pause > self._end:
            return False
        time.sleep(pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return True


class _Database:
    """What the stores of one database share in this process."""

    def __init__(self, url: str) -> None:
        self.connections = Connections(url)
        self.listener = Listener(self.connections)
        self.stores: list[PostgresStore] = []

    @staticmethod
    def at(url: str) -> _Database:
        """The one of this URL, with one more user."""
        with _databases_lock:
            database = _databases.get(url)
            if database is None:
                database = _databases[url] = _Database(url)
            database.connections.users += 1
            return database

    def leave(self) -> None:
        """One user less; after the last, connections are closed."""
        with _databases_lock:
            self.connections.users -= 1
            if self.connections.users == 0:
                del _databases[self.connections.url]
                self.connections.close_idle()


_databases: dict[str, _Database] = {}
_databases_lock = threading.Lock()


def organisations(url: str) -> list[str]:
    """The ids of the organisations in a database, in order. Raises StoreError if it cannot be used."""
    connections = Connections(url)
    try:
        connection = connections.connect()
        try:
            return postgres_schema.organisations_in(connection)
        finally:
            connection.close()
    except psycopg.Error as error:
        raise StoreError(f"cannot open `{connections.name}`: {reason(error)}") from error


def _after_fork() -> None:
    global _databases_lock
    _databases_lock = threading.Lock()
    for database in _databases.values():
        database.connections.restart()
        database.listener.restart()
        for store in database.stores:
            store.restart()


os.register_at_fork(after_in_child=_after_fork)
