"""Tools that note that they ran, and how a refusal of one reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from crewai.tools import tool

from agentlattice_core.results import AuditEvent
from agentlattice_integrations.contract import ScriptedCall

__all__ = ["BOTH", "DELETE", "Recorded", "Traces", "denial"]

Recorded = Callable[[str], list[AuditEvent]]
DELETE = ScriptedCall("delete", {"path": "a"})
BOTH = pytest.mark.parametrize("native", [True, False], ids=["native", "text"])


class Traces:
    """Tools that note that they ran."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, Any]] = []

    def delete(self, **options: Any) -> Any:
        @tool("delete", **options)
        def delete(path: str) -> str:
            """Delete a path."""
            self.ran.append(("delete", path))
            return f"deleted {path}"

        return delete

    def read(self, **options: Any) -> Any:
        @tool("read", **options)
        def read(path: str) -> str:
            """Read a path."""
            self.ran.append(("read", path))
            return f"read {path}"

        return read

    def deploy(self) -> Any:
        @tool("deploy")
        def deploy(version: str) -> str:
            """Deploy a version."""
            self.ran.append(("deploy", version))
            return f"deployed {version}"

        return deploy

    def draw(self, **options: Any) -> Any:
        @tool("draw", **options)
        def draw(amount: str, currency: str) -> str:
            """Draw an amount."""
            self.ran.append(("draw", amount))
            return f"drew {amount}"

        return draw


def denial(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text)
    assert document["type"] == "agentlattice.denial/v1"
    return document
