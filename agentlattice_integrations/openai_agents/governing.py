"""`govern(...)`: takes a tool, a list of tools or an agent, and gives back the same thing, governed.

- An agent is governed in place, with everything it can reach: its tools, its MCP servers, the agents behind its
  hand-offs, the agents that are its tools. Tools are copied, and the copies are governed.
- What cannot be governed is refused, unless the caller says otherwise; either way the coverage report says it.
- Governing twice is governing once. An agent that another client or other settings govern already is an error when it
  is named, and left as it is when it is only reached.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from agents import (
    Agent,
    ApplyPatchTool,
    ComputerTool,
    CustomTool,
    FunctionTool,
    Handoff,
    HostedMCPTool,
    LocalShellTool,
    RunContextWrapper,
    ShellTool,
    Tool,
    ToolSearchTool,
)
from agents.agent import AgentBase

from agentlattice_core.delegating import Delegate
from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls.call import CallKind, OnApproval
from agentlattice_core.toolcalls.coverage import Coverage
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_core.toolcalls.mapping import ActionTable
from agentlattice_integrations.openai_agents.agent_class import (
    SEEN_HANDOFFS,
    SEEN_TOOLS,
    agent_governor,
    governed_agent_class,
)
from agentlattice_integrations.openai_agents.computer import SKIPPED_WHY, govern_computer
from agentlattice_integrations.openai_agents.executors import (
    govern_apply_patch,
    govern_custom,
    govern_local_shell,
    govern_shell,
)
from agentlattice_integrations.openai_agents.function_tools import (
    govern_function_tool,
    is_governed,
    kind_of,
    mapping_target,
    seat_of,
)
from agentlattice_integrations.openai_agents.governor import Governor, HostedTools, OnBehalfOf, Settings
from agentlattice_integrations.openai_agents.handoffs import govern_handoff, handoff_governor, handoff_target
from agentlattice_integrations.openai_agents.hosted import (
    ALLOWED_WHY,
    ASKED_WHY,
    REFUSED_WHY,
    SEARCH_WHY,
    govern_hosted_mcp,
)
from agentlattice_integrations.openai_agents.pausing import WAITS_WHY

__all__ = ["coverage", "govern"]

T = TypeVar("T")
_MARK = "agentlattice_governor"
# The member of a tool through which it takes effect. The mark is on it, so that whoever replaces it is seen.
_EFFECTS: dict[type[Any], str] = {
    ShellTool: "executor",
    LocalShellTool: "executor",
    ApplyPatchTool: "editor",
    CustomTool: "on_invoke_tool",
    ComputerTool: "computer",
    HostedMCPTool: "on_approval_request",
}
_TOOL_TYPES = tuple(typing.get_origin(kind) or kind for kind in typing.get_args(Tool))


def govern(
    target: T,
    al: GovernanceClient | Delegate,
    *,
    report: Callable[[Coverage], object] | None = None,
    actions: ActionTable | Mapping[Any, Any] | str | Path | None = None,
    redact: Sequence[str] = (),
    on_approval: OnApproval = "wait",
    approval_timeout: float | None = None,
    hosted_tools: HostedTools = "refuse",
    on_behalf_of: OnBehalfOf | None = None,
) -> T:
    """Put the gate before every call of `target`: a tool, a list of tools, a hand-off, or an agent and all it reaches.

    - `al`: the client whose agent acts, or a delegation (`al.delegate(...)`) whose child does: each run has a child of
      its own, or the run that the delegation names; see `toolcalls.acting`. The call of an agent that is a tool, and a
      hand-off, are acts of the agent that makes them, so that a sub-agent is governed, and not the tool or hand-off
      behind which it is.
    - `report` is handed the coverage report, such as `print`; `coverage(result)` gives it later.
    - `actions`: mappings for tools one does not own, see `ActionTable`. `redact`: further paths to redact.
    - `on_approval`: `wait` until a person has decided (at most `approval_timeout` seconds), `pause`: end the run with
      an interruption (see `apply_decisions`; hand-offs, computers, the older local shell, hosted MCP tools and runs
      without a trace cannot, and wait), or `defer`: tell the model that it is pending.
    - `hosted_tools`: `refuse` takes away what the provider runs without asking; `allow` keeps it, ungoverned.
    - `on_behalf_of`: the end user, or a function of the run's context that tells.

    Raises InvalidRequestError for settings that cannot be used, for something that is not a tool or an agent, for a
    single tool that is refused, and for an agent that is governed already with another client or other settings.
    """
    settings = Settings(
        actions=actions,
        redact=tuple(redact),
        on_approval=on_approval,
        approval_timeout=approval_timeout,
        hosted_tools=hosted_tools,
        on_behalf_of=on_behalf_of,
    )
    governing = _Governing(Governor(al, settings))
    governed = governing.target(target)
    if report is not None:
        found = coverage(governed)
        found.update(governing.governor.coverage)  # what was refused is not in what is returned
        report(found)
    return cast(T, governed)


def coverage(target: object) -> Coverage:
    """The coverage report of something that `govern` returned, or of something that nobody governs yet."""
    found = Coverage()
    for item in target if isinstance(target, list | tuple) else [target]:
        governor = _governor_of(item)
        if governor is None:
            _list_ungoverned(item, found)
        elif isinstance(item, AgentBase):
            _ = (
                item.tools,
                getattr(item, "handoffs", None),
            )  # what was put into them since is governed, and listed, now
            found.update(governor.coverage)
        else:
            name = _name_of(item)
            found.update(Coverage(entry for entry in governor.coverage if entry.name == name))
    return found


class _Governing:
    """One `govern(...)` call: finds what is to be governed, and notes it in the report."""

    def __init__(self, governor: Governor) -> None:
        self.governor = governor

    def target(self, target: Any) -> Any:
        if isinstance(target, AgentBase):
            return self.named_agent(target)
        if isinstance(target, Handoff):
            return self.handoff(target, None)
        if isinstance(target, list | tuple):
            if not all(isinstance(item, AgentBase | Handoff) or _is_tool(item) for item in target):
                raise InvalidRequestError("the list holds something that is neither a tool nor an agent")
            governed = [
                self.target(item) if isinstance(item, AgentBase | Handoff) else self.tool(item, None)
                for item in target
            ]
            return type(target)(item for item in governed if item is not None)
        if _is_tool(target):
            governed_tool = self.tool(target, None)
            if governed_tool is None:
                raise InvalidRequestError(
                    f"tool `{target.name}` runs at the provider and cannot be governed; leave it out, "
                    'or say hosted_tools="allow" to keep it ungoverned'
                )
            return governed_tool
        raise InvalidRequestError(
            f"a `{type(target).__name__}` cannot be governed; pass a tool, a list of tools, or an agent"
        )

    # --- agents -----------------------------------------------------------------------------------------------------

    def named_agent(self, agent: Any) -> Any:
        by = agent_governor(agent)
        if by is not None and not (
            by.governor.acting_as.principal is self.governor.acting_as.principal
            and by.governor.settings == self.governor.settings
        ):
            raise InvalidRequestError(
                f"agent `{agent.name}` is governed already, by another client or with other settings; "
                "govern each agent once"
            )
        return self.agent(agent)

    def agent(self, agent: Any) -> Any:
        """Govern an agent in place, if nobody does, with all that it reaches."""
        with self.governor.lock:
            if agent_governor(agent) is not None:
                return agent
            base = type(agent)
            cls = self.governor.classes.get(base)
            if cls is None:
                cls = self.governor.classes[base] = governed_agent_class(base, self)
            # Its own lists from here on: another agent that was given the same ones keeps them as they were.
            agent.__dict__["tools"] = list(agent.__dict__["tools"])
            if "handoffs" in agent.__dict__:
                agent.__dict__["handoffs"] = list(agent.__dict__["handoffs"])
            agent.__class__ = cls
        self._note_agent(agent)
        _ = agent.tools, getattr(agent, "handoffs", None)
        return agent

    def _note_agent(self, agent: Any) -> None:
        for server in agent.mcp_servers:
            self.governor.coverage.add(
                server.name,
                kind="mcp server",
                owner=agent.name,
                why="each tool is listed when the server lists it",
            )
        if getattr(agent, "prompt", None) is not None:
            self.governor.coverage.add(
                "prompt",
                kind="prompt",
                status="not_coverable",
                owner=agent.name,
                why="a prompt stored at the provider may bring tools that the provider runs",
            )

    def own_tools(self, agent: Any, tools: Any) -> Any:
        if not isinstance(tools, list):
            return tools
        with self.governor.lock:
            governed = [self.tool(tool, agent) for tool in tools]
            tools[:] = [tool for tool in governed if tool is not None]
            agent.__dict__[SEEN_TOOLS] = tuple(tools)
        return tools

    def own_handoffs(self, agent: Any, handoffs: Any) -> Any:
        if not isinstance(handoffs, list):
            if not isinstance(handoffs, Collection) or not all(
                isinstance(item, AgentBase | Handoff) for item in handoffs
            ):
                return handoffs
            # The SDK takes any collection that is assigned later.
            with self.governor.lock:
                agent.__dict__["handoffs"] = tuple(self.handoff(item, agent) for item in handoffs)
            return agent.__dict__["handoffs"]
        with self.governor.lock:
            handoffs[:] = [self.handoff(item, agent) for item in handoffs]
            agent.__dict__[SEEN_HANDOFFS] = tuple((item, item.on_invoke_handoff) for item in handoffs)
        return handoffs

    def run_time_tools(self, agent: Any, tools: list[Any], *, from_servers: bool) -> list[Any]:
        governed = []
        for tool in tools:
            if isinstance(tool, FunctionTool) and is_governed(tool):
                governed.append(tool)
            elif (found := self.tool(tool, agent, from_server=from_servers)) is not None:
                governed.append(found)
        return governed

    def acts(self, context: RunContextWrapper[Any], agent: Any) -> None:
        # The SDK may run a clone of the agent that the application knows; a hand-off must go back to the latter.
        self.governor.acting[context] = getattr(agent, "_agents_public_agent", None) or agent

    # --- hand-offs --------------------------------------------------------------------------------------------------

    def handoff(self, item: Any, agent: Any) -> Any:
        if handoff_governor(item) is not None:
            return item
        governed = govern_handoff(item, self.governor, self.agent)
        self._note(governed, "handoff", agent, target=handoff_target(governed))
        return governed

    # --- tools ------------------------------------------------------------------------------------------------------

    def tool(self, tool: Any, agent: Any, *, from_server: bool = False) -> Any:
        """A governed tool; the tool itself where somebody governs it already, None where it is refused."""
        if _governor_of(tool) is not None:
            return tool
        if isinstance(tool, FunctionTool):
            return self._function_tool(tool, agent, from_server)
        governor = self.governor
        kind: str = "executor"
        governed: Any
        why = None
        if isinstance(tool, ShellTool) and tool.executor is not None:
            governed = govern_shell(tool, governor)
        elif isinstance(tool, LocalShellTool):
            governed = govern_local_shell(tool, governor)
        elif isinstance(tool, ApplyPatchTool):
            governed = govern_apply_patch(tool, governor)
        elif isinstance(tool, CustomTool):
            governed = govern_custom(tool, governor)
        elif isinstance(tool, ComputerTool):
            governed, why = govern_computer(tool, governor), SKIPPED_WHY
        elif isinstance(tool, HostedMCPTool):
            governed, kind, why = govern_hosted_mcp(tool, governor), "hosted", ASKED_WHY
        elif isinstance(tool, ToolSearchTool):
            governed, kind, why = copy.copy(tool), "hosted", SEARCH_WHY
        elif governor.settings.hosted_tools == "allow":
            governor.coverage.add(
                _name_of(tool),
                kind="hosted",
                status="not_coverable",
                owner=_name_or_none(agent),
                why=ALLOWED_WHY,
            )
            governed = copy.copy(tool)
            governed.__dict__[_MARK] = governor
            return governed
        else:
            governor.coverage.add(
                _name_of(tool), kind="hosted", status="refused", owner=_name_or_none(agent), why=REFUSED_WHY
            )
            return None
        holder = _effect_of(tool)
        setattr(governed if holder is None else getattr(governed, holder), _MARK, governor)
        self._note(tool, kind, agent, target=tool, why=why)
        return governed

    def _function_tool(self, tool: FunctionTool, agent: Any, from_server: bool) -> FunctionTool:
        inner = getattr(tool, "_agent_instance", None)
        if inner is None and getattr(tool, "_is_agent_tool", False):
            raise InvalidRequestError(
                f"tool `{tool.name}` runs an agent that cannot be reached; use a supported version of the SDK"
            )
        kind: CallKind = "mcp" if from_server else kind_of(tool)
        # Realtime sessions have no state that could be saved.
        pausable = agent is None or isinstance(agent, Agent)
        governed = govern_function_tool(tool, self.governor, kind, pausable=pausable)
        self._note(tool, kind, agent, target=mapping_target(tool))
        if inner is not None:
            self.agent(inner)
        return governed

    def _note(
        self,
        tool: Any,
        kind: str,
        agent: Any,
        *,
        target: object = None,
        why: str | None = None,
    ) -> None:
        name = _name_of(tool)
        if self.governor.pauses and not _can_pause(tool):
            why = WAITS_WHY if why is None else f"{why}; {WAITS_WHY}"
        action_type = None if kind == "hosted" else self.governor.gate.resolve(name, target).action_type
        self.governor.coverage.add(
            name, kind=kind, action_type=action_type, owner=_name_or_none(agent), why=why
        )


def _governor_of(item: Any) -> Governor | None:
    if isinstance(item, AgentBase):
        governing = agent_governor(item)
        return governing.governor if governing is not None else None
    if isinstance(item, FunctionTool):
        seat = seat_of(item)
        return seat.governor if seat is not None else None
    holder = _effect_of(item)
    bearer = item if holder is None else getattr(item, holder)
    return cast("Governor | None", getattr(bearer, "__dict__", {}).get(_MARK))


def _can_pause(tool: object) -> bool:
    """Whether the SDK can end a run before a call of this tool; what runs nothing has no need to."""
    return isinstance(tool, FunctionTool | ShellTool | ApplyPatchTool | CustomTool | ToolSearchTool)


def _effect_of(item: object) -> str | None:
    return next((member for kind, member in _EFFECTS.items() if isinstance(item, kind)), None)


def _is_tool(item: object) -> bool:
    return isinstance(item, _TOOL_TYPES)


def _name_of(item: Any) -> str:
    if isinstance(item, HostedMCPTool):
        return str(item.tool_config.get("server_label", item.name))
    return str(getattr(item, "tool_name", None) or getattr(item, "name", None) or type(item).__name__)


def _name_or_none(agent: Any) -> str | None:
    return agent.name if agent is not None else None


def _list_ungoverned(item: Any, found: Coverage) -> None:
    why = "nobody governs it; pass it to `govern`"
    if isinstance(item, AgentBase):
        listed = [*item.tools, *getattr(item, "handoffs", ()), *item.mcp_servers]
        for part in listed:
            if _governor_of(part) is None:
                found.add(_name_of(part), status="not_coverable", owner=item.name, why=why)
    else:
        found.add(_name_of(item), status="not_coverable", why=why)
