"""A small MCP server over stdio: `python -m agentlattice_integrations.contract.mcp_server <effects file>`.

Its tools are `free`, `forbidden` and `open_pr`; each notes in the effects file that it ran.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

try:
    from mcp.server.fastmcp import FastMCP
except ImportError:  # its name since version 2 of the SDK
    from mcp.server.mcpserver import MCPServer as FastMCP  # type: ignore[import-not-found,unused-ignore,no-redef]

__all__ = ["serve"]


def serve(effects: Path) -> None:
    """Serve until the client goes away."""
    server = FastMCP("contract", log_level="ERROR")

    def ran(tool: str, **arguments: Any) -> None:
        with effects.open("a", encoding="utf-8") as file:
            file.write(json.dumps([tool, arguments]) + "\n")

    @server.tool()
    def free(text: str) -> str:
        """Say a text."""
        ran("free", text=text)
        return f"said {text}"

    @server.tool()
    def forbidden(text: str) -> str:
        """Do what nobody may do."""
        ran("forbidden", text=text)
        return "the forbidden thing was done"

    @server.tool()
    def open_pr(title: str, pr_size: int) -> str:
        """Open a pull request of a number of files."""
        ran("open_pr", title=title, pr_size=pr_size)
        return f"opened {title}"

    server.run("stdio")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
