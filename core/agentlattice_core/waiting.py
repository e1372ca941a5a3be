"""Waiting for a person: a sleeper that wakes the moment somebody decides, in this process or another.

- The watch begins before the state is read, so a decision in between is not missed.
- Whoever waits sleeps until an entry about the request comes, its deadline, or their own patience ends; in between they
  cost nothing. A deadline that a clock jumps over is the scheduler's to record, whose entry wakes them.
- A clock that says when it is moved (a test's) wakes them too.
- The deadline is the request's own; whoever waits records the timeout if nobody has.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agentlattice_core import deadlines
from agentlattice_core.clock import MovableClock, parse_time
from agentlattice_core.engine import Engine
from agentlattice_core.errors import NotFoundError
from agentlattice_core.follower import Watch
from agentlattice_core.stores.base import Document, Row

__all__ = ["Standing", "Waiting", "until_resolved", "until_resolved_sync"]

_LONGEST_NAP = 60.0  # seconds until the clock is asked again: the machine may have slept meanwhile


@dataclass(frozen=True, slots=True)
class Standing:
    """How a request for approval stands. `action` names what it is about, where the service says so."""

    status: str
    action: str | None = None

    @property
    def waits(self) -> bool:
        """Whether nobody has decided yet."""
        return self.status in ("pending", "escalated")


class Waiting:
    """Work: wait until a person has decided, at most `patience` seconds."""

    __slots__ = ("_approval_id", "_engine", "_patience")

    def __init__(self, engine: Engine, approval_id: str, patience: float | None) -> None:
        self._engine = engine
        self._approval_id = approval_id
        self._patience = patience

    def run(self) -> Standing:
        """Wait on this thread. Raises NotFoundError."""
        approval = until_resolved_sync(self._engine, self._approval_id, self._patience)
        return Standing(approval["status"], approval["action"])

    async def run_async(self) -> Standing:
        """Wait without blocking the event loop. Raises NotFoundError."""
        approval = await until_resolved(self._engine, self._approval_id, self._patience)
        return Standing(approval["status"], approval["action"])


def until_resolved_sync(engine: Engine, approval_id: str, patience: float | None) -> Document:
    """The approval once it is no longer pending, or as it is after `patience` seconds. Raises NotFoundError."""
    woken = threading.Event()
    watch = _watch(engine, approval_id, woken.set)
    try:
        watch.begin()
        limit = _limit(engine, patience)
        while True:
            approval, nap = _look(engine, approval_id, limit)
            if approval is None:
                engine.run(lambda batch: deadlines.expire(batch, approval_id))
                continue
            if nap is None:
                return approval
            woken.wait(nap)
            woken.clear()
    finally:
        watch.end()


async def until_resolved(engine: Engine, approval_id: str, patience: float | None) -> Document:
    """As `until_resolved_sync`, without blocking the event loop."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(woken.set)
        except RuntimeError:
            pass  # the loop has ended, and whoever waited with it

    watch = _watch(engine, approval_id, wake)
    try:
        await asyncio.to_thread(watch.begin)
        limit = _limit(engine, patience)
        while True:
            approval, nap = await asyncio.to_thread(_look, engine, approval_id, limit)
            if approval is None:
                await engine.run_async(lambda batch: deadlines.expire(batch, approval_id))
                continue
            if nap is None:
                return approval
            try:
                await asyncio.wait_for(woken.wait(), nap)
            except TimeoutError:
                pass
            woken.clear()
    finally:
        watch.end()


def _watch(engine: Engine, approval_id: str, wake: Callable[[], None]) -> Watch:
    """Has `wake` called for every entry about the request, when the clock is moved, and when the log is closed."""

    def watcher(entry: dict[str, Any], _row: Row) -> None:
        if entry["kind"] == "approval" and entry["data"]["approval"] == approval_id:
            wake()

    clock = engine.clock
    moved = [lambda: clock.on_move(wake)] if isinstance(clock, MovableClock) else []
    return Watch(lambda: engine.follower.watch(watcher, wake), *moved)


def _limit(engine: Engine, patience: float | None) -> datetime | None:
    """When to give up; None for never, which is also what the calendar cannot hold."""
    if patience is None:
        return None
    try:
        return engine.clock.now() + timedelta(seconds=patience)
    except OverflowError:
        return None


def _look(engine: Engine, approval_id: str, limit: datetime | None) -> tuple[Document | None, float | None]:
    """The approval and how long to sleep; no sleep if there is nothing to wait for, no approval if it must be
    expired.
    """
    with engine.read() as reader:
        approval = reader.get("approval", approval_id)
        latest = reader.head.at
        if approval is None:
            raise NotFoundError(f"there is no approval `{approval_id:.80}`")
        if approval["status"] != "pending":
            return approval, None
        now = engine.clock.now()
        deadline = parse_time(approval["timeout_at"])
        # The log's time counts, which may be ahead of a clock that was set back.
        if now >= deadline or latest >= approval["timeout_at"]:
            return None, None
        left = (deadline - now).total_seconds()
        if limit is not None:
            if now >= limit:
                return approval, None
            left = min(left, (limit - now).total_seconds())
        return approval, min(left, _LONGEST_NAP)
