"""What following promises, embedded and remote: notifications of what is in the log, to who may hear of it."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any

import pytest
from client_world import ClientWorld

from agentlattice_core import AgentLattice, ForbiddenError, GovernanceEvent, InvalidRequestError

__all__ = ["FollowingContract", "Heard"]

PATIENCE = 60.0


class Heard:
    """What a callback was told, in order, and on which thread."""

    def __init__(self) -> None:
        self._told: queue.Queue[GovernanceEvent] = queue.Queue()
        self.threads: set[int] = set()

    def __call__(self, event: GovernanceEvent) -> None:
        self.threads.add(threading.get_ident())
        self._told.put(event)

    def next(self) -> GovernanceEvent:
        return self._told.get(timeout=PATIENCE)

    def types(self, count: int) -> list[str]:
        """The types of the next so many."""
        return [self.next().event_type for _ in range(count)]

    @property
    def nothing_more(self) -> bool:
        return self._told.empty()


def subscribed(al: AgentLattice, **filters: Any) -> Heard:
    heard = Heard()
    al.subscribe_sync(al.org_id, heard, **filters)
    return heard


class FollowingContract:
    """Subclasses give a `world`."""

    def test_an_agent_hears_of_its_own_actions_in_order(self, world: ClientWorld) -> None:
        """Of its own and of nobody else's, from when it subscribed, on a thread of the subscription's own."""
        al, other = world.agent(), world.agent("mallory")
        al.execute_sync("free")
        heard = subscribed(al)
        other.execute_sync("free")
        done = al.execute_sync("free")
        al.execute_sync("forbidden")
        first, second = heard.next(), heard.next()
        assert (first.event_type, second.event_type) == ("action.executed", "action.denied")
        assert first.data["audit_event_id"] == done.audit_event_id
        assert (first.org_id, first.agent_id) == (al.org_id, al.whoami_sync().config_id)
        assert second.data["denial_reason"] == "POLICY_DENIED"
        assert heard.nothing_more
        assert threading.get_ident() not in heard.threads

    def test_an_operator_hears_of_everybody(self, world: ClientWorld) -> None:
        """Requests and decisions among it; one agent's alone where that is asked for."""
        al, other, ana = world.agent(), world.agent("mallory"), world.operator()
        everybody = subscribed(ana)
        one = subscribed(ana, agent_filter=other.whoami_sync().config_id)
        asked = al.execute_sync("ask")
        ana.approve_action_sync(asked.approval_id or "")
        other.execute_sync("free")
        assert everybody.types(3) == ["approval.requested", "approval.resolved", "action.executed"]
        assert one.types(1) == ["action.executed"]
        assert one.nothing_more

    def test_only_the_types_that_were_asked_for_come(self, world: ClientWorld) -> None:
        """An unknown type is a mistake, and said to be one."""
        al = world.agent()
        heard = subscribed(al, events=["action.denied", "delegation.revoked"])
        al.execute_sync("free")
        with al.delegate_sync("reader", capabilities=["data.read"], ttl=60) as child:
            child.execute_sync("data.read")
        al.execute_sync("forbidden")
        assert heard.types(2) == ["delegation.revoked", "action.denied"]
        assert heard.nothing_more
        with pytest.raises(InvalidRequestError):
            al.subscribe_sync(al.org_id, heard, events=["action.dreamt"])

    def test_nobody_hears_of_what_is_not_theirs(self, world: ClientWorld) -> None:
        """Neither of another organisation, nor an agent of another agent."""
        al, other = world.agent(), world.agent("mallory")
        with pytest.raises(ForbiddenError):
            al.subscribe_sync("org_of_somebody_else", Heard())
        with pytest.raises(ForbiddenError):
            al.subscribe_sync(al.org_id, Heard(), agent_filter=other.whoami_sync().config_id)
        heard = subscribed(al, agent_filter=al.whoami_sync().config_id)
        al.execute_sync("free")
        assert heard.types(1) == ["action.executed"]

    async def test_a_callback_is_called_on_the_loop_that_subscribed(self, world: ClientWorld) -> None:
        """`subscribe` calls back where it was awaited, and `unsubscribe` ends that."""
        al = world.agent()
        told: asyncio.Queue[tuple[GovernanceEvent, int]] = asyncio.Queue()
        await al.subscribe(al.org_id, lambda event: told.put_nowait((event, threading.get_ident())))
        await al.execute("free")
        event, thread = await asyncio.wait_for(told.get(), PATIENCE)
        assert (event.event_type, thread) == ("action.executed", threading.get_ident())
        await al.unsubscribe()
        again = await asyncio.to_thread(subscribed, al)
        await al.execute("free")
        await asyncio.to_thread(again.next)
        assert told.empty()

    def test_a_callback_that_fails_misses_nothing_after(self, world: ClientWorld) -> None:
        """It is a subscriber's own mistake."""
        al, heard = world.agent(), Heard()

        def fail_first(event: GovernanceEvent) -> None:
            heard(event)
            raise ValueError("the subscriber is wrong")

        al.subscribe_sync(al.org_id, fail_first)
        al.execute_sync("free")
        al.execute_sync("forbidden")
        assert heard.types(2) == ["action.executed", "action.denied"]
