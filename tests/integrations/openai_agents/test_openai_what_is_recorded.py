"""What the log and the trace hold of a function tool: how the call ended, which call it was, and who made it."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest
from agents import RunConfig, RunHooks, Runner, function_tool
from agents.run_state import RunState
from agents.tracing import Span, TracingProcessor, set_trace_processors
from openai_files import Files, agent_with
from openai_scripted import ScriptedModel, call
from openai_world import World

from agentlattice_integrations.openai_agents import current_action_id, govern

# --- outcomes --------------------------------------------------------------------------------------------------------


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
            await asyncio.sleep(1.5)
            return self.execute_sync(*given, **more)

    @function_tool(timeout=1)
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
    async with asyncio.timeout(60):
        while not world.outcomes:
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


# --- identity --------------------------------------------------------------------------------------------------------


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


# --- tracing ---------------------------------------------------------------------------------------------------------


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
