"""How a client follows the log: notifications, called back as they happen, of its own log or of a service.

- An agent hears of its own actions and delegations and of policy changes, an operator of everybody's.
- Filters say what is called back, and nothing else: what is heard follows from whom the client acts for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Literal

from agentlattice_core.agents import agent_facts
from agentlattice_core.errors import ForbiddenError, InvalidRequestError
from agentlattice_core.notifications import EVENT_TYPES, concerns, notification
from agentlattice_core.remote.events import Subscription
from agentlattice_core.results import GovernanceEvent
from agentlattice_core.session import Session
from agentlattice_core.stores.base import Row

__all__ = ["Following"]


class Following(Session):
    """The part of a client that is told what happens. Use `AgentLattice`."""

    async def subscribe(
        self,
        org_id: str,
        callback: Callable[[GovernanceEvent], Any],
        *,
        events: Iterable[str] | None = None,
        agent_filter: str | None = None,
    ) -> None:
        """Have `callback` called on this event loop for every notification from now on.

        An agent hears of its own actions and delegations and of policy changes, an operator of everybody's. `events`
        are the types to hear of, `agent_filter` an agent's id. Raises ForbiddenError for another organisation, and for
        another agent.
        """
        loop = asyncio.get_running_loop()

        def deliver(event: GovernanceEvent) -> None:
            loop.call_soon_threadsafe(callback, event)

        await asyncio.to_thread(
            self.subscribe_sync, org_id, deliver, events=events, agent_filter=agent_filter
        )

    def subscribe_sync(
        self,
        org_id: str,
        callback: Callable[[GovernanceEvent], Any],
        *,
        events: Iterable[str] | None = None,
        agent_filter: str | None = None,
    ) -> None:
        """As `subscribe`; `callback` is called on a thread of its own, in order."""
        service = self._remote
        if service is None and org_id != self.org_id:
            raise ForbiddenError(f"this client belongs to `{self.org_id}` and may not follow `{org_id}`")
        wanted = frozenset(events) if events is not None else None
        for event_type in wanted or ():
            if event_type not in EVENT_TYPES:
                raise InvalidRequestError(f"event type `{event_type}` is not one of {', '.join(EVENT_TYPES)}")

        def deliver(event: GovernanceEvent) -> None:
            if wanted is not None and event.event_type not in wanted:
                return
            if agent_filter is None or event.agent_id == agent_filter:
                callback(event)

        if service is not None:
            self._check_own(agent_filter)
            subscription = Subscription(
                service.connections.base_url, service.key, org_id, deliver, service.connections.pace
            )
            subscription.begin()
            self._ends.append(subscription.end)
            return
        audience: Literal["agent", "operator"] = "agent" if self._operator is None else "operator"
        own = self._check_own(agent_filter)

        def watcher(entry: dict[str, Any], row: Row) -> None:
            event = notification(entry, row, audience)
            if event is not None and concerns(event, own):
                deliver(event)

        self._ends.append(self._engine.follower.watch(watcher))

    def _check_own(self, agent_filter: str | None) -> str | None:
        """The id of the agent that may hear of nobody else; None for an operator."""
        service = self._remote
        if service is not None:
            me = service.me() if agent_filter is not None else None
            agent, own = (None, None) if me is None else (me.name, me.config_id)
        elif self._caller is None:
            return None
        else:
            agent = self._caller.agent
            with self._engine.read() as reader:
                own = agent_facts(reader, agent).id
        if own is not None and agent_filter not in (None, own):
            raise ForbiddenError(
                f"agent `{agent}` hears of its own actions only; "
                "to hear of another agent's, subscribe as an operator"
            )
        return own

    async def unsubscribe(self) -> None:
        """End every subscription of this client."""
        self.unsubscribe_sync()

    def unsubscribe_sync(self) -> None:
        """As `unsubscribe`."""
        while self._ends:
            self._ends.pop()()
