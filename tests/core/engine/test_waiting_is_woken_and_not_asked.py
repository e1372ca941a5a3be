"""Whoever waits for a person sleeps until something happens that concerns them, and then wakes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentlattice_core import AgentLattice, AgentLatticeError, StoreError, waiting
from agentlattice_core.approval_events import until_happened
from agentlattice_core.testing import ManualClock

PATIENCE = 60  # seconds until something that must happen counts as forgotten
POLICY = """\
version: 1
policies:
  - {name: Orders, action: order.place, effect: require_approval, approval: {timeout: 30m}}
  - {name: Reading, action: order.read, effect: allow}
"""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def shop(tmp_path: Path, clock: ManualClock) -> Iterator[AgentLattice]:
    (tmp_path / "policies.yaml").write_text(POLICY)
    path = tmp_path / "governance.db"
    with AgentLattice.embedded(
        path, policies=tmp_path / "policies.yaml", agent="shop", clock=clock
    ) as client:
        yield client


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], int]:
    """Waits until the log was looked at so often by those who wait; how often it was."""
    looked = threading.Semaphore(0)
    counted = []
    look = waiting._look

    def counting(*arguments: Any) -> Any:
        found = look(*arguments)
        counted.append(1)
        looked.release()
        return found

    monkeypatch.setattr(waiting, "_look", counting)

    def until(number: int) -> int:
        while len(counted) < number:
            assert looked.acquire(timeout=PATIENCE)
        return len(counted)

    return until


@contextmanager
def waiter(shop: AgentLattice, approval_id: str, patience: float | None = None) -> Iterator[list[Any]]:
    """Somebody who waits on a thread of their own, and what came of it once the block is left."""
    became: list[Any] = []

    def wait() -> None:
        try:
            became.append(waiting.until_resolved_sync(shop._engine, approval_id, patience)["status"])
        except AgentLatticeError as error:
            became.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    yield became
    thread.join(PATIENCE)
    assert not thread.is_alive()


def ask(shop: AgentLattice) -> str:
    approval_id = shop.execute_sync("order.place").approval_id
    assert approval_id is not None
    return approval_id


def test_nothing_is_asked_while_nothing_happens(shop: AgentLattice, looks: Callable[[int], int]) -> None:
    """Time that passes and what others do cost a waiter no look at the log; a decision costs one."""
    mine, another = ask(shop), ask(shop)
    with waiter(shop, mine) as became:
        looks(1)
        shop.execute_sync("order.read")
        with shop.for_operator("ana") as ana:
            ana.deny_action_sync(another, "no")
            time.sleep(0.6)
            assert looks(1) == 1
            ana.approve_action_sync(mine)
    assert became == ["approved"]
    assert looks(2) == 2


def test_a_clock_that_is_moved_ends_patience_and_deadlines(
    shop: AgentLattice, clock: ManualClock, looks: Callable[[int], int]
) -> None:
    """Patience that is over leaves the request pending; a deadline that is over ends it."""
    approval_id = ask(shop)
    with waiter(shop, approval_id, 600) as became:
        looks(1)
        clock.advance(minutes=11)
    assert became == ["pending"]
    with waiter(shop, approval_id) as became:
        looks(3)
        clock.advance(minutes=30)
    assert became == ["timed_out"]


def test_closing_the_log_ends_waiting(shop: AgentLattice, looks: Callable[[int], int]) -> None:
    """Nobody sleeps on over a log that is closed: they are told."""
    with waiter(shop, ask(shop)) as became:
        looks(1)
        shop.close()
    (error,) = became
    assert isinstance(error, StoreError)


@pytest.mark.parametrize("kind", ["for a decision", "for what happens"])
async def test_a_wait_that_is_cancelled_as_it_begins_leaves_nobody_behind(
    shop: AgentLattice, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """For a watcher that nobody ends, the database would be asked for changes as long as the process lives."""
    follower = shop._engine.follower
    watch = follower.watch
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Callable[[], None]:
        begun.set()
        assert go_on.wait(PATIENCE)
        end = watch(*arguments)

        def over() -> None:
            end()
            ended.set()

        return over

    monkeypatch.setattr(follower, "watch", slow)
    approval = ask(shop)
    engine = shop._engine
    waits = asyncio.ensure_future(
        shop.await_approval(approval)
        if kind == "for a decision"
        else until_happened(engine, 10_000, PATIENCE)
    )
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)
    go_on.set()
    assert await asyncio.to_thread(ended.wait, PATIENCE)
    assert follower._watchers == []
