"""What a tool, agent, task, crew or flow holds that can take effect.

- What is there now is found with its object; what CrewAI adds at kickoff (delegation, MCP, app and memory
  tools) is found by the setting that makes CrewAI add it.
- What runs where neither a hook nor a gate on the tool stands before it is found as well, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from crewai import Crew, Flow, Process, Task
from crewai.agents.agent_adapters.base_agent_adapter import BaseAgentAdapter
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.lite_agent import LiteAgent
from crewai.tools import BaseTool
from crewai.tools.structured_tool import CrewStructuredTool

from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls.call import CallKind
from agentlattice_integrations.crewai.hosted import hosted_tools
from agentlattice_integrations.crewai.tool_gate import kind_of, name_of, original_tool

__all__ = ["Held", "crews_and_agents", "walk"]

_AT_KICKOFF = "appears at kickoff; the gate is put before it there"
_TOOLS_AT_KICKOFF = "its tools appear at kickoff; the gate is put before each there"
_HOSTED = "the model's provider runs it inside the model call"
_DELEGATION = ("delegate_work_to_coworker", "ask_question_to_coworker")
_MEMORY = ("search_memory", "save_to_memory")


@dataclass(frozen=True, slots=True)
class Held:
    """Something that can take effect.

    `tool` is its object, where there is one already, `holder` the agent or crew that has it. `uncoverable`
    says why it cannot be governed, `note` what there is to know about it.
    """

    name: str
    kind: CallKind
    owner: str | None = None
    tool: Any = None
    holder: Any = None
    uncoverable: str | None = None
    note: str | None = None


def walk(target: Any, owner: str | None = None) -> Iterator[Held]:
    """Everything that `target` holds. Raises InvalidRequestError for something that CrewAI could not run."""
    if isinstance(target, BaseTool | CrewStructuredTool):
        original = original_tool(target)
        yield Held(name_of(original), kind_of(original), owner, tool=target)
    elif isinstance(target, list | tuple):
        for item in target:
            yield from walk(item, owner)
    elif isinstance(target, BaseAgent | LiteAgent):
        yield from _agent(target)
    elif isinstance(target, Task):
        yield from walk(target.tools or [], _role(target.agent) or owner)
        if target.agent is not None:
            yield from _agent(target.agent)
    elif isinstance(target, Crew):
        yield from _crew(target)
    elif isinstance(target, Flow):
        yield from _flow(target)
    else:
        raise InvalidRequestError(
            f"`{type(target).__name__}` cannot be governed; pass a CrewAI tool, a list of them, an agent, "
            "a task, a crew, an instance of a @CrewBase class or a flow"
        )


def crews_and_agents(target: Any) -> Iterator[Any]:
    """The crews and agents in `target`, whose later tools are governed through the hooks."""
    if isinstance(target, BaseAgent | LiteAgent | Crew):
        yield target
    elif isinstance(target, list | tuple):
        for item in target:
            yield from crews_and_agents(item)
    elif isinstance(target, Task) and target.agent is not None:
        yield target.agent
    elif isinstance(target, Flow):
        yield from crews_and_agents(list(_parts(target)))


def _crew(crew: Crew) -> Iterator[Held]:
    seen: set[int] = set()
    for agent in (*crew.agents, *([crew.manager_agent] if crew.manager_agent else [])):
        seen.add(id(agent))
        yield from _agent(agent)
    for task in crew.tasks:
        yield from walk(task.tools or [], _role(task.agent))
        if task.agent is not None and id(task.agent) not in seen:
            seen.add(id(task.agent))
            yield from _agent(task.agent)
    if crew.process == Process.hierarchical and crew.manager_agent is None:
        for name in _DELEGATION:
            yield Held(name, "agent", "manager", holder=crew, note=_AT_KICKOFF)
    if getattr(crew, "memory", None):
        for name in _MEMORY:
            yield Held(name, "function", None, holder=crew, note=_AT_KICKOFF)


def _agent(agent: BaseAgent | LiteAgent) -> Iterator[Held]:
    role = _role(agent)
    if isinstance(agent, BaseAgentAdapter):
        yield Held(
            type(agent).__name__,
            "agent",
            role,
            uncoverable="it runs another framework's agent, which calls no hook",
        )
    yield from walk(list(agent.tools or ()), role)
    for structured in getattr(agent, "_parsed_tools", None) or ():
        yield from walk(structured, role)
    if getattr(agent, "allow_delegation", False):
        for name in _DELEGATION:
            yield Held(name, "agent", role, holder=agent, note=_AT_KICKOFF)
    for server in getattr(agent, "mcps", None) or ():
        yield Held(_server_name(server), "mcp", role, holder=agent, note=_TOOLS_AT_KICKOFF)
    for app in getattr(agent, "apps", None) or ():
        yield Held(str(app), "function", role, holder=agent, note=_TOOLS_AT_KICKOFF)
    if getattr(agent, "memory", None):
        for name in _MEMORY:
            yield Held(name, "function", role, holder=agent, note=_AT_KICKOFF)
    if getattr(agent, "a2a", None):
        yield Held(
            "a2a",
            "agent",
            role,
            uncoverable="it hands work to a remote agent outside the tool hooks",
        )
    for name in hosted_tools(getattr(agent, "llm", None)):
        yield Held(name, "hosted", role, holder=agent, uncoverable=_HOSTED)


def _flow(flow: Flow[Any]) -> Iterator[Held]:
    # A declarative flow builds the tools of its `call: tool` actions when it is made, and runs them without
    # any hook.
    yield from walk(list(getattr(flow, "_tool_action_tools", None) or ()), flow.name or type(flow).__name__)
    for part in _parts(flow):
        yield from walk(part)


def _parts(flow: Flow[Any]) -> Iterable[Any]:
    kinds = (BaseTool, BaseAgent, LiteAgent, Crew)
    for value in list(vars(flow).values()):
        if isinstance(value, kinds):
            yield value
        elif isinstance(value, list | tuple):
            yield from (item for item in value if isinstance(item, kinds))


def _role(agent: Any) -> str | None:
    role = getattr(agent, "role", None)
    return None if role is None else str(role).strip()


def _server_name(server: Any) -> str:
    named = (
        server
        if isinstance(server, str)
        else getattr(server, "url", None) or getattr(server, "command", None)
    )
    return str(named or type(server).__name__)
