"""Whole agents: everything an agent can reach is governed, however it got there."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from typing import Any

import pytest
from agents import (
    Agent,
    Handoff,
    HandoffInputData,
    RunConfig,
    RunContextWrapper,
    RunHooks,
    Runner,
    Tool,
    function_tool,
    handoff,
)
from agents.realtime import RealtimeAgent
from agents.run_state import RunState
from openai_scripted import ScriptedModel, call, say
from openai_world import World, is_denial

from agentlattice_core.errors import AgentLatticeDeniedError, InvalidRequestError
from agentlattice_integrations.openai_agents import coverage, govern


class Secrets:
    """A tool that must not run, and whether it did."""

    def __init__(self) -> None:
        self.ran = 0
        secrets = self

        @function_tool
        def secret() -> str:
            """Read the secret."""
            secrets.ran += 1
            return "hunter2"

        @function_tool(needs_approval=True)
        def publish() -> str:
            """Publish the secret."""
            secrets.ran += 1
            return "published"

        self.secret, self.publish = secret, publish


@pytest.fixture
def secrets() -> Secrets:
    return Secrets()


def scripted(*calls: Any) -> ScriptedModel:
    return ScriptedModel(list(calls))


# --- the agent itself -----------------------------------------------------------------------------------------------


async def test_govern_returns_the_agent_it_was_given(secrets: Secrets) -> None:
    """The agent is governed in place: references to it that exist elsewhere are to a governed agent."""
    agent = Agent(name="main", tools=[secrets.secret], model=scripted(call("secret")))
    assert govern(agent, World("tool.secret")) is agent
    assert isinstance(agent, Agent)
    assert type(agent).__name__ == "Agent"
    await Runner.run(agent, "go")
    assert secrets.ran == 0


async def test_a_clone_is_governed(secrets: Secrets) -> None:
    """`clone()` and `dataclasses.replace` give governed agents, also with tools that are new."""
    agent = govern(Agent(name="main", model=ScriptedModel()), World("tool.secret"))
    for clone in (agent.clone(tools=[secrets.secret]), dataclasses.replace(agent, tools=[secrets.secret])):
        clone.model = scripted(call("secret"))
        await Runner.run(clone, "go")
        assert is_denial(clone.model.shown[0])
    assert secrets.ran == 0
    assert agent.tools == []


@pytest.mark.parametrize("how", ["append", "extend", "assign", "slice"])
async def test_tools_added_later_are_governed(secrets: Secrets, how: str) -> None:
    """However a tool gets into the agent after `govern`, it is governed before the model hears of it."""
    agent = govern(Agent(name="main", model=scripted(call("secret"))), World("tool.secret"))
    if how == "append":
        agent.tools.append(secrets.secret)
    elif how == "extend":
        agent.tools.extend([secrets.secret])
    elif how == "assign":
        agent.tools = [secrets.secret]
    else:
        agent.tools[:0] = [secrets.secret]
    await Runner.run(agent, "go")
    assert is_denial(agent.model.shown[0])
    assert secrets.ran == 0
    assert [(tool.name, tool.status) for tool in coverage(agent)] == [("secret", "governed")]


async def test_a_tool_added_while_the_agent_runs_is_governed(secrets: Secrets) -> None:
    """A tool that another tool puts into the agent in the middle of a run is governed in the next turn."""
    agent: Agent[Any]

    @function_tool
    def learn() -> str:
        """Learn."""
        agent.tools.append(secrets.secret)
        return "learned"

    model = ScriptedModel([call("learn")], [call("secret")])
    agent = govern(Agent(name="main", tools=[learn], model=model), World("tool.secret"))
    await Runner.run(agent, "go")
    assert secrets.ran == 0
    assert is_denial(model.shown[1])


async def test_tools_that_a_subclass_makes_up_are_governed(secrets: Secrets) -> None:
    """A subclass that overrides `get_all_tools` gets its tools governed too."""

    class Inventive(Agent[Any]):
        async def get_all_tools(self, run_context: RunContextWrapper[Any]) -> list[Tool]:
            return [*await super().get_all_tools(run_context), secrets.secret]

    agent = govern(Inventive(name="main", model=scripted(call("secret"))), World("tool.secret"))
    assert isinstance(agent, Inventive)
    await Runner.run(agent, "go")
    assert secrets.ran == 0
    assert is_denial(agent.model.shown[0])


async def test_an_agent_that_shares_a_list_of_tools_is_not_touched(secrets: Secrets) -> None:
    """Only the agent that was named is governed; another that was given the same list keeps its tools as they were."""
    world, shared = World("tool.secret"), [secrets.secret]
    other = Agent(name="other", tools=shared, model=scripted(call("secret")))
    govern(Agent(name="main", tools=shared), world)
    await Runner.run(other, "go")
    assert (secrets.ran, world.entries) == (1, [])


def test_governing_twice_is_governing_once(secrets: Secrets) -> None:
    """The same client and settings again change nothing; anything else is an error that says what to do."""
    world = World()
    agent = govern(Agent(name="main", tools=[secrets.secret]), world)
    kind = type(agent)
    assert type(govern(agent, world)) is kind
    with pytest.raises(InvalidRequestError, match="agent `main` is governed already"):
        govern(agent, World())
    with pytest.raises(InvalidRequestError, match="govern each agent once"):
        govern(agent, world, on_approval="defer")


async def test_many_runs_of_one_agent_at_a_time_are_governed(secrets: Secrets) -> None:
    """Concurrent runs share the agent; each call is decided on in its own run."""

    def script(input: Any) -> list[Any]:
        return (
            [say("done")] if isinstance(input, list) and len(input) > 1 else [call("secret"), call("allowed")]
        )

    @function_tool
    async def allowed() -> str:
        """Do."""
        await asyncio.sleep(0.001)
        return "ok"

    world, model = World("tool.secret"), ScriptedModel(*[script] * 40)
    agent = govern(Agent(name="main", tools=[secrets.secret, allowed], model=model), world)
    await asyncio.gather(*(Runner.run(agent, "go") for _ in range(20)))
    assert secrets.ran == 0
    assert (world.types.count("tool.allowed"), world.outcomes.count("succeeded")) == (20, 20)
    assert len({entry["context"]["run"] for entry in world.entries}) == 20


# --- hand-offs ------------------------------------------------------------------------------------------------------


async def test_the_agents_behind_hand_offs_are_governed(secrets: Secrets) -> None:
    """Agents two hand-offs away, and in a circle, are governed; each transfer is a decision."""
    third = Agent(name="third", tools=[secrets.secret], model=scripted(call("secret")))
    second = Agent(name="second", handoffs=[handoff(third)], model=scripted(call("transfer_to_third")))
    first = Agent(name="first", handoffs=[second], model=scripted(call("transfer_to_second")))
    third.handoffs = [first]
    world = World("tool.secret")
    result = await Runner.run(govern(first, world), "go")
    assert result.last_agent is third
    assert world.types == ["tool.transfer_to_second", "tool.transfer_to_third", "tool.secret"]
    assert secrets.ran == 0
    assert is_denial(third.model.shown[-1])


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_denied_hand_off_stays_with_the_agent_and_says_why(streamed: bool) -> None:
    """The asking agent goes on, and reads the denial as the answer to its transfer."""
    target = Agent(name="target", model=ScriptedModel())
    agent = Agent(name="asker", handoffs=[target], model=scripted(call("transfer_to_target")))
    govern(agent, World("tool.transfer_to_target"))
    if streamed:
        run = Runner.run_streamed(agent, "go")
        async for _ in run.stream_events():
            pass
        last: Any = run.last_agent
    else:
        last = (await Runner.run(agent, "go")).last_agent
    assert last is agent
    assert is_denial(agent.model.shown[0])
    assert target.model.inputs == []


async def test_a_denied_hand_off_of_a_clone_stays_with_the_clone() -> None:
    """A clone shares its hand-offs with the original; a denial goes back to the one that asked."""
    target = Agent(name="target", model=ScriptedModel())
    original = govern(Agent(name="original", handoffs=[target]), World("tool.transfer_to_target"))
    clone = original.clone(name="clone", model=scripted(call("transfer_to_target")))
    result = await Runner.run(clone, "go")
    assert result.last_agent is clone
    assert is_denial(clone.model.shown[0])


async def test_a_denied_hand_off_ignores_the_filter_made_for_the_other_agent() -> None:
    """An input filter that hides the conversation from the target does not hide the denial from the asker."""

    def forget(data: HandoffInputData) -> HandoffInputData:
        return data.clone(input_history=(), pre_handoff_items=(), new_items=())

    target = Agent(name="target", model=ScriptedModel())
    world = World("tool.transfer_to_target")
    agent = Agent(
        name="asker",
        handoffs=[handoff(target, input_filter=forget)],
        model=scripted(call("transfer_to_target")),
    )
    await Runner.run(govern(agent, world), "go")
    assert is_denial(agent.model.shown[0])
    world.deny.clear()
    agent.model.turns = [[call("transfer_to_target")]]
    await Runner.run(agent, "go")
    assert target.model.inputs == [[]]


async def test_hand_offs_denied_at_the_same_time_keep_their_own_answers() -> None:
    """Concurrent runs over one hand-off object: one denied, one transferring, each with its own message."""

    class Alternating(World):
        def execute_sync(self, action_type: str, options: Any = None, **more: Any) -> Any:
            self.deny = {action_type} if len(self.entries) % 2 else set()
            return super().execute_sync(action_type, options, **more)

        async def execute(self, *given: Any, **more: Any) -> Any:
            answer = self.execute_sync(*given, **more)
            await asyncio.sleep(0.01)
            return answer

    target = Agent(name="target", model=ScriptedModel())
    agent = Agent(name="asker", handoffs=[target])
    govern(agent, Alternating())
    clones = [agent.clone(model=scripted(call("transfer_to_target"))) for _ in range(10)]
    results = await asyncio.gather(*(Runner.run(clone, "go") for clone in clones))
    for number, (clone, result) in enumerate(zip(clones, results, strict=True)):
        if number % 2:
            assert result.last_agent is clone
            assert is_denial(clone.model.shown[0])
        else:
            assert result.last_agent is target


async def test_hand_offs_added_later_are_governed(secrets: Secrets) -> None:
    """An agent put into `handoffs` after `govern` is governed, and so is the transfer to it."""
    late = Agent(name="late", tools=[secrets.secret], model=scripted(call("secret")))
    world = World("tool.secret")
    agent = govern(Agent(name="main", model=scripted(call("transfer_to_late"))), world)
    agent.handoffs.append(late)
    await Runner.run(agent, "go")
    assert world.types == ["tool.transfer_to_late", "tool.secret"]
    assert secrets.ran == 0


async def test_an_agent_that_a_custom_hand_off_picks_is_governed(secrets: Secrets) -> None:
    """A hand-off that decides at run time where it leads leads to a governed agent."""
    hidden = Agent(name="hidden", tools=[secrets.secret], model=scripted(call("secret")))

    async def pick(context: RunContextWrapper[Any], arguments: str) -> Agent[Any]:
        return hidden

    custom: Handoff[Any, Any] = Handoff("route", "Route.", {}, pick, "somebody")
    world = World("tool.secret")
    await Runner.run(
        govern(Agent(name="main", handoffs=[custom], model=scripted(call("route"))), world), "go"
    )
    assert world.types == ["tool.route", "tool.secret"]
    assert secrets.ran == 0


async def test_a_hand_off_governed_by_itself_ends_the_run_when_denied() -> None:
    """Without a governed agent to stay with, a denied transfer cannot be answered: the run ends."""
    target = Agent(name="target", model=ScriptedModel())
    alone = govern(handoff(target), World("tool.transfer_to_target"))
    agent = Agent(name="asker", handoffs=[alone], model=scripted(call("transfer_to_target")))
    with pytest.raises(AgentLatticeDeniedError, match="govern the agent"):
        await Runner.run(agent, "go")
    assert target.model.inputs == []


async def test_what_a_hand_off_does_on_the_way_waits_for_the_decision() -> None:
    """`on_handoff` and the input it carries are the hand-off's effect: denied, it is not called."""
    said: list[str] = []

    async def on_handoff(context: RunContextWrapper[Any]) -> None:
        said.append("handed over")

    target = Agent(name="target", model=ScriptedModel())
    world = World("tool.transfer_to_target")
    agent = Agent(
        name="asker",
        handoffs=[handoff(target, on_handoff=on_handoff)],
        model=ScriptedModel([call("transfer_to_target")]),
    )
    await Runner.run(govern(agent, world), "go")
    assert said == []
    world.deny.clear()
    agent.model.turns = [[call("transfer_to_target")]]
    await Runner.run(agent, "go")
    assert said == ["handed over"]
    assert world.outcomes == [None, "succeeded"]


# --- agents as tools ------------------------------------------------------------------------------------------------


async def test_the_runs_inside_agents_as_tools_are_governed(secrets: Secrets) -> None:
    """Two levels down, where run hooks do not reach, each call is decided on, under the name of the outer call."""
    innermost = Agent(name="innermost", tools=[secrets.secret], model=scripted(call("secret")))
    inner = Agent(
        name="inner",
        tools=[innermost.as_tool("ask_innermost", "Ask.")],
        model=scripted(call("ask_innermost", {"input": "x"})),
    )
    outer = Agent(
        name="outer",
        tools=[inner.as_tool("ask_inner", "Ask.")],
        model=scripted(call("ask_inner", {"input": "x"})),
    )
    seen: list[str] = []

    class Hooks(RunHooks[Any]):
        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            seen.append(tool.name)

    world = World("tool.secret")
    await Runner.run(govern(outer, world), "go", hooks=Hooks())
    assert seen == ["ask_inner"]
    assert world.types == ["tool.ask_inner", "tool.ask_innermost", "tool.secret"]
    assert world.outcomes == ["succeeded", "succeeded", None]
    assert secrets.ran == 0
    assert is_denial(innermost.model.shown[0])


async def test_a_denied_agent_as_tool_starts_no_run(secrets: Secrets) -> None:
    """Denied as a tool, the inner agent's model is never asked."""
    inner = Agent(name="inner", tools=[secrets.secret], model=ScriptedModel())
    outer = Agent(
        name="outer", tools=[inner.as_tool("ask", "Ask.")], model=scripted(call("ask", {"input": "x"}))
    )
    await Runner.run(govern(outer, World("tool.ask")), "go")
    assert is_denial(outer.model.shown[0])
    assert inner.model.inputs == []


async def test_a_governed_agent_made_a_tool_afterwards_is_governed_inside(secrets: Secrets) -> None:
    """`as_tool()` of a governed agent, given to an agent that nobody governs, still governs the inner run."""
    inner = govern(
        Agent(name="inner", tools=[secrets.secret], model=scripted(call("secret"))), World("tool.secret")
    )
    outer = Agent(
        name="outer", tools=[inner.as_tool("ask", "Ask.")], model=scripted(call("ask", {"input": "x"}))
    )
    await Runner.run(outer, "go")
    assert secrets.ran == 0


async def test_an_approval_asked_for_inside_an_agent_tool_continues_under_the_same_permit(
    secrets: Secrets,
) -> None:
    """The SDK's pause inside an agent tool surfaces on the outer run; continued here, nothing is decided on twice."""
    inner = Agent(name="inner", tools=[secrets.publish], model=scripted(call("publish")))
    outer = Agent(
        name="outer", tools=[inner.as_tool("ask", "Ask.")], model=scripted(call("ask", {"input": "x"}))
    )
    world = World()
    result = await Runner.run(govern(outer, world), "go")
    assert (world.types, world.outcomes) == (["tool.ask"], [None])
    state = result.to_state()
    state.approve(state.get_interruptions()[0])
    await Runner.run(outer, state)
    assert (world.types, world.outcomes) == (["tool.ask", "tool.publish"], ["succeeded", "succeeded"])
    assert secrets.ran == 1


async def test_an_agent_tool_continued_elsewhere_is_decided_on_again_and_its_tools_run_once(
    secrets: Secrets,
) -> None:
    """Another process has the state and not the permit: the agent tool is decided on again, its inner call once."""

    def build() -> Agent[Any]:
        inner = Agent(name="inner", tools=[secrets.publish], model=ScriptedModel())
        return Agent(name="outer", tools=[inner.as_tool("ask", "Ask.")], model=ScriptedModel())

    world, first = World(), build()
    first.model = scripted(call("ask", {"input": "x"}))
    first.tools[0]._agent_instance.model = scripted(call("publish"))  # type: ignore[union-attr]
    saved = (await Runner.run(govern(first, world), "go")).to_state().to_string()
    for _ in range(2):
        elsewhere = govern(build(), world)
        state = await RunState.from_string(elsewhere, saved)
        state.approve(state.get_interruptions()[0])
        await Runner.run(elsewhere, state)
    assert secrets.ran == 1
    assert world.types == ["tool.ask", "tool.ask", "tool.publish", "tool.ask"]


async def test_run_level_settings_reach_inner_runs_as_before(secrets: Secrets) -> None:
    """A run with tracing off is governed on every level."""
    inner = Agent(name="inner", tools=[secrets.secret], model=scripted(call("secret")))
    outer = Agent(
        name="outer", tools=[inner.as_tool("ask", "Ask.")], model=scripted(call("ask", {"input": "x"}))
    )
    world = World("tool.secret")
    await Runner.run(govern(outer, world), "go", run_config=RunConfig(tracing_disabled=True))
    assert (world.types, secrets.ran) == (["tool.ask", "tool.secret"], 0)


# --- coverage -------------------------------------------------------------------------------------------------------


def test_the_report_lists_everything_the_agent_reaches(secrets: Secrets) -> None:
    """Tools, hand-offs and inner agents are listed with their owner and action type."""
    inner = Agent(name="inner", tools=[secrets.secret])
    target = Agent(name="target", tools=[secrets.publish])
    agent = Agent(name="main", tools=[inner.as_tool("ask", "Ask.")], handoffs=[target])
    reports: list[Any] = []
    govern(agent, World(), report=reports.append)
    assert {(tool.owner, tool.name, tool.kind, tool.status, tool.action_type) for tool in reports[0]} == {
        ("main", "ask", "agent", "governed", "tool.ask"),
        ("inner", "secret", "function", "governed", "tool.secret"),
        ("main", "transfer_to_target", "handoff", "governed", "tool.transfer_to_target"),
        ("target", "publish", "function", "governed", "tool.publish"),
    }


def test_a_prompt_stored_at_the_provider_is_reported() -> None:
    """A stored prompt may bring tools of its own; the report says that nobody can govern them."""
    agent = govern(Agent(name="main", prompt={"id": "pmpt_1"}), World())
    assert [(tool.name, tool.status) for tool in coverage(agent)] == [("prompt", "not_coverable")]


def test_what_nobody_governs_is_reported_as_such(secrets: Secrets) -> None:
    """`coverage` of an ungoverned agent or tool says so."""
    agent = Agent(name="main", tools=[secrets.secret])
    assert [(tool.name, tool.status) for tool in coverage(agent)] == [("secret", "not_coverable")]
    assert [(tool.name, tool.status) for tool in coverage(secrets.secret)] == [("secret", "not_coverable")]


# --- realtime -------------------------------------------------------------------------------------------------------


async def test_a_realtime_agent_offers_governed_tools_and_hand_offs(secrets: Secrets) -> None:
    """Realtime agents are governed the same way: their tools, and the agents they hand over to."""
    other = RealtimeAgent(name="other", tools=[secrets.secret])
    world = World("tool.secret", "tool.transfer_to_other")
    agent = govern(RealtimeAgent(name="voice", tools=[secrets.secret], handoffs=[other]), world)
    context: RunContextWrapper[Any] = RunContextWrapper(context=None)
    for offered in (await agent.get_all_tools(context), await other.get_all_tools(context)):
        assert is_denial(await offered[0].on_invoke_tool(context, "{}"))  # type: ignore[union-attr]
    await agent.get_all_tools(context)
    transfer = agent.handoffs[0]
    assert isinstance(transfer, Handoff)
    assert await transfer.on_invoke_handoff(context, "{}") is agent
    assert is_denial(transfer.get_transfer_message(agent))
    assert secrets.ran == 0


async def test_a_hand_off_to_an_agent_that_is_governed_already_is_decided_on() -> None:
    """Agents that hand over to each other, and agents governed before: the transfer is asked about all the same."""
    world = World("tool.transfer_to_first", "tool.transfer_to_third")
    third = govern(Agent(name="third", model=ScriptedModel()), world)
    first = Agent(name="first", model=ScriptedModel([call("transfer_to_second")]))
    model = ScriptedModel([call("transfer_to_first")], [call("transfer_to_third")])
    second = Agent(name="second", handoffs=[first, third], model=model)
    first.handoffs = [second]
    result = await Runner.run(govern(first, world), "go")
    assert result.last_agent is second
    assert (world.types, world.statuses) == (
        ["tool.transfer_to_second", "tool.transfer_to_first", "tool.transfer_to_third"],
        ["executed", "denied", "denied"],
    )


async def test_hand_offs_assigned_as_another_collection_are_governed(secrets: Secrets) -> None:
    """The SDK takes any collection that is assigned later, and so does the gate: the agent behind it is governed."""
    world = World("tool.secret")
    triage = govern(Agent(name="triage", model=scripted(call("transfer_to_specialist"))), world)
    specialist = Agent(name="specialist", model=scripted(call("secret")), tools=[secrets.secret])
    triage.handoffs = (specialist,)  # type: ignore[assignment]
    await Runner.run(triage, "go")
    assert secrets.ran == 0
    assert world.types == ["tool.transfer_to_specialist", "tool.secret"]


async def test_what_a_hand_off_does_may_be_replaced_and_stays_governed(secrets: Secrets) -> None:
    """A hand-off that leads elsewhere than when it was governed is decided on, and so is the agent it leads to now."""
    world = World("tool.secret")
    first = Agent(name="specialist")
    triage = govern(
        Agent(name="triage", model=scripted(call("transfer_to_specialist")), handoffs=[first]), world
    )
    other = Agent(name="other", model=scripted(call("secret")), tools=[secrets.secret])

    async def elsewhere(context: Any, arguments: str) -> Any:
        return other

    (item,) = triage.handoffs
    assert isinstance(item, Handoff)
    item.on_invoke_handoff = elsewhere
    await Runner.run(triage, "go")
    assert secrets.ran == 0
    assert world.types == ["tool.transfer_to_specialist", "tool.secret"]


@pytest.mark.parametrize("denied", [True, False])
async def test_a_deep_copy_of_an_agent_is_governed(secrets: Secrets, denied: bool) -> None:
    """`copy.deepcopy` works as it does on the agent itself; tools and hand-offs of the copy are decided on once each,
    and a denied hand-off says why.
    """
    world = World("tool.secret", *["tool.transfer_to_other"] * denied)
    model = ScriptedModel([call("secret")], [call("transfer_to_other")])
    other = Agent(name="other", model=scripted())
    agent = govern(Agent(name="agent", tools=[secrets.secret], handoffs=[other]), world)
    copied = copy.deepcopy(agent)
    copied.model = model
    result = await Runner.run(copied, "go")
    assert secrets.ran == 0
    assert world.types == ["tool.secret", "tool.transfer_to_other"]
    assert is_denial(model.shown[0])
    assert result.last_agent.name == ("agent" if denied else "other")
    if denied:
        assert is_denial(model.shown[1])


async def test_a_copied_hand_off_says_why_it_was_denied() -> None:
    """What the model reads of a denied hand-off is the denial, also where the application holds a copy of it."""
    world = World("tool.transfer_to_other")
    model = scripted(call("transfer_to_other"))
    agent = govern(Agent(name="agent", model=model, handoffs=[Agent(name="other")]), world)
    agent.handoffs = [copy.copy(item) for item in agent.handoffs]
    await Runner.run(agent, "go")
    assert is_denial(model.shown[-1])
