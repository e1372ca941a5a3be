"""What is decided on is what the tool is handed, whatever the model writes; and the package says what it needs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

from agents import FunctionTool
from agents.tool_context import ToolContext
from hypothesis import given
from hypothesis import strategies as st
from openai_world import World

from agentlattice_integrations.openai_agents import govern

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def ask(raw: str) -> tuple[World, list[str], Any]:
    handed: list[str] = []

    async def invoke(context: Any, arguments: str) -> str:
        handed.append(arguments)
        return "ran"

    world = World()
    tool = govern(
        FunctionTool("probe", "Probe.", {"type": "object"}, invoke, strict_json_schema=False), world
    )
    context: ToolContext[Any] = ToolContext(
        context=None, tool_name="probe", tool_call_id="c", tool_arguments=raw
    )
    return world, handed, asyncio.run(tool.on_invoke_tool(context, raw))  # type: ignore[arg-type]


@given(st.dictionaries(st.text(), values, max_size=5))
def test_a_tool_is_handed_what_was_recorded_or_nothing(arguments: dict[str, Any]) -> None:
    """Either the tool gets the model's text and the log holds the same object, or neither, and a document says why."""
    raw = json.dumps(arguments)
    world, handed, answer = ask(raw)
    if handed:
        assert (handed, answer, world.outcomes) == ([raw], "ran", ["succeeded"])
        assert set(world.arguments[0]) == set(arguments)
    else:
        assert json.loads(answer)["type"] == "agentlattice.denial/v1"
        assert world.statuses == ["denied"]


@given(st.text() | st.binary(max_size=50).map(lambda raw: raw.decode("utf-8", "replace")))
def test_text_that_is_no_json_object_runs_nothing(raw: str) -> None:
    """Arbitrary text never raises and never reaches the tool, unless it is an object, or blank."""
    _, handed, answer = ask(raw)
    if handed:
        assert isinstance(json.loads(raw.strip() or "{}"), dict)
    else:
        assert json.loads(answer)["executed"] is False


def test_without_the_sdk_the_import_says_what_to_install() -> None:
    """One line, with the command."""
    code = (
        "import sys; sys.modules['agents'] = None\n"
        "try:\n    import agentlattice_integrations.openai_agents\n"
        "except ImportError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == (
        "the OpenAI Agents SDK is not installed; "
        'run `pip install "agentlattice-integrations[openai-agents]"`\n'
    )
