"""A child that is delegated to inside a graph is the same one after the graph paused."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

import agentlattice_integrations.langgraph  # noqa: F401 - makes the framework's pause known
from agentlattice_core import AgentLattice


@pytest.fixture
def policies() -> str:
    return """
version: 1
policies:
  - {name: Reading, action: read_data, effect: allow}
"""


class State(TypedDict):
    thread: str
    seen: list[str]


async def test_a_graph_that_interrupts_inside_the_block_resumes_as_the_same_child(al: AgentLattice) -> None:
    """LangGraph runs the node from its start again; the child is the one that was there before."""
    children: list[str] = []

    async def work(state: State) -> dict[str, Any]:
        async with al.delegate("worker", capabilities=["read_data"], ttl=3600, run=state["thread"]) as worker:
            children.append(worker.delegation_id)
            await worker.execute("read_data")
            answer = interrupt("go on?")
            result = await worker.execute("read_data")
            return {"seen": [answer, result.status]}

    graph = StateGraph(State)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    program = graph.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "thread-1"}}
    await program.ainvoke({"thread": "thread-1", "seen": []}, config)
    assert [entry.status for entry in (await al.delegations()).delegations] == ["active"]
    result = await program.ainvoke(Command(resume="yes"), config)
    assert result["seen"] == ["yes", "executed"]
    assert children[0] == children[1]
    [ended] = (await al.delegations(active_only=False)).delegations
    assert ended.status == "closed"
