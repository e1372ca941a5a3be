"""Going on with a paused graph as soon as its requests are decided, wherever that happens.

    state = resume_when_decided(agent, {"configurable": {"thread_id": "42"}}, al)

- It asks nobody and decides nothing: it listens to the log, and resumes the graph with what was decided. Whatever is
  not decided stays paused.
- It may run in any process that has the graph's checkpointer and the log, also one started after the decision.
- Interrupts that are not governance's are left to whoever answers those.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Protocol, Self

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from agentlattice_core.delegating import Delegate
from agentlattice_core.errors import InvalidRequestError
from agentlattice_integrations.langgraph.acting import delegation_in
from agentlattice_integrations.langgraph.answers import GOVERNANCE

__all__ = ["ListeningClient", "aresume_when_decided", "resume_when_decided"]

_DECIDED = {"type": "decided"}


class ListeningClient(Protocol):
    """The part of a client that tells what was decided about its agent's requests; `AgentLattice` offers it."""

    @property
    def agent(self) -> str | None:
        """The agent it acts for."""
        ...

    @property
    def org_id(self) -> str:
        """The id of the log."""
        ...

    def for_agent(self, agent: str) -> Any:
        """Another client of the same log, whose subscriptions end with it."""
        ...


def resume_when_decided(
    graph: Any,
    config: RunnableConfig,
    client: ListeningClient | Delegate,
    *others: ListeningClient | Delegate,
    timeout: float | None = None,
) -> dict[str, Any]:
    """Resume the paused `graph` with each decision, until governance pauses it no more; its last state.

    `client` acts for the agent that the graph's calls are governed for; where sub-agents act under delegations, give
    those too (`al`, `al.delegate(...)`), the same as `govern` was given. Once nothing was decided for `timeout` seconds
    (None: never), the state is given back as it is, still paused. Raises InvalidRequestError for a client without an
    agent.
    """
    with _Listening(config, client, *others) as decided:
        # What was decided before anybody listened shows when the graph is resumed once.
        waiting = _waiting(graph.get_state(config))
        found: set[str] = set(waiting)
        state: dict[str, Any] = graph.get_state(config).values
        while waiting:
            if found:
                state = graph.invoke(_resuming(waiting, found), config)
                waiting = _waiting(graph.get_state(config))
                found = decided.among(waiting)
            elif not decided.wait(timeout):
                break
            else:
                found = decided.among(waiting)
        return state


async def aresume_when_decided(
    graph: Any,
    config: RunnableConfig,
    client: ListeningClient | Delegate,
    *others: ListeningClient | Delegate,
    timeout: float | None = None,  # noqa: ASYNC109
) -> dict[str, Any]:
    """As `resume_when_decided`, for a graph that is called asynchronously."""
    with _Listening(config, client, *others) as decided:
        waiting = _waiting(await graph.aget_state(config))
        found: set[str] = set(waiting)
        state: dict[str, Any] = (await graph.aget_state(config)).values
        while waiting:
            if found:
                state = await graph.ainvoke(_resuming(waiting, found), config)
                waiting = _waiting(await graph.aget_state(config))
                found = decided.among(waiting)
            elif not await asyncio.to_thread(decided.wait, timeout):
                break
            else:
                found = decided.among(waiting)
        return state


def _waiting(state: Any) -> dict[str, str]:
    """The interrupts that governance raised, by approval."""
    return {
        str(interrupt.value[GOVERNANCE].get("approval_id")): interrupt.id
        for interrupt in state.interrupts
        if isinstance(interrupt.value, dict) and isinstance(interrupt.value.get(GOVERNANCE), dict)
    }


def _resuming(waiting: dict[str, str], found: set[str]) -> Command[Any]:
    return Command(resume={waiting[approval_id]: _DECIDED for approval_id in found})


class _Listening:
    """What was decided since this began, by approval."""

    def __init__(self, config: RunnableConfig, *clients: ListeningClient | Delegate) -> None:
        for client in clients:
            if not isinstance(client, Delegate) and client.agent is None:
                raise InvalidRequestError(
                    "this client acts for no agent, so it is not told what was decided; use the one that governs the "
                    "graph"
                )
        self._changed = threading.Condition()
        self._decided: set[str] = set()
        self._news = False
        self._clients: list[Any] = []
        try:
            for client in clients:
                self._listen(config, client)
        except BaseException:
            self.__exit__()
            raise

    def _listen(self, config: RunnableConfig, client: ListeningClient | Delegate) -> None:
        if isinstance(client, Delegate):
            # Not left as a block: the child goes on with the graph.
            listener: Any = delegation_in(client, config).__enter__()
        else:
            listener = client.for_agent(client.agent or "")
        self._clients.append(listener)
        listener.subscribe_sync(listener.org_id, self._hear, events=["approval.resolved"])

    def _hear(self, event: Any) -> None:
        with self._changed:
            self._decided.add(str(event.data.get("approval_id")))
            self._news = True
            self._changed.notify_all()

    def among(self, waiting: dict[str, str]) -> set[str]:
        """Those of `waiting` that were decided and have not been told yet."""
        with self._changed:
            found = self._decided & set(waiting)
            self._decided -= found
            self._news = False
            return found

    def wait(self, timeout: float | None) -> bool:
        """Until something is decided, at most `timeout` seconds; whether it was."""
        with self._changed:
            return self._changed.wait_for(lambda: self._news, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
