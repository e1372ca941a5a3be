"""Governance for `create_agent`: one middleware that decides on every tool call of the agent.

    agent = create_agent(model, tools, middleware=[..., GovernanceMiddleware(al)])

- List it last. Then it sees the final arguments, the tools that other middleware supply, and everything the
  model is offered. In another place it still decides before each run: arguments that are changed after its
  decision are decided on again, and a tool that is supplied after it is refused.
- Middleware is not inherited: an agent inside a tool needs its own.
- Tools that run at the model's provider never pass here. By default the model is not offered them.
- A denied `return_direct` tool ends the run with the denial as its answer, as its result would have; with
  `explain_return_direct=True` the model is asked again instead, at the price of one more node in the graph.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Unpack

from langchain.agents.middleware import AgentMiddleware, hook_config
from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableBinding
from langchain_core.tools import BaseTool
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command

from agentlattice_core.delegating import Delegate
from agentlattice_core.toolcalls.coverage import Coverage
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_integrations.langgraph.calls import facts_of
from agentlattice_integrations.langgraph.deciding import CallGate, GateOptions
from agentlattice_integrations.langgraph.hosted import (
    ALLOWED,
    REFUSED,
    HostedTools,
    hosted_calls,
    hosted_name,
    offered_hosted,
    without_hosted,
)
from agentlattice_integrations.langgraph.tools import origin_of
from agentlattice_integrations.langgraph.wrappers import AsyncExecute, CallWrappers, Execute

__all__ = ["GovernanceMiddleware"]

_log = logging.getLogger("agentlattice")

_RAN = "the provider ran the tool by itself; it could not be asked about beforehand"


class _Seen(NamedTuple):
    """What was last offered to which model. `local`: neither can bring a provider's tool, or come to bring one."""

    tools: tuple[Any, ...]
    model: Any
    local: bool

    @classmethod
    def of(cls, request: ModelRequest[Any]) -> _Seen:
        """What `request` offers. Dicts, and what is bound to a model, may change while they stay the same objects."""
        local = not isinstance(request.model, RunnableBinding) and all(
            isinstance(tool, BaseTool) for tool in request.tools
        )
        return cls(tuple(request.tools), request.model, local)


class GovernanceMiddleware(AgentMiddleware[Any, Any, Any]):
    """Decides on every tool call of an agent made by `create_agent`.

    - `client`: an `AgentLattice`, or a delegation, `al.delegate(...)`, as whose child the agent acts; see `acting`.
    - `explain_return_direct`: ask the model again when a tool that would have ended the run was denied.
    - `hosted_tools`: `refuse` takes tools that run at the provider out of what the model is offered, `allow`
      leaves them.
    - `actions`, `redact`, `approval_timeout`: see `ToolGate`.
    - `on_approval`: `pause` (the default where there is a checkpointer), `wait` (the default elsewhere) or `defer`.
    - `approver`: whose decision an approval in the agent's own interface is: a client of an operator, or what finds it
      for a run's config. Without it, such an approval does not count.

    `coverage` tells what it has seen so far. Raises ValueError or InvalidRequestError when it is built with
    something that cannot work.
    """

    def __new__(cls, *args: Any, explain_return_direct: bool = False, **options: Any) -> GovernanceMiddleware:
        # create_agent builds a node for each hook that a class has, so the hook lives in a class of its own.
        explaining = explain_return_direct and cls is GovernanceMiddleware
        return super().__new__(_ExplainingMiddleware if explaining else cls)

    def __init__(
        self,
        client: GovernanceClient | Delegate,
        *,
        hosted_tools: HostedTools = "refuse",
        explain_return_direct: bool = False,
        **options: Unpack[GateOptions],
    ) -> None:
        super().__init__()
        if hosted_tools not in ("refuse", "allow"):
            raise ValueError(f"hosted_tools `{hosted_tools}` is not one of refuse, allow")
        self.tools: Sequence[BaseTool] = ()
        self.coverage = Coverage()
        self.hosted_tools = hosted_tools
        self.explain_return_direct = explain_return_direct
        self.gate = CallGate(client, options)
        self._wrappers = CallWrappers(self.gate)
        self._seen = _Seen((), None, local=False)

    @property
    def name(self) -> str:
        """What the agent's graph calls this middleware."""
        return "GovernanceMiddleware"

    def wrap_tool_call(self, request: ToolCallRequest, handler: Execute) -> ToolMessage | Command[Any]:
        """Decide on one tool call."""
        return self._wrappers.wrap(request, handler)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: AsyncExecute
    ) -> ToolMessage | Command[Any]:
        """As `wrap_tool_call`."""
        return await self._wrappers.awrap(request, handler)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Keep provider-hosted tools from the model, and record what the provider ran all the same."""
        response = handler(self._offered(request))
        for call in hosted_calls(response.result):
            self.gate.note_hosted_sync(*call, _RAN)
        return response

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """As `wrap_model_call`."""
        response = await handler(self._offered(request))
        for call in hosted_calls(response.result):
            await self.gate.note_hosted(*call, _RAN)
        return response

    def _offered(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        tools, seen = request.tools, self._seen
        if (
            request.model is not seen.model
            or len(tools) != len(seen.tools)
            or not all(map(operator.is_, tools, seen.tools))
        ):
            self._note_tools(request)
            self._seen = _Seen.of(request)
        elif seen.local and not request.model_settings:
            return request
        hosted = offered_hosted(request)
        if not hosted:
            return request
        for tool in hosted:
            name = hosted_name(tool)
            if self.hosted_tools == "allow":
                self.coverage.add(name, kind="hosted", status="not_coverable", why=ALLOWED)
            elif self.coverage.get(name) is None:
                self.coverage.add(name, kind="hosted", status="refused", why=REFUSED)
                _log.warning("tool `%s` %s", name, REFUSED)
        return request if self.hosted_tools == "allow" else without_hosted(request)

    def _note_tools(self, request: ModelRequest[Any]) -> None:
        for tool in request.tools:
            if isinstance(tool, BaseTool):
                facts = facts_of(tool)
                mapping = self.gate.gate.resolve(facts.name, origin_of(tool))
                self.coverage.add(facts.name, kind=facts.kind, action_type=mapping.action_type)


class _ExplainingMiddleware(GovernanceMiddleware):
    """The same, going back to the model when the run is about to end with a denial."""

    @hook_config(can_jump_to=["model"])
    def after_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Go back to the model if the last thing that happened is a denied call."""
        for message in reversed(state["messages"]):
            if not isinstance(message, ToolMessage):
                return None
            if "governance" in message.additional_kwargs:
                return {"jump_to": "model"}
        return None
