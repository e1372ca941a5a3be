"""One log, opened: the store, its sequencer, the policy in force, and the threads that wake whoever waits.

- Clients of one process that name the same organisation of the same database share one engine, so that they share
  commits and wake each other at once; the last one to close it closes the store.
- Commands are functions over a `Batch`; `run` and `run_async` carry them through the sequencer.
- The log is signed about once a second while there is traffic, and on close.
- What was posted (outcomes) rides with the next batch and is flushed after a moment if none comes, and on close.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from agentlattice_core.batch import Batch
from agentlattice_core.clock import Clock, SystemClock
from agentlattice_core.commands import Commands
from agentlattice_core.errors import (
    AgentLatticeError,
    AuditError,
    KeyServiceError,
    NotRecordedError,
    StoreError,
)
from agentlattice_core.follower import Follower
from agentlattice_core.keeper import Keeper
from agentlattice_core.metering import Meter
from agentlattice_core.notary import Notary
from agentlattice_core.policies import Policies
from agentlattice_core.scheduler import SOON, Scheduler
from agentlattice_core.sequencer import Command, Sequencer
from agentlattice_core.stores.base import Reader, Store
from agentlattice_core.stores.databases import (
    Storage,
    name_of,
    name_opened,
    open_store,
    organisations,
    place_of_signing_key,
)

__all__ = ["Engine", "open_engine", "organisations", "release"]

T = TypeVar("T")

_log = logging.getLogger("agentlattice")

_SIGNING_INTERVAL = 1.0  # seconds of traffic between checkpoints
_KEY_SERVICE_INTERVAL = 5.0  # seconds until a key service that did not sign is asked again without traffic
_OUTCOME_PATIENCE = 0.05  # seconds an outcome may wait for a batch to ride with


class Engine:
    """Everything that serves one log in this process."""

    def __init__(self, store: Store, clock: Clock, signing_key: str | os.PathLike[str] | None) -> None:
        self.store = store
        self.clock = clock
        self.policies = Policies()
        self.keeper = Keeper()
        self.follower = Follower(store)
        self._sequencer = Sequencer(store, clock, self._after_batch, Commands(self.policies))
        self._closed = False
        self.users = 0
        # Of its own, because a key service answers when it likes, and deadlines pass meanwhile.
        self._waiting_keeper = Keeper()
        self.unsigned = False
        """Whether a key service did not sign when it was asked last, so that entries wait for it."""
        place, service = place_of_signing_key(signing_key, store)
        self.notary = Notary(store, place, self._keep_checkpoint, service)
        with store.read() as reader:
            empty = reader.head.size == 0
        self._scheduler = Scheduler(store, clock, self.keeper, self.policies, self._run_due)
        if self.notary.alarm is None:
            if empty:
                self._sequencer.run(_begin)
            if self.notary.signed == 0:
                self.notary.sign()  # before anything else is recorded: a longer log has been signed by its key
            try:
                self.notary.finish_rotation()
            except KeyServiceError as error:
                _log.warning("the key that the log names does not take over yet: %s", error)
            if self.notary.asks_a_service:
                self._sign_later(_SIGNING_INTERVAL)  # what it did not sign when the log was closed
            self._scheduler.start()

    def _after_batch(self) -> None:
        self.follower.ring()
        if self.store.is_untidy:
            self.keeper.later("tidying", 0.0, self.store.tidy)
        self._sign_later(_SIGNING_INTERVAL)
        self.keeper.later("deadlines", SOON, self._scheduler.look)

    def measure(self, meter: Meter | None) -> None:
        """Have `meter` told of every batch from now on; None ends that."""
        self._sequencer.meter = meter

    @property
    def waiting(self) -> int:
        """How many commands wait to be recorded."""
        return self._sequencer.waiting

    def _sign_later(self, delay: float) -> None:
        keeper = self._waiting_keeper if self.notary.asks_a_service else self.keeper
        keeper.later("checkpoint", delay, self._sign)

    def _sign(self) -> None:
        try:
            done = self.notary.sign_unless_another_does()
        except KeyServiceError as error:
            if not self.unsigned:
                _log.warning("the log waits to be signed: %s", error)
            self.unsigned = True
            self._sign_later(_KEY_SERVICE_INTERVAL)
            return
        self.unsigned = False
        if not done:
            self._sign_later(_SIGNING_INTERVAL)

    def _run_due(self, command: Command[int]) -> int:
        return self._sequencer.run(command) if self.notary.alarm is None and not self._closed else 0

    def _keep_checkpoint(self, size: int, note: str) -> None:
        self._sequencer.run(lambda batch: batch.add_checkpoint(size, note))

    def run(self, command: Command[T], abandoned: Callable[[T], None] | None = None) -> T:
        """Run a command on this thread; its result is durable."""
        self._check_writable()
        return self._sequencer.run(command, abandoned)

    async def run_async(self, command: Command[T], abandoned: Callable[[T], None] | None = None) -> T:
        """Run a command without blocking the event loop; its result is durable."""
        self._check_writable()
        return await self._sequencer.run_async(command, abandoned)

    def post(self, command: Command[Any]) -> None:
        """Have a command ride with the next batch."""
        self._check_writable()
        self._sequencer.post(command)
        self.keeper.later("outcomes", _OUTCOME_PATIENCE, self._flush_leftovers)

    def _flush_leftovers(self) -> None:
        if self._sequencer.has_riders:
            self._sequencer.flush()

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """A consistent view of what is durable. What cannot be read as the log makes it raises AuditError."""
        self._check_open()
        try:
            with self.store.read() as reader:
                yield reader
        except (AssertionError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise AuditError(
                "what is stored is not what the log makes of it; verify the log and its state"
            ) from error

    def flush(self) -> None:
        """Return when everything posted is durable."""
        self._check_open()
        self._sequencer.flush()

    def close(self) -> None:
        """Record what is outstanding and close the store."""
        if self._closed:
            return
        # First the keeper: what is flushed here asks for background work, and at exit no thread can begin.
        self._scheduler.stop()
        self.keeper.close()
        self._waiting_keeper.close()
        try:
            self._sequencer.flush()
            self.notary.sign()
        except KeyServiceError as error:
            _log.warning("the log is signed when it is opened again: %s", error)
        finally:
            self._closed = True
            self.follower.close()
            self._sequencer.close()
            self.store.close()

    def restart(self) -> None:
        """Begin anew in a forked child, where no thread of the parent runs and any of its locks may be held."""
        self.policies.restart()
        self.keeper.restart()
        self._waiting_keeper.restart()
        self.follower.restart()
        self._sequencer.restart()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("this client was closed; open the database again to use it")

    def _check_writable(self) -> None:
        self._check_open()
        if self.notary.alarm is not None:
            raise NotRecordedError(self.notary.alarm)


def _begin(batch: Batch) -> None:
    if batch.next_index == 0:
        batch.record("log", {"system": "open"}, {"event": "began"})


_engines: dict[tuple[str, int], Engine] = {}
_engines_lock = threading.Lock()


def open_engine(
    database: Storage,
    clock: Clock | None = None,
    signing_key: str | os.PathLike[str] | None = None,
    *,
    organisation: str | None = None,
) -> Engine:
    """The engine of an organisation's log, shared within the process. Give it back with `release`.

    `database` is the path of a SQLite file, `sqlite:///path` or `postgresql://...`. `organisation` is the id of a log
    in it, made if it is not there; by default the first or only one. `signing_key` is the file of the signer's key, by
    default `<path>.key`, and on PostgreSQL `<organisation>.key` in the working directory; or the address of a key in a
    key service, such as `vault://vault.example.com:8200/transit/agentlattice`, which that file then names.

    Raises StoreError if the database cannot be used, InvalidRequestError for a name that cannot be one.
    """
    told = id(clock) if clock is not None else 0
    with _engines_lock:
        engine = _engines.get((name_of(database, organisation), told))
        if engine is None:
            store = open_store(database, organisation)
            name = (name_opened(database, store), told)
            engine = _engines.get(name)
            if engine is not None:
                store.close()
            else:
                try:
                    engine = Engine(store, clock or SystemClock(), signing_key)
                except BaseException:
                    store.close()
                    raise
                _engines[name] = engine
        engine.users += 1
        return engine


def release(engine: Engine) -> None:
    """Close the engine if nobody else uses it."""
    with _engines_lock:
        engine.users -= 1
        if engine.users > 0:
            return
        for name, known in list(_engines.items()):
            if known is engine:
                del _engines[name]
    engine.close()


def _close_all() -> None:
    for engine in list(_engines.values()):
        try:
            engine.close()
        except AgentLatticeError:
            pass  # the process ends; what could not be recorded reads `unknown`, which is true


atexit.register(_close_all)


def _after_fork() -> None:
    global _engines_lock
    _engines_lock = threading.Lock()
    for engine in _engines.values():
        engine.restart()


os.register_at_fork(after_in_child=_after_fork)
