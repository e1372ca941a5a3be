"""Governance for MCP tools where they are loaded: an interceptor for langchain-mcp-adapters.

    tools = await load_mcp_tools(session, tool_interceptors=[mcp_interceptor(al)])

- It stands where the request leaves for the server, so it sees the final arguments. List it last among
  interceptors.
- A call that the tool or the middleware above has decided on with these arguments is not decided on twice.
- What a server says of its tools (read-only, harmless) is its own word and plays no part.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Unpack

from langchain_core.messages import ToolMessage

from agentlattice_core.delegating import Delegate
from agentlattice_core.toolcalls.call import Denial
from agentlattice_core.toolcalls.governance import GovernanceClient
from agentlattice_core.toolcalls.mapping import ToolMapping, default_action_type
from agentlattice_integrations.langgraph.calls import ToolFacts
from agentlattice_integrations.langgraph.deciding import CallGate, GateOptions
from agentlattice_integrations.langgraph.messages import denial_message, report_error
from agentlattice_integrations.langgraph.tickets import current_tickets

if TYPE_CHECKING:
    from langchain_mcp_adapters.interceptors import MCPToolCallRequest, MCPToolCallResult

__all__ = ["McpInterceptor", "mcp_interceptor"]

_Handler = Callable[["MCPToolCallRequest"], Awaitable["MCPToolCallResult"]]


def mcp_interceptor(client: GovernanceClient | Delegate, **options: Unpack[GateOptions]) -> McpInterceptor:
    """An interceptor that decides on every call of the tools loaded with it.

    `options` are those of `GovernanceMiddleware`. A tool is known to policy by the server's own name for it.
    """
    return McpInterceptor(CallGate(client, options))


class McpInterceptor:
    """Decides on MCP tool calls, in the form langchain-mcp-adapters takes."""

    def __init__(self, gate: CallGate) -> None:
        self.gate = gate

    async def __call__(self, request: MCPToolCallRequest, handler: _Handler) -> MCPToolCallResult:
        """Run the call if it is, or was, decided that it may; else answer with the denial."""
        if self._decided(request):
            return await handler(request)
        runtime: Any = request.runtime
        call_id = getattr(runtime, "tool_call_id", None)
        facts = ToolFacts.unknown(request.name, "mcp")
        answer = await self.gate.decide(facts, None, request.args, call_id, getattr(runtime, "config", None))
        if isinstance(answer, Denial):
            return denial_message(answer, request.name, call_id)
        try:
            result = await handler(request.override(args=dict(answer.permit.arguments)))
        except BaseException as error:
            report_error(answer.permit, error)
            raise
        if isinstance(result, ToolMessage):
            failed = result.status == "error"
        else:
            failed = bool(getattr(result, "isError", False))
        if failed:
            answer.permit.failed("the server answered with an error")
        else:
            answer.permit.succeeded()
        return result

    def _decided(self, request: MCPToolCallRequest) -> bool:
        """Whether this request was decided on: same agent or a child of it, same tool and arguments, the first time."""
        gate = self.gate.gate
        names = (request.name, f"{request.server_name}_{request.name}")
        for ticket in current_tickets():
            if ticket.stage == "entered" and ticket.tool in names and self.gate.settled_by(ticket.gate):
                if ticket.intercepted or not ticket.covers(request.args):
                    return False
                own = gate.resolve(request.name)
                unsaid = own == ToolMapping(default_action_type(request.name))
                ticket.intercepted = unsaid or own == ticket.gate.gate.resolve(ticket.tool)
                return ticket.intercepted
        return False
