"""The organisations that one database holds: the open engine of each.

- An engine is opened when its organisation is first asked for, and stays open until the service ends.
- An organisation that is not there is never made by asking for it: a key that names one is no key.
- A SQLite file holds one organisation.
"""

from __future__ import annotations

import os
import threading

from agentlattice_core.clock import Clock
from agentlattice_core.engine import Engine, open_engine, release
from agentlattice_core.errors import NotRecordedError

__all__ = ["Organisations"]

_SQLITE = "sqlite:///"


class Organisations:
    """Open engines by organisation id. Safe to use from any thread."""

    def __init__(
        self, database: str, *, signing_key: str | os.PathLike[str] | None = None, clock: Clock | None = None
    ) -> None:
        path = database.removeprefix(_SQLITE)
        self._opening = threading.Lock()
        engine = open_engine(path, clock, signing_key)
        self._engines: dict[str, Engine] = {engine.store.log_id: engine}

    @property
    def first(self) -> Engine:
        """The engine of the organisation that was there first."""
        return next(iter(self._engines.values()))

    def opened(self, organisation: str) -> Engine | None:
        """The engine of an organisation that is open already."""
        return self._engines.get(organisation)

    def engine(self, organisation: str) -> Engine | None:
        """The engine of an organisation; None if there is no such one. May wait for the database."""
        return self._engines.get(organisation)

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
