"""What `govern(...)` reports: every tool it saw, and whether the gate stands before it.

- `governed`: each call of the tool is decided on before it takes effect.
- `refused`: the tool was taken away, or each call of it is denied, because it cannot be governed.
- `not_coverable`: the tool can take effect without being asked about. Only an explicit choice of the user leaves one
  so.
- Tools that appear later (a server's list, a crew's delegation tools) are added when they appear.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from agentlattice_core.errors import AgentLatticeError

__all__ = ["Coverage", "CoverageStatus", "ToolCoverage"]

CoverageStatus = Literal["governed", "refused", "not_coverable"]
_STATUSES = ("governed", "refused", "not_coverable")
_HEADINGS = ("tool", "kind", "status", "action type", "why")


@dataclass(frozen=True, slots=True)
class ToolCoverage:
    """One tool in the report.

    `owner` names what holds the tool (an agent, a graph node, a server) where the framework has such a thing; `why` is
    one line, and required for everything that is not governed.
    """

    name: str
    kind: str
    status: CoverageStatus
    action_type: str | None = None
    why: str | None = None
    owner: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON members."""
        return {
            "name": self.name,
            "kind": self.kind,
            "status": self.status,
            "action_type": self.action_type,
            "why": self.why,
            "owner": self.owner,
        }


class Coverage:
    """A coverage report: iterable, printable, and safe to add to from any thread. The same tool is listed once."""

    def __init__(self, tools: Iterable[ToolCoverage] = ()) -> None:
        self._lock = threading.Lock()
        self._tools: dict[tuple[str | None, str, str], ToolCoverage] = {}
        for tool in tools:
            self._put(tool)

    def add(
        self,
        name: str,
        *,
        kind: str = "function",
        status: CoverageStatus = "governed",
        action_type: str | None = None,
        why: str | None = None,
        owner: str | None = None,
    ) -> ToolCoverage:
        """Note one tool; the same owner, kind and name again replaces what was noted before.

        Raises ValueError for an unknown status, and when a tool that is not governed comes without a `why`.
        """
        return self._put(ToolCoverage(name, kind, status, action_type, why, owner))

    def update(self, other: Coverage) -> None:
        """Add everything that another report holds."""
        for tool in other:
            self._put(tool)

    def _put(self, tool: ToolCoverage) -> ToolCoverage:
        if tool.status not in _STATUSES:
            raise ValueError(f"status `{tool.status}` is not one of {', '.join(_STATUSES)}")
        if tool.status != "governed" and not tool.why:
            raise ValueError(f"tool `{tool.name}` is reported as {tool.status} without saying why")
        with self._lock:
            self._tools[(tool.owner, tool.kind, tool.name)] = tool
        return tool

    @property
    def tools(self) -> tuple[ToolCoverage, ...]:
        """All tools, in the order in which they were first seen."""
        with self._lock:
            return tuple(self._tools.values())

    @property
    def governed(self) -> tuple[ToolCoverage, ...]:
        """The tools that the gate stands before."""
        return tuple(tool for tool in self.tools if tool.status == "governed")

    @property
    def refused(self) -> tuple[ToolCoverage, ...]:
        """The tools that were taken away or always denied."""
        return tuple(tool for tool in self.tools if tool.status == "refused")

    @property
    def not_coverable(self) -> tuple[ToolCoverage, ...]:
        """The tools that can take effect without being asked about."""
        return tuple(tool for tool in self.tools if tool.status == "not_coverable")

    def get(self, name: str, *, owner: str | None = None) -> ToolCoverage | None:
        """The first tool of that name (and owner, if given)."""
        return next(
            (tool for tool in self.tools if tool.name == name and (owner is None or tool.owner == owner)),
            None,
        )

    def raise_if_uncovered(self) -> None:
        """Raise AgentLatticeError (`UNCOVERED_TOOLS`) naming every tool that can run without being decided on."""
        open_tools = self.not_coverable
        if open_tools:
            named = ", ".join(f"`{tool.name}` ({tool.why})" for tool in open_tools)
            raise AgentLatticeError(
                "UNCOVERED_TOOLS",
                f"{len(open_tools)} of {len(self)} tools can run without being decided on: {named}; "
                "remove them or let them be refused",
                [tool.to_dict() for tool in open_tools],
            )

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON members: the tools, and how many have each status."""
        tools = self.tools
        return {
            "tools": [tool.to_dict() for tool in tools],
            "counts": {status: sum(tool.status == status for tool in tools) for status in _STATUSES},
        }

    def __iter__(self) -> Iterator[ToolCoverage]:
        return iter(self.tools)

    def __len__(self) -> int:
        return len(self._tools)

    def __str__(self) -> str:
        tools = self.tools
        counts = ", ".join(
            f"{sum(tool.status == status for tool in tools)} {status.replace('_', ' ')}"
            for status in _STATUSES
        )
        rows = [_HEADINGS] + [
            (
                f"{tool.owner}: {tool.name}" if tool.owner else tool.name,
                tool.kind,
                tool.status.replace("_", " "),
                tool.action_type or "-",
                tool.why or "",
            )
            for tool in tools
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, f"{len(tools)} tools: {counts}"])

    def __repr__(self) -> str:
        return f"Coverage({list(self.tools)!r})"
