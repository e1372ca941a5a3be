"""What governance adds to one tool call in LangGraph, as governed minus bare, measured in pairs.

- `own`: with a client that answers at once, in processor time, so that what is left is our own work.
- An agent with any middleware takes longer than one without, whatever the middleware does: `empty middleware` is that
  share. Our own time is therefore measured beside an agent with an empty middleware; `with the framework's share` is
  the same agent beside one without.
- `durable`: with a real client on a file, in elapsed time, the write to the disk included.
- Each pair runs the same tool node or agent with and without governance, alternating; the median difference counts.
- `nothing`: two agents, neither governed, measured in the same way. What it shows is how far the others may be off: one
  run takes some thirty times as long as what is looked for, and a machine that does other work moves it by that much.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from framework_pairs import POLICY, InstantClient, paired
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from agentlattice_core import AgentLattice
from agentlattice_integrations.langgraph import GovernanceMiddleware, govern_tool, governed_tool_node

__all__ = ["measure"]


class _EmptyMiddleware(AgentMiddleware[Any, Any, Any]):
    """Stands where governance stands, and only passes on."""

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(request)

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(request)


@tool
def write(path: str, size: int, note: str = "") -> str:
    """Write a file."""
    return "written"


class _Model(BaseChatModel):
    """Makes one call, then is done."""

    @property
    def _llm_type(self) -> str:
        return "benchmark"

    def bind_tools(self, tools: Any, **_: Any) -> _Model:
        return self

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        done = isinstance(messages[-1], ToolMessage)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("done") if done else _turn())])


def _turn() -> AIMessage:
    call = {"name": "write", "args": {"path": "notes/today.txt", "size": 12}, "id": "call-1"}
    return AIMessage("", tool_calls=[call])


def _graph(node: ToolNode) -> Callable[[], Any]:
    builder = StateGraph(MessagesState)
    builder.add_node("tools", node)
    builder.add_edge(START, "tools")
    graph = builder.compile()
    return lambda: graph.invoke({"messages": [_turn()]})


def _agent(**options: Any) -> Callable[[], Any]:
    agent = create_agent(_Model(), options.pop("tools", [write]), **options)
    return lambda: agent.invoke({"messages": [HumanMessage("go")]})


def measure(directory: Path, *, rounds: int = 1000) -> dict[str, Mapping[str, float]]:
    """Microseconds that governance adds to one allowed call, per entry point, of our own and with the durable write."""
    directory.mkdir(parents=True, exist_ok=True)
    policies = directory / "policies.yaml"
    policies.write_text(POLICY, encoding="utf-8")
    found: dict[str, Mapping[str, float]] = {}
    with AgentLattice.embedded(directory / "governance.db", policies=policies, agent="benchmark") as durable:
        clients: dict[str, tuple[Any, Callable[[], float]]] = {
            "own": (InstantClient(), time.process_time),
            "durable": (durable, time.perf_counter),
        }
        for kind, (client, clock) in clients.items():
            pairs = rounds if kind == "own" else max(1, rounds // 4)
            found[f"tool node, {kind}"] = paired(
                _graph(ToolNode([write])), _graph(governed_tool_node([write], client)), pairs, clock
            )
            found[f"governed tool in create_agent, {kind}"] = paired(
                _agent(), _agent(tools=[govern_tool(write, client)]), pairs, clock
            )
            found[f"middleware in create_agent, {kind}"] = paired(
                _agent(middleware=[_EmptyMiddleware()]),
                _agent(middleware=[GovernanceMiddleware(client)]),
                pairs,
                clock,
            )
        instant, processor_time = clients["own"]
        found["nothing in create_agent"] = paired(_agent(), _agent(), rounds, processor_time)
        found["empty middleware in create_agent"] = paired(
            _agent(), _agent(middleware=[_EmptyMiddleware()]), rounds, processor_time
        )
        found["middleware in create_agent, with the framework's share"] = paired(
            _agent(), _agent(middleware=[GovernanceMiddleware(instant)]), rounds, processor_time
        )
    return found


if __name__ == "__main__":
    import json
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(measure(Path(temporary)), indent=2))
