"""Which store a database means, and which organisations it holds.

- A database is named by the path of a SQLite file, by `sqlite:///path`, or by `postgresql://...`.
- An organisation is one log; its id is the log's. PostgreSQL holds any number in one database.
- A SQLite file holds one. Beside `governance.db`, which is the first, organisation `acme` lies in
  `governance.acme.db`: files that are backed up, moved and removed by themselves, and that no query can mix.
- An organisation is made by opening it under a new id. Without an id, the one there is is meant.
- A database's password is never part of a name that is shown.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import apsw

from agentlattice_core.audit.entry import check_log_id
from agentlattice_core.audit.key_service import is_key_service
from agentlattice_core.errors import AgentLatticeError, InvalidRequestError, StoreError
from agentlattice_core.stores.base import Store
from agentlattice_core.stores.schema import APPLICATION_ID
from agentlattice_core.stores.sqlite import SQLiteStore

__all__ = [
    "Storage",
    "default_signing_key",
    "is_postgres",
    "name_of",
    "name_opened",
    "open_store",
    "organisations",
    "place_of_signing_key",
    "sqlite_path",
]

Storage = str | os.PathLike[str]
"""What names a database: a path, `sqlite:///path` or `postgresql://...`."""

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")


def is_postgres(database: Storage) -> bool:
    """Whether a PostgreSQL database is named."""
    return isinstance(database, str) and database.startswith(_POSTGRES)


def sqlite_path(database: Storage) -> str:
    """The file of a SQLite database. Raises InvalidRequestError for the URL of another database."""
    text = os.fspath(database)
    if text.startswith(_SQLITE):
        text = text[len(_SQLITE) :]
    elif "://" in text:
        raise InvalidRequestError(
            f"a database is a path, `sqlite:///path` or `postgresql://...`, not `{text.partition('://')[0]}://`"
        )
    if not text:
        raise InvalidRequestError("a SQLite database is a file; name it as `sqlite:///governance.db`")
    return text


def default_signing_key(store: Store) -> str:
    """Where the key that signs a log lies if nobody says so: beside its file, else in the working directory."""
    return f"{store.path}.key" if isinstance(store, SQLiteStore) else f"{store.log_id}.key"


def place_of_signing_key(
    named: str | os.PathLike[str] | None, store: Store
) -> tuple[str | os.PathLike[str], str | None]:
    """Where the file lies of the key that was `named` (a path, `file://` and a path, or the address of a key in a key
    service), and that address.
    """
    text = os.fspath(named) if named else ""
    if is_key_service(text):
        return default_signing_key(store), text
    return text.removeprefix("file://") or default_signing_key(store), None


def name_of(database: Storage, organisation: str | None) -> str:
    """A name under which an organisation's log is found again within the process."""
    if is_postgres(database):
        return f"{os.fspath(database)}\n{organisation or ''}"
    return os.path.realpath(_file_of(sqlite_path(database), organisation))


def name_opened(database: Storage, store: Store) -> str:
    """The same, of a log that is open."""
    return os.path.realpath(store.path) if isinstance(store, SQLiteStore) else name_of(database, store.log_id)


def open_store(database: Storage, organisation: str | None = None) -> Store:
    """The log of an organisation, made if it is not there.

    Raises StoreError if the database cannot be used, or holds several organisations and none is named.
    """
    if organisation is not None:
        check_log_id(organisation)
    if is_postgres(database):
        log: Store = _postgres().PostgresStore(os.fspath(database), organisation)
        return log
    path = sqlite_path(database)
    store = _open_file(_file_of(path, organisation), organisation)
    if organisation is None or store.log_id == organisation:
        return store
    store.close()
    # Somebody else made the first organisation of this database at the same moment.
    beside = _file_of(path, organisation)
    store = _open_file(beside, organisation)
    if store.log_id != organisation:
        store.close()
        raise StoreError(
            f"`{beside}` holds organisation `{store.log_id}`, not `{organisation}`; move it elsewhere"
        )
    return store


def organisations(database: Storage) -> list[str]:
    """The ids of the organisations in a database, on PostgreSQL in the order in which they were made; none if it is not
    there. Raises StoreError.
    """
    if is_postgres(database):
        ids: list[str] = _postgres().organisations(os.fspath(database))
        return ids
    first = Path(sqlite_path(database))
    found = {_log_id(first)}
    for beside in first.parent.glob(f"{_glob_literal(first.stem)}.*{_glob_literal(first.suffix)}"):
        organisation = beside.name[len(first.stem) + 1 : len(beside.name) - len(first.suffix)]
        if _log_id(beside) == organisation:  # another database may be called like this, too
            found.add(organisation)
    return sorted(organisation for organisation in found if organisation is not None)


def _postgres() -> ModuleType:
    """The PostgreSQL store. Raises StoreError if what it takes is not installed."""
    try:
        from agentlattice_core.stores import postgres
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("psycopg", "psycopg_binary", ""):
            raise
        raise StoreError(
            "PostgreSQL takes a driver that is not installed; run `pip install 'agentlattice-integrations[server]'`"
        ) from error
    return postgres


def _open_file(path: str, organisation: str | None) -> SQLiteStore:
    return SQLiteStore(path, new_log_id=lambda: organisation or _new_organisation())


def _new_organisation() -> str:
    """An id that nobody has."""
    return f"org_{os.urandom(10).hex()}"


def _file_of(path: str, organisation: str | None) -> str:
    """The file that an organisation of the SQLite database at `path` lies in."""
    if organisation is None:
        return path
    first = _log_id(Path(path))
    if first is None or first == organisation:
        return path
    stem, suffix = os.path.splitext(path)
    return f"{stem}.{organisation}{suffix}"


def _log_id(path: Path) -> str | None:
    """The id of the log in a SQLite file; None if there is no file, none of ours, or nothing in it."""
    if not path.is_file() or path.stat().st_size == 0:
        return None
    try:
        # By the same library as the store's own: another one would drop its locks on closing.
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.set_busy_timeout(10_000)
            if connection.pragma("application_id") != APPLICATION_ID:
                return None
            row = connection.execute("SELECT log_id FROM head").fetchone()
        finally:
            connection.close()
    except (apsw.Error, AgentLatticeError):
        return None
    return None if row is None else row[0]


def _glob_literal(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)
