"""A denial as CrewAI takes it: the tool's own report that it did nothing.

- The model reads the denial document, word for word, wherever CrewAI turns the result into text.
- CrewAI records it (`TaskOutput.tool_failures`), never caches it and never takes it for the task's answer.
- It is returned, never raised: a tool that raises is run again by CrewAI.
"""

from __future__ import annotations

from crewai.tools.tool_failure import ToolFailure

from agentlattice_core.toolcalls.call import Denial

__all__ = ["ToolDenied"]


class ToolDenied(ToolFailure):
    """What a governed tool returns instead of running: `details` is the denial document."""

    @classmethod
    def of(cls, denial: Denial) -> ToolDenied:
        """The result that shows `denial` to the model."""
        return cls(
            message=denial.text,
            code=denial.reason,
            retryable=denial.status == "pending",
            details=dict(denial.document),
        )

    def as_agent_message(self) -> str:
        """The denial document: it carries its own reason code."""
        return self.message

    def __str__(self) -> str:
        return self.message
