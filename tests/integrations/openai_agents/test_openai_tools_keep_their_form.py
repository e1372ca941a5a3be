"""A governed function tool is still what the SDK looks for: its guardrails, copies, class, context and output."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
from agents import (
    FunctionTool,
    RunContextWrapper,
    Runner,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrailData,
    function_tool,
    tool_input_guardrail,
    tool_namespace,
    tool_output_guardrail,
)
from agents.tool_context import ToolContext
from openai_files import Files, agent_with, context_for
from openai_scripted import ScriptedModel, call
from openai_world import World, is_denial
from pydantic import BaseModel

from agentlattice_core.toolcalls.mapping import arg, governed
from agentlattice_integrations.openai_agents import coverage, govern


async def test_the_lists_of_guardrail_results_keep_their_length(files: Files) -> None:
    """The decision is merged into the tool's last own guardrail, and runs after all of them."""
    order: list[str] = []

    @tool_input_guardrail(name="first")
    def first(data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        order.append("first")
        return ToolGuardrailFunctionOutput.allow("one")

    @tool_input_guardrail(name="second")
    async def second(data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        order.append("second")
        return ToolGuardrailFunctionOutput.allow("two")

    files.read.tool_input_guardrails = [first, second]
    world, model = World(), ScriptedModel([call("read", {"path": "a"})])
    result = await Runner.run(govern(agent_with(model, files.read), world), "go")
    assert order == ["first", "second"]
    assert [(r.guardrail.get_name(), r.output.output_info) for r in result.tool_input_guardrail_results] == [
        ("first", "one"),
        ("second", "two"),
    ]
    assert world.outcomes == ["succeeded"]


async def test_what_the_tools_own_guardrail_rejects_asks_no_policy(files: Files) -> None:
    """A call that the application's own guardrail rejects is not an action."""

    @tool_input_guardrail
    def never(data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.reject_content("not this")

    files.read.tool_input_guardrails = [never]
    world, model = World(), ScriptedModel([call("read", {"path": "a"})])
    await Runner.run(govern(agent_with(model, files.read), world), "go")
    assert (model.shown, world.entries) == (["not this"], [])


async def test_an_output_guardrail_still_decides_what_the_model_sees(files: Files) -> None:
    """The tool ran: that is the outcome, whatever an output guardrail makes of its result."""

    @tool_output_guardrail
    def hide(data: Any) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.reject_content("hidden")

    files.read.tool_output_guardrails = [hide]
    world, model = World(), ScriptedModel([call("read", {"path": "a"})])
    await Runner.run(govern(agent_with(model, files.read), world), "go")
    assert (model.shown, world.outcomes) == (["hidden"], ["succeeded"])


async def test_a_disabled_tool_stays_hidden_and_refused(files: Files) -> None:
    """`is_enabled` works as before, for the offer to the model and for the call."""
    enabled = True

    @function_tool(is_enabled=lambda context, agent: enabled)
    def sometimes() -> str:
        """Sometimes there."""
        return "here"

    world, model = World(), ScriptedModel([call("sometimes")])
    agent = govern(agent_with(model, sometimes, files.read), world)
    await Runner.run(agent, "go")
    assert model.offered[0] == ["sometimes", "read"]
    enabled = False
    await Runner.run(agent, "go")
    assert model.offered[-1] == ["read"]


async def test_copies_of_a_governed_tool_are_governed(files: Files) -> None:
    """`copy.copy`, `dataclasses.replace` and `tool_namespace` carry the gate along."""
    world = World("tool.read")
    tool = govern(files.read, world)
    copies = [
        copy.copy(tool),
        dataclasses.replace(tool, description="other"),
        *tool_namespace(name="fs", description="files", tools=[tool]),
    ]
    for copied in copies:
        answer = await copied.on_invoke_tool(context_for("read", '{"path": "a"}'), '{"path": "a"}')
        assert is_denial(answer)
    assert files.ran == []


async def test_a_replaced_copy_inside_a_governed_agent_is_decided_on_once(files: Files) -> None:
    """A copy that lost nothing is not governed a second time."""
    world, model = World(), ScriptedModel([call("read", {"path": "a"})])
    tool = dataclasses.replace(govern(files.read, world), description="other")
    await Runner.run(govern(agent_with(model, tool), world), "go")
    assert world.outcomes == ["succeeded"]


async def test_a_tool_class_with_its_own_constructor_and_bound_invoker_is_governed() -> None:
    """Subclasses of FunctionTool keep their class and their own state."""

    class Counter(FunctionTool):
        def __init__(self, label: str) -> None:
            self.label = label
            self.count = 0
            super().__init__(
                "count", "Count.", {"type": "object", "properties": {}}, self.invoke, strict_json_schema=False
            )

        async def invoke(self, context: ToolContext[Any], arguments: str) -> str:
            self.count += 1
            return f"{self.label} {self.count}"

    world, original = World(), Counter("n")
    tool = govern(original, world)
    assert isinstance(tool, Counter)
    model = ScriptedModel([call("count"), call("count")])
    await Runner.run(agent_with(model, tool), "go")
    assert sorted(model.shown) == ["n 1", "n 2"]
    assert (tool.count, original.count, world.outcomes) == (2, 0, ["succeeded", "succeeded"])


@pytest.mark.parametrize("kind", [RunContextWrapper, ToolContext])
async def test_a_plain_invoker_gets_the_kind_of_context_it_declares(kind: type[Any]) -> None:
    """The SDK chooses the context by the invoker's annotation; the gate in front does not hide it."""
    seen: list[type[Any]] = []

    async def invoke(context: Any, arguments: str) -> str:
        seen.append(type(context))
        return "ok"

    invoke.__annotations__["context"] = kind
    tool = FunctionTool(
        "plain", "Plain.", {"type": "object", "properties": {}}, invoke, strict_json_schema=False
    )
    world = World()
    await Runner.run(govern(agent_with(ScriptedModel([call("plain")]), tool), world), "go")
    assert (seen, world.outcomes) == ([kind], ["succeeded"])


async def test_a_tool_function_gets_its_tool_context(files: Files) -> None:
    """A function that asks for the ToolContext gets it, with the call's id."""
    seen: list[str] = []

    @function_tool
    def whoami(context: ToolContext[Any]) -> str:
        """Say who."""
        seen.append(context.tool_call_id)
        return "me"

    model = ScriptedModel([call("whoami", call_id="call_77")])
    await Runner.run(govern(agent_with(model, whoami), World()), "go")
    assert seen == ["call_77"]


async def test_the_function_behind_a_governed_tool_can_still_be_reached(files: Files) -> None:
    """`__wrapped__` is what it was; calling it is calling the function, and documented as no tool call."""
    tool = govern(files.read, World("tool.read"))
    assert tool.__wrapped__ is files.read.__wrapped__


def test_a_timeout_on_a_synchronous_tool_is_refused_as_before(files: Files) -> None:
    """The SDK's own check that only async tools have timeouts still finds what it looks for."""
    tool = govern(files.read, World())
    with pytest.raises(ValueError, match="timeout"):
        dataclasses.replace(tool, timeout_seconds=1.0)


class Weather(BaseModel):
    city: str
    degrees: int


async def test_a_structured_result_stays_structured_and_a_denial_is_text() -> None:
    """A tool that returns a model keeps its output; its denial is not forced into the tool's output type."""

    @function_tool
    def weather(city: str) -> Weather:
        """Tell the weather."""
        return Weather(city=city, degrees=21)

    plain, model = (
        ScriptedModel([call("weather", {"city": "Rome"})]),
        ScriptedModel([call("weather", {"city": "Rome"})]),
    )
    await Runner.run(agent_with(plain, weather), "go")
    await Runner.run(govern(agent_with(model, weather), World()), "go")
    assert model.shown == plain.shown
    refused = ScriptedModel([call("weather", {"city": "Rome"})])
    await Runner.run(govern(agent_with(refused, weather), World("tool.weather")), "go")
    assert is_denial(refused.shown[0])


async def test_a_mapping_on_the_function_or_on_the_tool_is_used() -> None:
    """`@governed` works under and over `@function_tool`, and a table names tools one does not own."""

    @function_tool
    @governed("refund.issue", amount=arg("total"), currency="EUR")
    def refund(total: str) -> str:
        """Refund."""
        return "ok"

    @governed("mail.send")
    @function_tool
    def send(to: str) -> str:
        """Send."""
        return "ok"

    @function_tool
    def other(x: str) -> str:
        """Do something else."""
        return "ok"

    world = World()
    model = ScriptedModel(
        [call("refund", {"total": "5"}), call("send", {"to": "a"}), call("other", {"x": "1"})]
    )
    agent = govern(agent_with(model, refund, send, other), world, actions={"oth*": "thing.do"})
    await Runner.run(agent, "go")
    assert sorted(world.types) == ["mail.send", "refund.issue", "thing.do"]
    assert {tool.name: tool.action_type for tool in coverage(agent)} == {
        "refund": "refund.issue",
        "send": "mail.send",
        "other": "thing.do",
    }
