"""One piece of work that a client asks for, wherever it is done: on the log in this process, or by a service.

- A client's method says once what is to be done. The coroutine function awaits it, its blocking twin runs it.
- `Command` writes to the log and is durable when it returns; `Reading` looks at it; `Local` is anything else that an
  engine does at length. A service's are in `remote.service`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from agentlattice_core.batch import Batch
from agentlattice_core.engine import Engine
from agentlattice_core.stores.base import Reader

__all__ = ["Command", "Local", "Reading", "Recording", "Work"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Work(Protocol[T_co]):
    """Something to be done once."""

    def run(self) -> T_co:
        """Do it on this thread."""
        ...

    async def run_async(self) -> T_co:
        """Do it without blocking the event loop."""
        ...


class Recording(Work[T_co], Protocol[T_co]):
    """Work that leaves something in the log, and may be left to be done."""

    def post(self) -> None:
        """Have it done soon, without waiting for it or for what comes of it."""
        ...


class Command(Generic[T]):
    """A command for an engine. `abandoned` is called with a result whose caller is gone."""

    __slots__ = ("_abandoned", "_command", "_engine")

    def __init__(
        self,
        engine: Engine,
        command: Callable[[Batch], T],
        abandoned: Callable[[T], None] | None = None,
    ) -> None:
        self._engine = engine
        self._command = command
        self._abandoned = abandoned

    def run(self) -> T:
        """Run it in a transaction of this thread's."""
        return self._engine.run(self._command, self._abandoned)

    async def run_async(self) -> T:
        """Run it in a transaction of another thread's."""
        return await self._engine.run_async(self._command, self._abandoned)

    def post(self) -> None:
        """Have it ride with the next batch."""
        self._engine.post(self._command)


class Reading(Generic[T]):
    """A look at an engine's log: a function of one consistent view of it."""

    __slots__ = ("_engine", "_look")

    def __init__(self, engine: Engine, look: Callable[[Reader], T]) -> None:
        self._engine = engine
        self._look = look

    def run(self) -> T:
        """Look."""
        with self._engine.read() as reader:
            return self._look(reader)

    async def run_async(self) -> T:
        """Look from a thread of the loop's pool."""
        return await asyncio.to_thread(self.run)


class Local(Generic[T]):
    """Something that takes a while, in this process."""

    __slots__ = ("_do",)

    def __init__(self, do: Callable[[], T]) -> None:
        self._do = do

    def run(self) -> T:
        """Do it."""
        return self._do()

    async def run_async(self) -> T:
        """Do it on a thread of the loop's pool."""
        return await asyncio.to_thread(self._do)
