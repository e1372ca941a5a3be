"""Function tools: the decision, its delivery, the outcome, and everything that could get around them."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import json
from typing import Any

import pytest
from agents import (
    Agent,
    FunctionTool,
    RunConfig,
    RunContextWrapper,
    RunHooks,
    Runner,
    ToolExecutionConfig,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrailData,
    function_tool,
    tool_input_guardrail,
    tool_namespace,
    tool_output_guardrail,
)
from agents.run_state import RunState
from agents.tool_context import ToolContext
from agents.tracing import Span, TracingProcessor, set_trace_processors
from openai_scripted import ScriptedModel, call
from openai_world import World
from pydantic import BaseModel

from agentlattice_core.errors import InvalidRequestError
from agentlattice_core.toolcalls.mapping import arg, governed
from agentlattice_integrations.openai_agents import (
    coverage,
    current_action_id,
    govern,
    governance_guardrail,
    outcome_guardrail,
)


class Weather(BaseModel):
    city: str
    degrees: int


class Files:
    """Tools over a list of what really happened."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        files = self

        @function_tool
        def read(path: str) -> str:
            """Read a file."""
            files.ran.append(f"read {path}")
            return f"content of {path}"

        @function_tool
        async def delete(path: str) -> str:
            """Delete a file."""
            files.ran.append(f"delete {path}")
            return f"deleted {path}"

        @function_tool(needs_approval=True)
        def wipe(path: str) -> str:
            """Delete a directory."""
            files.ran.append(f"wipe {path}")
            return f"wiped {path}"

        self.read, self.delete, self.wipe = read, delete, wipe


@pytest.fixture
def files() -> Files:
    return Files()


def agent_with(model: ScriptedModel, *tools: Any, **more: Any) -> Agent[Any]:
    return Agent(name="main", tools=list(tools), model=model, **more)


def is_denial(text: str, reason: str = "POLICY_DENIED") -> bool:
    document = json.loads(text)
    return bool(document["type"] == "agentlattice.denial/v1" and document["reason"] == reason)


def context_for(tool: str, arguments: str, call_id: str = "call_direct") -> ToolContext[Any]:
    return ToolContext(context=None, tool_name=tool, tool_call_id=call_id, tool_arguments=arguments)


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


# --- outcomes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tracing_disabled", [False, True])
async def test_an_error_that_the_sdk_turned_into_text_is_reported_as_a_failure(
    tracing_disabled: bool,
) -> None:
    """A raising tool whose error the model is shown reads `failed`, with tracing on or off."""

    @function_tool
    def fail() -> str:
        """Fail."""
        raise ValueError("no such file")

    world, model = World(), ScriptedModel([call("fail")])
    config = RunConfig(tracing_disabled=tracing_disabled)
    await Runner.run(govern(agent_with(model, fail), world), "go", run_config=config)
    assert world.outcomes == ["failed"]
    assert world.entries[0]["message"] == "ValueError: no such file"
    assert "error" in model.shown[0]


async def test_an_error_that_ends_the_run_is_reported_as_a_failure() -> None:
    """Without an error function the error goes through to the caller, as before, and reads `failed`."""

    @function_tool(failure_error_function=None)
    def fail() -> str:
        """Fail."""
        raise ValueError("no such file")

    world = World()
    with pytest.raises(Exception, match="no such file"):
        await Runner.run(govern(agent_with(ScriptedModel([call("fail")]), fail), world), "go")
    assert world.outcomes == ["failed"]


async def test_a_tool_that_times_out_reads_unknown() -> None:
    """Nobody can say how far a timed-out tool came; the model gets the SDK's message."""

    @function_tool(timeout=0.02)
    async def slow() -> str:
        """Take long."""
        await asyncio.sleep(30)
        return "never"

    world, model = World(), ScriptedModel([call("slow")])
    await Runner.run(govern(agent_with(model, slow), world), "go")
    assert world.outcomes == ["unknown"]
    assert "timed out" in model.shown[0]


async def test_waiting_for_the_decision_does_not_count_against_the_tools_timeout() -> None:
    """The tool's timeout starts when the tool does."""

    class Slow(World):
        async def execute(self, *given: Any, **more: Any) -> Any:
            await asyncio.sleep(0.2)
            return self.execute_sync(*given, **more)

    @function_tool(timeout=0.1)
    async def quick() -> str:
        """Be quick."""
        return "quick"

    world, model = Slow(), ScriptedModel([call("quick")])
    await Runner.run(govern(agent_with(model, quick), world), "go")
    assert (model.shown, world.outcomes) == (["quick"], ["succeeded"])


async def test_a_cancelled_run_leaves_the_claim_unknown() -> None:
    """Cancelling the run while the tool runs reads `unknown`."""
    started = asyncio.Event()

    @function_tool
    async def slow() -> str:
        """Take long."""
        started.set()
        await asyncio.sleep(30)
        return "never"

    world = World()
    run = asyncio.create_task(
        Runner.run(govern(agent_with(ScriptedModel([call("slow")]), slow), world), "go")
    )
    await started.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await asyncio.sleep(0.01)
    assert world.outcomes == ["unknown"]


async def test_a_call_that_was_allowed_and_never_started_reads_unknown(files: Files) -> None:
    """A hook that raises between the decision and the tool: the permit is given back, and nothing ran."""

    class Raise(RunHooks[Any]):
        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            raise RuntimeError("not today")

    world = World()

    async def run() -> None:
        model = ScriptedModel([call("read", {"path": "a"})])
        with pytest.raises(Exception, match="not today"):
            await Runner.run(govern(agent_with(model, files.read), world), "go", hooks=Raise())

    await asyncio.create_task(run())
    gc.collect()
    assert (files.ran, world.outcomes) == ([], ["unknown"])
    assert world.entries[0]["message"] == "the call was allowed, and the tool was not started"


# --- identity -------------------------------------------------------------------------------------------------------


async def test_a_state_resumed_twice_runs_its_tool_once(files: Files) -> None:
    """The trace id, the requests so far and the call id survive `RunState`; the second resume is told that it ran."""
    world, model = World(), ScriptedModel([call("wipe", {"path": "a"})])
    agent = govern(agent_with(model, files.wipe), world)
    saved = (await Runner.run(agent, "go")).to_state().to_string()
    assert world.entries == []
    for _ in range(2):
        state = await RunState.from_string(agent, saved)
        state.approve(state.get_interruptions()[0])
        await Runner.run(agent, state)
    assert files.ran == ["wipe a"]
    document = json.loads(model.shown[0])
    assert (document["status"], document["executed"]) == ("unknown", True)
    assert len(world.entries) == 1


async def test_the_same_call_in_two_runs_is_two_actions(files: Files) -> None:
    """Providers that number their call ids from one do not make one run's call look like another's."""
    world = World()
    model = ScriptedModel([call("read", {"path": "a"}, call_id="call_0")])
    agent = govern(agent_with(model, files.read), world)
    await Runner.run(agent, "go")
    model.turns = [[call("read", {"path": "a"}, call_id="call_0")]]
    await Runner.run(agent, "go")
    assert files.ran == ["read a", "read a"]
    assert world.outcomes == ["succeeded", "succeeded"]


async def test_two_calls_with_one_id_and_the_same_arguments_run_at_most_once(files: Files) -> None:
    """A duplicated tool call id in one message never runs the tool twice."""
    world = World()
    same = [call("delete", {"path": "a"}, call_id="call_0") for _ in range(2)]
    await Runner.run(govern(agent_with(ScriptedModel(same), files.delete), world), "go")
    assert files.ran == ["delete a"]


async def test_without_a_trace_calls_are_told_apart_and_nothing_breaks(files: Files) -> None:
    """With tracing off there is no identity: every call is an action of its own, unless the run is given a trace id."""
    world = World()
    model = ScriptedModel([call("read", {"path": "a"}, call_id="c")])
    agent = govern(agent_with(model, files.read), world)
    await Runner.run(agent, "go", run_config=RunConfig(tracing_disabled=True))
    model.turns = [[call("read", {"path": "a"}, call_id="c")]]
    await Runner.run(agent, "go", run_config=RunConfig(tracing_disabled=True))
    assert world.outcomes == ["succeeded", "succeeded"]
    for _ in range(2):
        model.turns = [[call("read", {"path": "a"}, call_id="c")]]
        await Runner.run(agent, "go", run_config=RunConfig(tracing_disabled=True, trace_id="trace_mine"))
    assert len(world.entries) == 3
    assert world.entries[2]["context"]["run"] == "trace_mine"


async def test_who_acts_is_recorded(files: Files) -> None:
    """The trace, the agent and the end user reach the log."""
    world, model = World(), ScriptedModel([call("read", {"path": "a"})])
    agent = govern(agent_with(model, files.read), world, on_behalf_of=lambda context: context.context["user"])
    await Runner.run(agent, "go", context={"user": "mia"}, run_config=RunConfig(group_id="thread-7"))
    entry = world.entries[0]
    assert entry["on_behalf_of"] == "mia"
    assert entry["context"]["agent"] == "main"
    assert entry["context"]["group_id"] == "thread-7"
    assert entry["context"]["trace_id"].startswith("trace_")


async def test_a_tool_can_ask_for_the_id_of_its_action() -> None:
    """Plain and coroutine functions read the action's id, as their idempotency key; outside a tool there is none."""

    @function_tool
    def plain() -> str:
        """Say the id."""
        return str(current_action_id())

    @function_tool
    async def coroutine() -> str:
        """Say the id."""
        return str(current_action_id())

    world, model = World(), ScriptedModel([call("plain"), call("coroutine")])
    await Runner.run(govern(agent_with(model, plain, coroutine), world), "go")
    assert dict(zip(["tool.plain", "tool.coroutine"], model.shown, strict=True)) == {
        entry["type"]: entry["id"] for entry in world.entries
    }
    assert current_action_id() is None


# --- approvals of the SDK's own -------------------------------------------------------------------------------------


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


# --- what the SDK looks for on a tool -------------------------------------------------------------------------------


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


# --- a denial as the final answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("behavior", ["stop_on_first_tool", {"stop_at_tool_names": ["read"]}])
async def test_an_agent_that_stops_at_a_tool_stops_at_its_denial_too(files: Files, behavior: Any) -> None:
    """The SDK treats a rejected call as the tool's result, so the denial becomes the final output."""
    model = ScriptedModel([call("read", {"path": "a"})])
    agent = govern(agent_with(model, files.read, tool_use_behavior=behavior), World("tool.read"))
    result = await Runner.run(agent, "go")
    assert is_denial(result.final_output)
    assert files.ran == []


# --- tracing --------------------------------------------------------------------------------------------------------


class Spans(TracingProcessor):
    def __init__(self) -> None:
        self.custom: list[dict[str, Any]] = []

    def on_trace_start(self, trace: Any) -> None: ...
    def on_trace_end(self, trace: Any) -> None: ...
    def on_span_start(self, span: Any) -> None: ...
    def shutdown(self) -> None: ...
    def force_flush(self) -> None: ...

    def on_span_end(self, span: Span[Any]) -> None:
        if span.span_data.type == "custom":
            self.custom.append(span.export()["span_data"])  # type: ignore[index]


async def test_a_decision_is_a_span_of_the_trace_without_arguments(files: Files) -> None:
    """The trace shows what was decided and under which action id, and nothing of the arguments."""
    spans = Spans()
    set_trace_processors([spans])
    world, model = (
        World("tool.delete"),
        ScriptedModel([call("read", {"path": "p"}), call("delete", {"path": "p"})]),
    )
    await Runner.run(govern(agent_with(model, files.read, files.delete), world), "go")
    assert sorted((span["data"]["tool"], span["data"]["outcome"]) for span in spans.custom) == [
        ("delete", "denied"),
        ("read", "permitted"),
    ]
    assert {span["name"] for span in spans.custom} == {"agentlattice decision"}
    assert {span["data"]["action_id"] for span in spans.custom} == {"evt-0", "evt-1"}
    assert '"p"' not in json.dumps(spans.custom)


# --- the SDK's own form ---------------------------------------------------------------------------------------------


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


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_approval": "pause"}, "use `wait` or `defer`"),
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
