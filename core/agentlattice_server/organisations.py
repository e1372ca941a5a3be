"""The organisations that one database holds: the open engine of each.

- An engine is opened when its organisation is first asked for, and stays open until the service ends.
- An organisation that is not there is never made by asking for it: a key that names one is no key.
- Each log is signed with a key of its own. Where a file is named for the first one's, the others lie beside it, with the
  organisation's id appended.
"""

from __future__ import annotations

import os
import threading

from agentlattice_core.clock import Clock
from agentlattice_core.engine import Engine, open_engine, release
from agentlattice_core.errors import NotRecordedError
from agentlattice_core.stores.databases import Storage, is_postgres, organisations

__all__ = ["Organisations"]


class Organisations:
    """Open engines by organisation id. Safe to use from any thread.

    The database is made, with one organisation in it, if it is not there. Raises StoreError if it cannot be used.
    """

    def __init__(
        self, database: Storage, *, signing_key: str | os.PathLike[str] | None = None, clock: Clock | None = None
    ) -> None:
        self._database, self._signing_key, self._clock = database, signing_key, clock
        self._opening = threading.Lock()
        # A SQLite file is its first organisation; in PostgreSQL it has to be named where there are several.
        there = organisations(database) if is_postgres(database) else []
        first = open_engine(database, clock, signing_key, organisation=there[0] if there else None)
        self._engines: dict[str, Engine] = {first.store.log_id: first}

    @property
    def first(self) -> Engine:
        """The engine of the organisation that was there first."""
        return next(iter(self._engines.values()))

    def opened(self, organisation: str) -> Engine | None:
        """The engine of an organisation that is open already."""
        return self._engines.get(organisation)

    def engine(self, organisation: str) -> Engine | None:
        """The engine of an organisation; None if there is no such one. May wait for the database."""
        with self._opening:
            engine = self._engines.get(organisation)
            if engine is None and organisation in organisations(self._database):
                engine = self._engines[organisation] = self._open(organisation)
            return engine

    def create(self, organisation: str) -> Engine:
        """The engine of an organisation, which is made if it is not there."""
        with self._opening:
            engine = self._engines.get(organisation)
            if engine is None:
                engine = self._engines[organisation] = self._open(organisation)
            return engine

    def _open(self, organisation: str) -> Engine:
        signing_key = None if self._signing_key is None else f"{os.fspath(self._signing_key)}.{organisation}"
        return open_engine(self._database, self._clock, signing_key, organisation=organisation)

    def check(self) -> None:
        """Raise StoreError if the database cannot be read, or NotRecordedError if the log may not be written."""
        for engine in self._engines.values():
            with engine.read() as reader:
                _ = reader.head
            if engine.notary.alarm is not None:
                raise NotRecordedError(engine.notary.alarm)

    def close(self) -> None:
        """Record what is outstanding and close every engine."""
        while self._engines:
            release(self._engines.popitem()[1])
