"""The store in one SQLite file, shared by many threads and processes of one machine.

- One writer at a time: a lock in the process, `ProcessGate` between processes; SQLite's own lock is never contended.
- Committing and syncing are apart. A transaction commits without a sync (WAL, synchronous=NORMAL) and lets the next
  writer in; `sync` then makes the write-ahead log durable, and one sync covers everything that was committed before it
  began, whichever process wrote it. SQLite itself still syncs the write-ahead log before a checkpoint and the database
  after it, so neither ever holds less than what was answered (docs/adr/0004-sqlite-durability.md).
- A reader syncs first when it sees entries that nobody has made durable yet.
- A failed sync is final: the kernel may have dropped the pages, so the store refuses everything until it is reopened.
- A file that was removed or replaced while it was open is noticed before the next commit and refused.
- The write-ahead log is moved into the database twice: the bulk of it while others go on writing, and inside the gate
  the little that they wrote meanwhile, so that it starts afresh and stays small.
- Forking: connections are closed before a fork and opened again on first use, in parent and child, because a connection
  carried across a fork corrupts locks. A fork that Python did not announce is noticed by the process id and refused.
- One SQLite library per process may open the file: another one (the standard library's, say) would drop the locks of
  this one when it closes its file.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import apsw

from agentlattice_core.errors import NotRecordedError, StoreError
from agentlattice_core.stores.backlog import Backlog
from agentlattice_core.stores.base import Offer, Store, Transaction
from agentlattice_core.stores.board import Board
from agentlattice_core.stores.exchange import Exchange
from agentlattice_core.stores.gate import ProcessGate
from agentlattice_core.stores.schema import APPLICATION_ID, create_or_migrate
from agentlattice_core.stores.sqlite_transaction import Cache, SQLiteReader, SQLiteTransaction

__all__ = ["SQLiteStore"]

T = TypeVar("T")

_BUSY_TIMEOUT_MS = 10_000  # only a foreign tool that ignores the gate can make a writer wait
_IDLE_READERS = 4
_FORK_PATIENCE = 10.0  # seconds a fork waits for reads in progress

_FAILED_SYNCS = (apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC)

_Identity = tuple[int, int] | None  # device and number of a file

Fsync = Callable[[int], None]

_fdatasync: Fsync = getattr(os, "fdatasync", os.fsync)


class SQLiteStore(Store):
    """A log and its state in the SQLite file at `path`, created if it is not there.

    `new_log_id` names the log if the file is new. `vfs` and `fsync` are the seams of the fault-injection tests.
    Raises StoreError if the file cannot be used.
    """

    is_distant = False
    poll = (0.005, 0.05)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        new_log_id: Callable[[], str],
        vfs: str | None = None,
        fsync: Fsync | None = None,
    ) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.log_id = ""
        self._new_log_id = new_log_id
        self._vfs = vfs
        self._fsync = fsync or _fdatasync
        self._write_lock = threading.RLock()
        self._sync_lock = threading.Lock()
        self._pool_lock = threading.Lock()
        self._pool = threading.Condition(self._pool_lock)
        self._idle: list[apsw.Connection] = []
        self._reading = 0
        self._writer: apsw.Connection | None = None
        self._gate: ProcessGate | None = None
        self._exchange: Exchange | None = None
        self._wal: int | None = None
        self._backlog = Backlog()
        self._pid = os.getpid()
        self._closed = False
        self._broken: str | None = None
        self._board: Board | None = None
        self._written = 0  # the number of this process's last commit
        self._openings = 0  # how often a fork had the file closed and opened again
        self._settled = False  # whether the file is closed, and had everything on the disk before
        self._quiescing = False
        self._data_version: tuple[int, int] | None = None
        self._wal_path = f"{self.path}-wal"
        self._files: tuple[_Identity, _Identity] = (None, None)
        self.cache = Cache()
        with self._write_lock:
            self._open()
        _stores.add(self)

    # Opening and closing

    def _open(self) -> None:
        """Open or reopen everything. The caller holds the write lock."""
        parent = Path(self.path).parent
        if not parent.is_dir():
            raise StoreError(f"cannot open `{self.path}`: there is no directory `{parent}`")
        try:
            self._create()
            self._gate = ProcessGate(self.path)
            try:
                self._gate.queue()
                self._gate.enter()
                self._board = Board(self.path)
                self._exchange = Exchange.beside(self.path, self._gate)
                self._writer = self._connect()
                self.log_id = create_or_migrate(self._writer, self.path, self._new_log_id)
                self._writer.set_wal_hook(self._backlog.committed)
                self._wal = os.open(self._wal_path, os.O_RDWR | os.O_CLOEXEC)
                self._files = _identity(self.path), _identity(self._wal_path)
                self._settled = False
                # What a process that is gone had committed was perhaps never synced.
                self._fsync(self._wal)
                number, _ = self._board.written
                try:
                    self._board.lock()
                    self._board.settle(number, SQLiteReader(self._writer).head.size)
                finally:
                    self._board.unlock()
            finally:
                self._gate.leave()
                self._gate.admit()
            directory = os.open(parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._fsync(directory)
            finally:
                os.close(directory)
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise StoreError(f"cannot open `{self.path}`: {error.strerror or error}") from error
            if isinstance(error, apsw.Error):
                raise StoreError(f"cannot open `{self.path}`: {_reason(error)}") from error
            if isinstance(error, TypeError | ValueError):
                raise StoreError(
                    f"cannot open `{self.path}`: the head of its log cannot be read; restore it from a copy"
                ) from error
            raise

    def _create(self) -> None:
        """Have a file that nobody else may read; those that SQLite makes beside it inherit its mode.

        One that is there is not opened: closing it again would drop every lock that this process has on it.
        """
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            if os.path.isdir(self.path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None

    def _connect(self) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        connection = apsw.Connection(self.path, flags=flags, vfs=self._vfs)
        try:
            connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
            if connection.pragma("page_count") != 0 and connection.pragma("application_id") != APPLICATION_ID:
                raise StoreError(
                    f"cannot open `{self.path}`: it is a database of something else; name another file"
                )
            if connection.pragma("journal_mode", "wal") != "wal":
                raise StoreError(
                    f"cannot open `{self.path}`: its file system cannot share memory between processes; "
                    "use a local disk"
                )
            connection.pragma("synchronous", 1)
            connection.pragma("wal_autocheckpoint", 0)
            connection.pragma("cache_size", -16_384)
            connection.pragma("trusted_schema", 0)
        except BaseException:
            connection.close()
            raise
        return connection

    def _release(self) -> None:
        """Close everything that is open. The caller holds the write lock."""
        with self._pool_lock:
            for connection in self._idle:
                connection.close()
            self._idle.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None
        if self._gate is not None:
            self._gate.close()
            self._gate = None
        if self._board is not None:
            self._board.close()
            self._board = None
        if self._wal is not None:
            os.close(self._wal)
            self._wal = None
        self.cache.clear()
        self._data_version = None

    def _usable(self) -> apsw.Connection:
        """The writer's connection; reopened if a fork closed it. The caller holds the write lock."""
        if self._closed:
            raise StoreError(f"`{self.path}` was closed; open it again to use it")
        if self._pid != os.getpid():
            raise StoreError(
                f"`{self.path}` was in use when this process was forked; open it again in the child"
            )
        self._check_disk()
        if self._writer is None:
            self._open()
            assert self._writer is not None
        return self._writer

    def _check_disk(self) -> None:
        if self._broken is None and self._board is not None and self._board.poisoned:
            self._broken = "another process could not sync it"
        if self._broken is not None:
            raise NotRecordedError(
                f"`{self.path}` cannot be trusted since {self._broken}; mend the disk and open it again"
            )

    def _check_files(self) -> None:
        """What is written to a file that has no name any more is lost with this process."""
        if (_identity(self.path), _identity(self._wal_path)) != self._files:
            raise NotRecordedError(
                f"`{self.path}` was removed or replaced while it was open; restore it and open it again"
            )

    def close(self) -> None:
        with self._write_lock:
            if self._closed:
                return
            if self._pid == os.getpid() and self._writer is not None:
                try:
                    self.sync()
                    self._settled = True
                finally:
                    self._closed = True
                    with self._sync_lock:
                        self._release()
            self._closed = True

    # Writing

    def transact(
        self,
        work: Callable[[Transaction], T],
        on_commit: Callable[[], None] | None = None,
        offer: Offer | None = None,
    ) -> T | None:
        with self._write_lock:
            connection = self._usable()
            gate, exchange, board = self._gate, self._exchange, self._board
            assert gate is not None
            assert board is not None
            try:
                try:
                    if exchange is None:
                        gate.queue()
                    elif offer is None:
                        gate.queue()
                        exchange.begin()
                    elif exchange.offer(offer, max(board.written[1], board.durable_size)):
                        return None
                    gate.enter()
                    self._check_files()
                    return self._transact(connection, work, on_commit)
                finally:
                    try:
                        if exchange is not None:
                            exchange.leave()
                    finally:
                        try:
                            gate.leave()
                        finally:
                            gate.admit()
            except (apsw.Error, OSError) as error:
                if getattr(error, "extendedresult", None) in _FAILED_SYNCS:
                    self._poison(error)
                raise NotRecordedError(f"`{self.path}` could not be written: {_reason(error)}") from error

    def _transact(
        self,
        connection: apsw.Connection,
        work: Callable[[Transaction], T],
        on_commit: Callable[[], None] | None,
    ) -> T:
        board = self._board
        assert board is not None
        if self._backlog.can_start_afresh:
            self._backlog.start_afresh(connection)
        committing = False
        transaction: SQLiteTransaction | None = None
        try:
            connection.execute("BEGIN IMMEDIATE")
            transaction = SQLiteTransaction(connection, self.cache, board.begun, self._exchange)
            number = board.begin()
            result = work(transaction)
            transaction.end()
            committing = True
            connection.execute("COMMIT")
            self._remember(board, number, transaction, on_commit)
            if transaction.round is not None and self._exchange is not None:
                self._exchange.keep(transaction.round)
            return result
        except BaseException as error:
            if transaction is not None:
                transaction.end()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            elif transaction is not None and committing and not isinstance(error, apsw.Error):
                # Ctrl-C between the commit and here: no error of SQLite's, no open transaction, so the commit stands.
                self._remember(board, number, transaction, on_commit)
            self.cache.clear()
            raise

    def _remember(
        self,
        board: Board,
        number: int,
        transaction: SQLiteTransaction,
        on_commit: Callable[[], None] | None,
    ) -> None:
        if transaction.erased:
            self._backlog.hurry()
            if self._exchange is not None:
                self._exchange.forget()
        self._written = number
        board.done(number, transaction.head.size)
        self.cache.commit(number, transaction.head, transaction.writes)
        if on_commit is not None:
            on_commit()

    @property
    def is_untidy(self) -> bool:
        return self._backlog.is_due

    def tidy(self) -> None:
        connection = self._borrow()
        try:
            self._backlog.move_bulk(connection)
        except apsw.Error as error:
            if getattr(error, "extendedresult", None) in _FAILED_SYNCS:
                self._poison(error)
            raise NotRecordedError(f"`{self.path}` could not be written: {_reason(error)}") from error
        finally:
            self._give_back(connection)

    # Syncing

    def sync(self) -> None:
        opening, wanted, board = self._openings, self._written, self._board
        if board is not None and board.durable >= wanted:
            self._check_disk()
            return
        with self._sync_lock:
            self._check_disk()
            board = self._board
            if opening != self._openings:
                return  # a fork came in between, and synced everything before it closed the file
            if board is None or self._wal is None:
                if self._settled:
                    return
                raise NotRecordedError(f"`{self.path}` was closed before the disk had everything")
            if self._exchange is not None and self._exchange.is_alone:
                # Nobody to take turns with. Whoever opens the file meanwhile syncs for itself.
                if board.durable < wanted:
                    self._sync(board, self._wal, 0)
                return
            try:
                taken = board.lock(unless_durable=wanted)
                self._check_disk()
                if taken and board.durable < wanted:
                    self._sync(board, self._wal, 0)
            finally:
                board.unlock()

    def _sync_seen(self, size: int) -> None:
        """Make durable what a reader saw, which may be a commit that its writer did not live to count."""
        with self._sync_lock:
            board = self._board
            if board is None or self._wal is None:
                raise StoreError(f"`{self.path}` was closed; open it again to use it")
            try:
                board.lock()
                self._check_disk()
                if board.durable_size < size:
                    self._sync(board, self._wal, size)
            finally:
                board.unlock()

    def _sync(self, board: Board, wal: int, seen: int) -> None:
        number, size = board.written
        try:
            self._fsync(wal)
        except OSError as error:
            self._poison(error)
            raise NotRecordedError(f"`{self.path}` could not be synced to disk: {_reason(error)}") from error
        board.settle(number, max(size, seen))

    def _poison(self, error: Exception) -> None:
        if self._board is not None:
            self._board.poison()
        self._broken = f"a sync failed: {_reason(error)}"

    # Reading

    @contextmanager
    def read(self) -> Iterator[SQLiteReader]:
        connection = self._borrow()
        reader: SQLiteReader | None = None
        try:
            connection.execute("BEGIN")
            reader = SQLiteReader(connection)
            board = self._board
            if board is None or reader.head.size > board.durable_size:
                self._sync_seen(reader.head.size)
            yield reader
        except apsw.Error as error:
            raise StoreError(f"`{self.path}` could not be read: {_reason(error)}") from error
        finally:
            if reader is not None:
                reader.end()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._give_back(connection)

    def _borrow(self) -> apsw.Connection:
        with self._pool_lock:
            usable = self._writer is not None and not self._closed and self._pid == os.getpid()
            if self._idle and usable and not self._quiescing:
                self._reading += 1
                return self._idle.pop()
        with self._write_lock:
            self._usable()
            connection = self._connect()
            with self._pool_lock:
                self._reading += 1
            return connection

    def _give_back(self, connection: apsw.Connection) -> None:
        with self._pool_lock:
            if self._writer is None or len(self._idle) >= _IDLE_READERS:
                connection.close()
            else:
                self._idle.append(connection)
            self._reading -= 1
            self._pool.notify_all()

    def changed(self) -> bool:
        with self._write_lock:
            # data_version tells of commits by others only; our own are counted.
            try:
                version = (self._usable().pragma("data_version"), self._written)
            except apsw.Error as error:
                raise StoreError(f"`{self.path}` could not be read: {_reason(error)}") from error
            changed, self._data_version = version != self._data_version, version
            return changed

    def listen(self, bell: Callable[[], None]) -> None:
        """Nobody tells: what other processes commit is found by asking."""

    def signing(self, *, wait: bool = True) -> AbstractContextManager[bool]:
        """Whoever shares the file shares the key's own lock."""
        return nullcontext(True)

    # Forking

    def _before_fork(self) -> None:
        self._write_lock.acquire()
        with self._pool_lock:
            self._quiescing = True
            quiet = self._pool.wait_for(lambda: self._reading == 0, timeout=_FORK_PATIENCE)
        # Only now, because a read in progress may have to sync what it saw.
        self._sync_lock.acquire()
        if self._closed or self._pid != os.getpid() or self._writer is None:
            return
        if not quiet:
            return  # the child finds another process id on an open store, and refuses
        if self._wal is not None and self._board is not None and self._broken is None:
            try:
                try:
                    self._board.lock()
                    self._sync(self._board, self._wal, 0)
                    self._settled = True
                finally:
                    self._board.unlock()
            except NotRecordedError:
                pass  # whoever waits for it finds the store broken
        self._release()
        self._openings += 1
        self._written = 0

    def _after_fork(self, *, child: bool) -> None:
        if child and self._writer is None:
            self._pid = os.getpid()
        self._quiescing = False
        self._sync_lock.release()
        self._write_lock.release()


def _identity(path: str) -> _Identity:
    """Which file a path leads to now."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _reason(error: Exception) -> str:
    """What went wrong, for people: the system's words, without the library's names."""
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    text = str(error)
    return text.split(": ", 1)[1] if text.startswith(type(error).__name__ + ": ") else text


_stores: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()
_forking: list[SQLiteStore] = []


def _before_fork() -> None:
    _forking[:] = list(_stores)
    for store in _forking:
        store._before_fork()


def _after_fork(child: bool) -> None:
    for store in reversed(_forking):
        store._after_fork(child=child)
    _forking.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(child=False),
    after_in_child=lambda: _after_fork(child=True),
)
