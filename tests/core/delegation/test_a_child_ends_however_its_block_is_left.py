"""A child ends with its block: by an exception, by cancellation, by Ctrl-C, and by its time to live if nothing else."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from interrupter import Interrupter

from agentlattice_core import (
    AgentLattice,
    DelegatedAgent,
    ForbiddenError,
    NotRecordedError,
    StoreError,
)
from agentlattice_core.engine import Engine
from agentlattice_core.testing import ManualClock

DELEGATING = ("delegating.py", "delegation.py", "sequencer.py", "client.py")
ASK: dict[str, Any] = {"capabilities": ["read_data"], "ttl": 3600}


def active(al: AgentLattice) -> list[str | None]:
    """The names of the children in force, once what was posted is recorded."""
    al.flush()
    return [entry.name for entry in al.delegations_sync().delegations]


def test_an_exception_ends_the_child_and_passes_through(al: AgentLattice) -> None:
    with pytest.raises(LookupError, match="of the body"), al.delegate_sync("reader", **ASK) as reader:
        raise LookupError("of the body")
    assert reader.execute_sync("read_data").denial_reason == "OUT_OF_SCOPE"
    assert active(al) == []
    assert al.delegations_sync(active_only=False).delegations[0].status == "closed"


async def test_cancellation_in_the_block_ends_the_child(al: AgentLattice) -> None:
    """Also one that comes again while the end is being recorded."""
    for again in (False, True):
        inside = asyncio.Event()
        children: list[DelegatedAgent] = []

        async def work(inside: asyncio.Event = inside, children: list[DelegatedAgent] = children) -> None:
            async with al.delegate("reader", **ASK) as reader:
                children.append(reader)
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        if again:
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(active, al) == []
        assert (await children[0].execute("read_data")).denial_reason == "OUT_OF_SCOPE"


async def test_cancellation_while_a_child_begins_leaves_none_behind(al: AgentLattice) -> None:
    """However far its beginning had come."""
    for turns in range(12):
        block = al.delegate("reader", **ASK)
        task = asyncio.create_task(block.__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        else:
            await block.__aexit__(None, None, None)
        for _ in range(50):  # a batch that had begun goes on without its caller
            if not await asyncio.to_thread(active, al):
                break
        assert await asyncio.to_thread(active, al) == []


async def test_cancelling_many_at_once_leaves_none_behind(al: AgentLattice) -> None:
    """While they begin, while they work, and while they end."""
    for turns in (0, 1, 2, 3, 5, 8, 13):

        async def fan_out() -> None:
            async with AgentLattice.parallel(*(al.delegate(f"reader-{n}", **ASK) for n in range(5))) as all_:
                await asyncio.gather(*(one.execute("read_data") for one in all_))

        task = asyncio.create_task(fan_out())
        for _ in range(turns):
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for _ in range(50):
            if not await asyncio.to_thread(active, al):
                break
        assert await asyncio.to_thread(active, al) == []
    assert al.verify_state_sync() == []


@pytest.mark.parametrize("synchronous", [True, False])
async def test_if_one_cannot_begin_none_does(al: AgentLattice, synchronous: bool) -> None:
    """The error says which, and the others are gone."""
    with al.delegate_sync("parent", **ASK) as parent:
        blocks = [
            parent.delegate("one", **ASK),
            parent.delegate("too-much", capabilities=["write_results"], ttl=60),
            parent.delegate("three", **ASK),
        ]
        many = AgentLattice.parallel(*blocks)
        entering = asyncio.to_thread(many.__enter__) if synchronous else many.__aenter__()
        with pytest.raises(ForbiddenError, match="write_results"):
            await entering
        assert active(parent) == ["parent"]


@pytest.mark.parametrize("synchronous", [True, False])
async def test_if_one_fails_all_end(al: AgentLattice, synchronous: bool) -> None:
    """Those that had finished, and those that had not begun to work."""
    many = AgentLattice.parallel(*(al.delegate(f"reader-{n}", **ASK) for n in range(3)))
    children: list[DelegatedAgent] = []

    async def fail() -> None:
        if synchronous:
            with many as entered:
                children.extend(entered)
                raise LookupError
        async with many as entered:
            children.extend(entered)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert [child.execute_sync("read_data").denial_reason for child in children] == ["OUT_OF_SCOPE"] * 3
    assert active(al) == []


def test_an_interrupt_at_any_point_leaves_no_child_behind(al: AgentLattice) -> None:
    """Ctrl-C while a child begins, is there, or ends. Its time to live ends what the start of `__exit__` leaves."""
    point = 0
    while True:
        interrupter = Interrupter(point, DELEGATING, but_starts_of_exits=True)
        block = al.delegate_sync(f"reader-{point}", **ASK)
        try:
            with interrupter, block:
                pass
        except KeyboardInterrupt:
            pass
        assert active(al) == [], f"left behind at point {point}"
        if not interrupter.struck:
            break
        point += 1
    assert point > 20 or sys.version_info[:2] == (3, 12)
    assert al.verify_state_sync() == []


KILLED = """
import sys
from agentlattice_core import AgentLattice
al = AgentLattice.embedded(sys.argv[1], agent="ci")
with al.delegate_sync("reader", capabilities=["read_data"], ttl=float(sys.argv[2])) as reader:
    with reader.delegate_sync("below", capabilities=["read_data"], ttl=86400) as below:
        print(below.agent, below.execute_sync("read_data").status, flush=True)
        sys.stdin.read()
"""


def killed(directory: Path, ttl: float) -> str:
    """What a process told of its child before it was killed inside the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(directory / "governance.db"), str(ttl)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ,
    )
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    agent, status = line.split()
    assert status == "executed"
    return agent


def test_a_killed_process_leaves_children_that_end_in_time(
    al: AgentLattice, tmp_path: Path, clock: ManualClock
) -> None:
    """Until then they are there to see and to revoke; then they can do nothing, and are recorded as expired."""
    al.close()  # its clock is not the other process's
    agent = killed(tmp_path, ttl=86400)
    database = tmp_path / "governance.db"
    with AgentLattice.embedded(database, agent="ci") as after, after.for_agent(agent) as child:
        reader, below = after.delegations_sync().delegations + child.delegations_sync().delegations
        assert (reader.name, below.name) == ("reader", "below")
        assert after.revoke_sync(reader.id).revoked
        assert child.execute_sync("read_data").denial_reason == "OUT_OF_SCOPE"
    agent = killed(tmp_path, ttl=0.5)
    with AgentLattice.embedded(database, agent="ci") as after, after.for_agent(agent) as child:
        while recorded_as_active(after):  # nobody asks for it: the timer that was set when the log was opened
            time.sleep(0.01)
        assert child.execute_sync("read_data").denial_reason == "OUT_OF_SCOPE"
        entries = after.delegations_sync(active_only=False).delegations
        assert [entry.status for entry in entries] == ["revoked", "expired"]
        assert after.verify_state_sync() == []


def test_a_killed_process_is_cleaned_up_after_by_whoever_goes_on(al: AgentLattice, tmp_path: Path) -> None:
    """A process that had the log open all along, and heard nothing of the child, records its expiry while it works."""
    al.close()
    with AgentLattice.embedded(tmp_path / "governance.db", agent="ci") as beside:
        killed(tmp_path, ttl=0.3)
        assert recorded_as_active(beside)
        while recorded_as_active(beside):
            beside.execute_sync("read_data")
            time.sleep(0.05)


FANNING_OUT = """
import sys
from agentlattice_core import AgentLattice
al = AgentLattice.embedded(sys.argv[1], agent="ci")
print("ready", flush=True)
while True:
    with al.delegate_sync("parent", capabilities=["*"], ttl=0.5) as parent:
        many = [parent.delegate_sync(f"child-{n}", capabilities=["read_data"], ttl=9) for n in range(3)]
        with al.parallel_sync(*many) as children:
            for child in children:
                child.execute_sync("read_data")
            al.revoke_sync(children[0].delegation_id)
"""


def test_killed_at_any_moment_the_state_is_the_logs_and_every_child_ends(
    al: AgentLattice, tmp_path: Path
) -> None:
    """Between any two of beginning, acting, revoking and ending, again and again."""
    al.close()
    database = tmp_path / "governance.db"
    seed = int.from_bytes(os.urandom(4))
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", FANNING_OUT, str(database)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0.02, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with AgentLattice.embedded(database, agent="ci") as after:
            assert after.verify_sync().chain_valid
            assert after.verify_state_sync() == []
            while recorded_as_active(after):
                time.sleep(0.02)
            assert after.delegations_sync().delegations == []
            assert after.verify_state_sync() == []


def recorded_as_active(al: AgentLattice) -> list[str]:
    """Delegations whose end is not in the log yet, whatever time it is."""
    with al._opened.read() as reader:
        return [key for key, _ in reader.scan("expiring")]


def test_an_expiry_is_recorded_when_it_comes(tmp_path: Path) -> None:
    """By a timer, the sooner before the later, with a notification; nobody has to ask for it."""
    with AgentLattice.embedded(tmp_path / "governance.db", agent="ci") as al:
        told: list[str] = []
        al.subscribe_sync(
            al.org_id, lambda event: told.append(event.data["child"]), events=["delegation.expired"]
        )
        later = al.delegate_sync("later", capabilities=["read_data"], ttl=0.6).__enter__()
        sooner = al.delegate_sync("sooner", capabilities=["read_data"], ttl=0.2).__enter__()
        al.delegate_sync("last", capabilities=["read_data"], ttl=3600).__enter__()
        while len(told) < 2:
            time.sleep(0.01)
        assert told == [sooner.agent, later.agent]
        assert len(recorded_as_active(al)) == 1


def test_an_expiry_costs_nobody_a_decision(al: AgentLattice, clock: ManualClock) -> None:
    """Time decides: at the very moment the child may do nothing, recorded or not."""
    with al.delegate_sync("reader", capabilities=["read_data"], ttl=60) as reader:
        clock.advance(seconds=60)
        assert reader.execute_sync("read_data").denial_reason == "OUT_OF_SCOPE"
    assert al.delegations_sync(active_only=False).delegations[0].status == "expired"


class Broken:
    """A log that cannot be written for a while."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.transact = engine.store.transact

    def __enter__(self) -> None:
        def fails(*_: Any) -> Any:
            raise NotRecordedError("the audit log could not be written: disk full")

        self.engine.store.transact = fails  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        self.engine.store.transact = self.transact  # type: ignore[method-assign]


def test_an_end_that_cannot_be_recorded_is_said_and_made_up_for(al: AgentLattice) -> None:
    """It is an error where nothing else went wrong, hides no error that did, and rides with the next batch."""
    broken = Broken(al._opened)
    block = al.delegate_sync("reader", **ASK)
    block.__enter__()
    with broken, pytest.raises(NotRecordedError):
        block.__exit__(None, None, None)
    assert active(al) == []
    with pytest.raises(LookupError), al.delegate_sync("reader", **ASK), broken:
        raise LookupError
    block = al.delegate_sync("reader", **ASK)
    block.__enter__()
    error = LookupError()
    with broken:
        block.__exit__(LookupError, error, None)
    assert active(al) == []
    with broken, pytest.raises(NotRecordedError):
        al.delegate_sync("never", **ASK).__enter__()
    assert active(al) == []
    assert al.verify_state_sync() == []


def test_a_child_of_a_closed_client_ends_in_time(
    al: AgentLattice, clock: ManualClock, tmp_path: Path
) -> None:
    """Closing the log first is a mistake that is said; the child's time to live still ends it."""
    block = al.delegate_sync("reader", capabilities=["read_data"], ttl=60)
    child = block.__enter__()
    al.close()
    with pytest.raises(StoreError):
        child.execute_sync("read_data")
    with pytest.raises(StoreError):
        block.__exit__(None, None, None)
    clock.advance(seconds=60)
    with AgentLattice.embedded(tmp_path / "governance.db", agent="ci", clock=clock) as after:
        assert after.delegations_sync(active_only=False).delegations[0].status == "expired"
