"""Function tools: what is decided on, who decides, how the decision reaches the model, and what could get around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from agents import RunConfig, RunHooks, Runner, ToolExecutionConfig, function_tool
from agents.run_state import RunState
from openai_files import Files, agent_with, context_for
from openai_scripted import ScriptedModel, call
from openai_world import World, is_denial

from agentlattice_core.errors import InvalidRequestError
from agentlattice_integrations.openai_agents import coverage, govern, governance_guardrail, outcome_guardrail


async def test_an_allowed_call_runs_and_is_reported(files: Files) -> None:
    """An allowed call returns what the tool returns, and the log learns that it succeeded."""
    world, model = World(), ScriptedModel([call("read", {"path": "a"})])
    result = await Runner.run(govern(agent_with(model, files.read), world), "go")
    assert (result.final_output, model.shown) == ("done", ["content of a"])
    assert (world.types, world.arguments, world.outcomes) == (["tool.read"], [{"path": "a"}], ["succeeded"])


async def test_a_denial_reaches_the_model_byte_for_byte_and_nothing_runs(files: Files) -> None:
    """The model is shown exactly the denial's text; neither the tool nor the hooks around it run."""
    started: list[str] = []

    class Hooks(RunHooks[Any]):
        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            started.append(tool.name)

    world = World("tool.delete")
    model = ScriptedModel([call("delete", {"path": "ü☃"})])
    result = await Runner.run(govern(agent_with(model, files.delete), world), "go", hooks=Hooks())
    refusal = result.tool_input_guardrail_results[0].output
    assert refusal.behavior == {"type": "reject_content", "message": model.shown[0]}
    assert refusal.output_info == json.loads(model.shown[0])
    assert is_denial(model.shown[0])
    assert (files.ran, started, world.outcomes) == ([], [], [None])


async def test_every_one_of_many_parallel_calls_is_decided_on(files: Files) -> None:
    """Fifty calls in one message: each is decided on by itself, denied ones do not run, results keep order."""
    world = World("tool.delete")
    calls = [call("delete" if number % 5 == 0 else "read", {"path": str(number)}) for number in range(50)]
    model = ScriptedModel(calls)
    await Runner.run(govern(agent_with(model, files.read, files.delete), world), "go")
    assert sorted(files.ran) == sorted(f"read {number}" for number in range(50) if number % 5)
    assert [is_denial(text) if number % 5 == 0 else text for number, text in enumerate(model.shown)] == [
        True if number % 5 == 0 else f"content of {number}" for number in range(50)
    ]
    assert len(world.entries) == 50
    assert world.outcomes.count("succeeded") == 40


def test_a_synchronous_run_is_governed(files: Files) -> None:
    """`Runner.run_sync` makes no difference."""
    world, model = (
        World("tool.delete"),
        ScriptedModel([call("delete", {"path": "a"}), call("read", {"path": "b"})]),
    )
    Runner.run_sync(govern(agent_with(model, files.read, files.delete), world), "go")
    assert files.ran == ["read b"]
    assert is_denial(model.shown[0])


async def test_a_streamed_run_is_governed_and_shows_the_denial_as_an_item(files: Files) -> None:
    """A streamed run carries the denial as the tool output item, and nothing runs."""
    world, model = World("tool.delete"), ScriptedModel([call("delete", {"path": "a"})])
    streamed = Runner.run_streamed(govern(agent_with(model, files.delete), world), "go")
    items = [
        event.item.output
        async for event in streamed.stream_events()
        if event.type == "run_item_stream_event" and event.item.type == "tool_call_output_item"
    ]
    assert items == model.shown
    assert is_denial(items[0])
    assert files.ran == []


NOT_RECORDABLE = {
    "cut": '{"path":',
    "list": "[1]",
    "null": "null",
    "nan": '{"path": NaN}',
    "twice": '{"path": "a", "path": "b"}',
    "nul": '{"path": "\\u0000"}',
    "deep": '{"path": ' + "[" * 100 + "]" * 100 + "}",
    "huge": '{"path": "' + "x" * 300_000 + '"}',
}


# The SDK itself cannot read these: it ends the run before anything of a tool is asked.
UNREADABLE = {
    "surrogate": '{"path": "\\ud800"}',
    "bottomless": '{"path": ' + "[" * 5000 + "]" * 5000 + "}",
}


@pytest.mark.parametrize("raw", NOT_RECORDABLE.values(), ids=NOT_RECORDABLE)
async def test_arguments_that_cannot_be_recorded_are_a_denial(files: Files, raw: str) -> None:
    """Arguments that are not a plain JSON object are refused with a document, not an exception, and nothing runs."""
    world, model = World(), ScriptedModel([call("read", raw)])
    await Runner.run(govern(agent_with(model, files.read), world), "go")
    assert json.loads(model.shown[0])["type"] == "agentlattice.denial/v1"
    assert (files.ran, world.statuses) == ([], ["denied"])


@pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE)
async def test_arguments_that_the_sdk_cannot_read_run_nothing(files: Files, raw: str) -> None:
    """What ends the run in the SDK's own reader runs nothing, and handed to the tool directly it is a denial."""
    world, model = World(), ScriptedModel([call("read", raw)])
    agent = govern(agent_with(model, files.read), world)
    with pytest.raises((UnicodeEncodeError, RecursionError)):
        await Runner.run(agent, "go")
    assert (files.ran, world.entries) == ([], [])
    answer = await agent.tools[0].on_invoke_tool(context_for("read", raw), raw)
    assert json.loads(answer)["type"] == "agentlattice.denial/v1"
    assert (files.ran, world.statuses) == ([], ["denied"])


async def test_a_core_that_cannot_write_runs_nothing(files: Files) -> None:
    """Fails closed: the model is told `NOT_RECORDED`, and the run goes on."""
    model = ScriptedModel([call("read", {"path": "a"})])
    result = await Runner.run(govern(agent_with(model, files.read), World(broken=True)), "go")
    assert is_denial(model.shown[0], "NOT_RECORDED")
    assert (result.final_output, files.ran) == ("done", [])


async def test_observe_mode_lets_everything_run(files: Files) -> None:
    """In observe mode a call that would be denied runs."""

    class Observing(World):
        mode = "observe"

    world, model = Observing("tool.read"), ScriptedModel([call("read", {"path": "a"})])
    await Runner.run(govern(agent_with(model, files.read), world), "go")
    assert model.shown == ["content of a"]


async def test_arguments_changed_after_the_decision_are_decided_on_again(files: Files) -> None:
    """A hook that edits the call after it was allowed gets what policy says of the edited call."""

    class Edit(RunHooks[Any]):
        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            context.tool_call.arguments = '{"path": "/etc/shadow"}'

    class Careful(World):
        def execute_sync(self, action_type: str, options: Any = None, **more: Any) -> Any:
            self.deny = {action_type} if "shadow" in options.metadata["path"] else set()
            return super().execute_sync(action_type, options, **more)

    world, model = Careful(), ScriptedModel([call("read", {"path": "a"})])
    await Runner.run(govern(agent_with(model, files.read), world), "go", hooks=Edit())
    assert files.ran == []
    assert is_denial(model.shown[0])
    assert (world.statuses, world.outcomes) == (["executed", "denied"], ["unknown", None])


async def test_the_same_arguments_written_differently_need_no_second_decision(files: Files) -> None:
    """A hook that only reformats the JSON changes nothing that was decided."""

    class Reformat(RunHooks[Any]):
        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            context.tool_call.arguments = json.dumps(json.loads(context.tool_call.arguments), indent=4)

    world, model = World(), ScriptedModel([call("read", {"path": "a"})])
    await Runner.run(govern(agent_with(model, files.read), world), "go", hooks=Reformat())
    assert (files.ran, world.outcomes) == (["read a"], ["succeeded"])


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_direct_call_of_a_governed_tool_is_decided_on(files: Files, allowed: bool) -> None:
    """Calling `on_invoke_tool` without an agent asks the gate all the same."""
    world = World() if allowed else World("tool.read")
    tool = govern(files.read, world)
    answer = await tool.on_invoke_tool(context_for("read", '{"path": "a"}'), '{"path": "a"}')
    assert answer == "content of a" if allowed else is_denial(answer)
    assert (files.ran, world.types) == (["read a"] if allowed else [], ["tool.read"])


async def test_the_original_tool_is_left_as_it_was(files: Files) -> None:
    """`govern(tool)` returns a copy; an agent that holds the original is not governed by it."""
    world = World("tool.read")
    govern(files.read, world)
    model = ScriptedModel([call("read", {"path": "a"})])
    await Runner.run(agent_with(model, files.read), "go")
    assert (model.shown, world.entries) == (["content of a"], [])


async def test_a_list_of_tools_is_governed_and_works_in_any_agent(files: Files) -> None:
    """`govern([...])` returns a list of governed tools for an agent that is not governed itself."""
    world = World("tool.delete")
    tools = govern([files.read, files.delete], world)
    model = ScriptedModel([call("delete", {"path": "a"}), call("read", {"path": "b"})])
    await Runner.run(agent_with(model, *tools), "go")
    assert files.ran == ["read b"]
    assert {tool.name: tool.status for tool in coverage(tools)} == {"read": "governed", "delete": "governed"}


async def test_a_tool_governed_twice_is_decided_on_once(files: Files) -> None:
    """Governing a governed tool, or an agent that holds one, adds no second decision."""
    world, model = World(), ScriptedModel([call("read", {"path": "a"})])
    tool = govern(govern(files.read, world), world)
    await Runner.run(govern(agent_with(model, tool), world), "go")
    assert (world.types, world.outcomes) == (["tool.read"], ["succeeded"])


# --- approvals of the SDK's own --------------------------------------------------------------------------------------


async def test_an_approval_by_the_application_does_not_replace_policy(files: Files) -> None:
    """`state.approve(...)` says that a person agrees; what policy denies is denied all the same."""
    world, model = World("tool.wipe"), ScriptedModel([call("wipe", {"path": "a"})])
    agent = govern(agent_with(model, files.wipe), world)
    state = (await Runner.run(agent, "go")).to_state()
    state.approve(state.get_interruptions()[0], always_approve=True)
    await Runner.run(agent, state)
    assert files.ran == []
    assert is_denial(model.shown[0])


async def test_a_rejection_by_the_application_asks_no_policy(files: Files) -> None:
    """What the application rejects never becomes an action."""
    world, model = World(), ScriptedModel([call("wipe", {"path": "a"})])
    agent = govern(agent_with(model, files.wipe), world)
    state = (await Runner.run(agent, "go")).to_state()
    state.reject(state.get_interruptions()[0], rejection_message="no, thank you")
    await Runner.run(agent, state)
    assert (model.shown, files.ran, world.entries) == (["no, thank you"], [], [])


@pytest.mark.parametrize("denied", [False, True])
async def test_guardrails_run_before_the_approval_claim_nothing(files: Files, denied: bool) -> None:
    """With `pre_approval_tool_input_guardrails` the decision is still made once, when the tool is about to run."""
    world = World("tool.wipe") if denied else World()
    model = ScriptedModel([call("wipe", {"path": "a"}), call("read", {"path": "b"})])
    agent = govern(agent_with(model, files.wipe, files.read), world)
    config = RunConfig(tool_execution=ToolExecutionConfig(pre_approval_tool_input_guardrails=True))
    saved = (await Runner.run(agent, "go", run_config=config)).to_state().to_string()
    assert world.types == ["tool.read"]
    state = await RunState.from_string(agent, saved)
    state.approve(state.get_interruptions()[0])
    await Runner.run(agent, state, run_config=config)
    assert world.types == ["tool.read", "tool.wipe"]
    assert files.ran == (["read b"] if denied else ["read b", "wipe a"])


# --- a denial as the final answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("behavior", ["stop_on_first_tool", {"stop_at_tool_names": ["read"]}])
async def test_an_agent_that_stops_at_a_tool_stops_at_its_denial_too(files: Files, behavior: Any) -> None:
    """The SDK treats a rejected call as the tool's result, so the denial becomes the final output."""
    model = ScriptedModel([call("read", {"path": "a"})])
    agent = govern(agent_with(model, files.read, tool_use_behavior=behavior), World("tool.read"))
    result = await Runner.run(agent, "go")
    assert is_denial(result.final_output)
    assert files.ran == []


# --- the SDK's own form ----------------------------------------------------------------------------------------------


async def test_the_native_guardrails_decide_and_report(files: Files) -> None:
    """`governance_guardrail` refuses, `outcome_guardrail` reports, on a tool that `govern` never saw."""
    world = World("tool.delete")
    guardrail = governance_guardrail(world)

    @function_tool
    def fail() -> str:
        """Fail."""
        raise ValueError("no")

    for tool in (files.read, files.delete, fail):
        tool.tool_input_guardrails = [guardrail]
        tool.tool_output_guardrails = [outcome_guardrail(guardrail)]
    model = ScriptedModel([call("read", {"path": "a"}), call("delete", {"path": "b"}), call("fail")])
    await Runner.run(agent_with(model, files.read, files.delete, fail), "go")
    assert files.ran == ["read a"]
    assert is_denial(model.shown[1])
    assert dict(zip(world.types, world.outcomes, strict=True)) == {
        "tool.read": "succeeded",
        "tool.delete": None,
        "tool.fail": "failed",
    }


async def test_native_guardrails_give_way_to_govern(files: Files) -> None:
    """A tool with the native guardrail that is then governed is decided on once."""
    world = World()
    files.read.tool_input_guardrails = [governance_guardrail(world)]
    model = ScriptedModel([call("read", {"path": "a"})])
    await Runner.run(govern(agent_with(model, files.read), world), "go")
    assert (world.types, world.outcomes) == (["tool.read"], ["succeeded"])


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hosted_tools": "maybe"}, "hosted_tools `maybe`"),
    ],
)
def test_settings_that_cannot_work_are_said_at_once(files: Files, settings: Any, message: str) -> None:
    """A wrong setting is an error when `govern` is called, not at the first tool call."""
    with pytest.raises(InvalidRequestError, match=message):
        govern(files.read, World(), **settings)


def test_something_that_is_no_tool_is_refused_by_name() -> None:
    """`govern` says what it takes."""
    with pytest.raises(InvalidRequestError, match="a `int` cannot be governed"):
        govern(3, World())
    with pytest.raises(InvalidRequestError, match="neither a tool nor an agent"):
        govern([3], World())
