"""The organisations that one database holds: the open engine of each.

- An engine is opened when its organisation is first asked for, and stays open until the service ends.
- An organisation is never made by asking for it: a key that names one that is not there is no key. How often the
  database is asked whether a new one came is bounded, whoever asks.
- A database that holds none is given one when it is first served.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from agentlattice_core.audit.key_service import is_key_service
from agentlattice_core.clock import Clock
from agentlattice_core.engine import Engine, open_engine, organisations, release
from agentlattice_core.errors import NotRecordedError, StoreError
from agentlattice_core.stores.databases import is_postgres

__all__ = ["Organisations"]

_LOOKS = 10
"""How often in a row the database is asked whether an organisation has come, and after that once a second."""


class Organisations:
    """Open engines by organisation id. Safe to use from any thread.

    `database` is a path, `sqlite:///path` or `postgresql://...`. `signing_key` is the file of the key that signs the
    log of the first organisation; the others' lie where they do by default. The address of a key in a key service is
    for all of them. Raises StoreError.
    """

    def __init__(
        self, database: str, *, signing_key: str | os.PathLike[str] | None = None, clock: Clock | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._service = signing_key if signing_key and is_key_service(os.fspath(signing_key)) else None
        self._opening = threading.Lock()
        self._engines: dict[str, Engine] = {}
        self._closed = False
        self._followers: list[Callable[[Engine], None]] = []
        known = organisations(database)
        # A SQLite file is its first organisation. PostgreSQL has to be told which one is meant.
        first = known[0] if known and is_postgres(database) else None
        engine = open_engine(database, clock, signing_key, organisation=first)
        self.first = engine
        """The engine of the first organisation."""
        self._engines[engine.store.log_id] = engine
        self._looks, self._counted = float(_LOOKS), time.monotonic()
        self._known = frozenset(known)

    def opened(self, organisation: str) -> Engine | None:
        """The engine of an organisation that is open already."""
        return self._engines.get(organisation)

    def engine(self, organisation: str) -> Engine | None:
        """The engine of an organisation; None if there is no such one. May wait for the database."""
        found = self._engines.get(organisation)
        if found is not None:
            return found
        with self._opening:
            found = self._engines.get(organisation)
            if found is None and organisation in self._there(organisation):
                found = self._open(organisation)
        return found

    def make(self, organisation: str) -> Engine:
        """The engine of an organisation, made if it is not there. Raises InvalidRequestError, StoreError."""
        with self._opening:
            found = self._engines.get(organisation)
            return found if found is not None else self._open(organisation)

    def _there(self, organisation: str) -> frozenset[str]:
        if organisation not in self._known:
            now = time.monotonic()
            self._looks, self._counted = min(_LOOKS, self._looks + now - self._counted), now
            if self._looks >= 1:
                self._looks -= 1
                self._known = frozenset(organisations(self._database))
        return self._known

    def _open(self, organisation: str) -> Engine:
        if self._closed:
            raise StoreError("the service is ending; ask again")
        engine = open_engine(self._database, self._clock, self._service, organisation=organisation)
        self._engines[organisation] = engine
        for follower in self._followers:
            follower(engine)
        return engine

    def engines(self) -> list[Engine]:
        """The engines that are open."""
        return list(self._engines.values())

    def follow(self, follower: Callable[[Engine], None]) -> None:
        """Open every organisation there is, and have `follower` called with each engine, and with each opened later."""
        with self._opening:
            for engine in self._engines.values():
                follower(engine)
            self._followers.append(follower)
            for organisation in organisations(self._database):
                if organisation not in self._engines:
                    self._open(organisation)

    def check(self) -> None:
        """Raise StoreError if the database cannot be read, or NotRecordedError if a log may not be written."""
        for engine in self.engines():
            with engine.read() as reader:
                _ = reader.head
            if engine.notary.alarm is not None:
                raise NotRecordedError(engine.notary.alarm)

    def close(self) -> None:
        """Record what is outstanding and close every engine."""
        with self._opening:
            self._closed = True
            engines, self._engines = self._engines, {}
        for engine in engines.values():
            release(engine)
