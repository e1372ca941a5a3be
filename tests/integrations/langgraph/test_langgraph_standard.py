"""LangChain's own standard tests for tools, over governed ones that policy allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool, tool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from agentlattice_core import AgentLattice
from agentlattice_integrations.langgraph import govern_tool


class _Add(BaseTool):
    name: str = "add"
    description: str = "Add two numbers."

    def _run(self, left: int, right: int) -> str:
        return str(left + right)


@tool(response_format="content_and_artifact")
def multiply(left: int, right: int) -> tuple[str, int]:
    """Multiply two numbers."""
    return str(left * right), left * right


class _Governed:
    """The tool of a suite, governed by a client that allows everything."""

    original: BaseTool
    client: AgentLattice

    @pytest.fixture(autouse=True)
    def governing(self, tmp_path: Path) -> Iterator[None]:
        """A client of its own for each test."""
        policies = tmp_path / "policies.yaml"
        policies.write_text(
            "version: 1\npolicies:\n  - {name: All, action: '*', effect: allow}\n", encoding="utf-8"
        )
        with AgentLattice.embedded(tmp_path / "governance.db", policies=policies, agent="tester") as client:
            self.client = client
            yield

    @property
    def tool_constructor(self) -> BaseTool:
        """The governed tool."""
        return govern_tool(self.original, self.client)

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        """Arguments both tools take."""
        return {"left": 2, "right": 3}


class TestOwnClassUnit(_Governed, ToolsUnitTests):
    """The unit tests, over a class of its own."""

    original = _Add()


class TestOwnClass(_Governed, ToolsIntegrationTests):
    """The integration tests, over a class of its own."""

    original = _Add()


class TestFunctionUnit(_Governed, ToolsUnitTests):
    """The unit tests, over a function with an artifact."""

    original = multiply


class TestFunction(_Governed, ToolsIntegrationTests):
    """The integration tests, over a function with an artifact."""

    original = multiply
