"""Tools that the provider runs: a remote MCP server is asked about call by call, all others are refused by default.

- A hosted MCP server is set to ask before each call; the answer is the gate's, after the application's own handler.
  Where the application had no handler, the SDK would pause the run; now policy says where a person is asked. What
  became of a call that was let through is known to the provider alone: its claim reads `unknown`.
- Web search, file search, code interpreter, image generation, hosted shells and the like run without asking anybody.
  They are taken away, unless the caller of `govern` chose `hosted_tools="allow"`.
- Tool search finds definitions of tools and runs none; it stays.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, cast

from agents import HostedMCPTool

from agentlattice_core.toolcalls.call import Denial
from agentlattice_integrations.openai_agents.governor import Governor

__all__ = ["ALLOWED_WHY", "ASKED_WHY", "REFUSED_WHY", "SEARCH_WHY", "govern_hosted_mcp"]

REFUSED_WHY = "runs at the provider without asking; taken away (hosted_tools=`allow` keeps it, ungoverned)"
ASKED_WHY = (
    "asked about call by call, in place of the SDK's own pauses; the provider does not report how it ended"
)
SEARCH_WHY = "finds definitions of tools and runs none"
ALLOWED_WHY = "runs at the provider without asking; kept because hosted_tools is `allow`"


def govern_hosted_mcp(tool: HostedMCPTool, governor: Governor) -> HostedMCPTool:
    """A governed copy of a hosted MCP tool."""
    governed = copy.copy(tool)
    governed.tool_config = cast(Any, {**tool.tool_config, "require_approval": "always"})
    own = tool.on_approval_request

    async def on_approval_request(request: Any) -> Any:
        if own is not None:
            said = own(request)
            if inspect.isawaitable(said):
                said = await said
            if not said["approve"]:
                return said
        call = governor.tool_call(
            request.data.name,
            request.data.arguments or "{}",
            request.ctx_wrapper,
            kind="hosted",
            call_id=request.data.id,
        )
        answer = await governor.decide(call)
        if isinstance(answer, Denial):
            return {"approve": False, "reason": answer.text}
        answer.abandoned("run by the provider, which does not report how it ended")
        return {"approve": True}

    governed.on_approval_request = on_approval_request
    return governed
