"""A run that pauses for a person: in one process, streamed, handed off, over MCP, and when things go wrong."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner, RunState, function_tool, trace
from agents.mcp import MCPServerStdio
from agents.tracing import set_tracing_disabled
from openai_pauses import (
    COUNTS,
    DECISIONS,
    POLICIES,
    REASONS,
    Pauses,
    called,
    calls,
    reason_in,
    shown_by_call,
    version_of,
)
from openai_scripted import ScriptedModel, call

from agentlattice_core.errors import ForbiddenError, InvalidRequestError
from agentlattice_core.testing import ManualClock
from agentlattice_integrations.openai_agents import (
    apply_decisions,
    govern,
    governance_guardrail,
)

Make = Callable[..., Pauses]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def pauses(tmp_path: Path, clock: ManualClock) -> Iterator[Pauses]:
    opened = Pauses(tmp_path, clock=clock)
    yield opened
    opened.close()


# --- the matrix in one process ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["deploy", "shell", "apply_patch", "note"])
@pytest.mark.parametrize("saved", [False, True], ids=["the state", "the saved state"])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("decision", DECISIONS)
async def test_each_call_gets_its_own_answer(
    pauses: Pauses, clock: ManualClock, count: int, decision: str, saved: bool, tool: str
) -> None:
    """Each tool runs as often as it was approved, every answer reaches its own call, the log tells the same story."""
    agent = pauses.agent(calls(tool, count))
    state = await pauses.pause(agent)
    assert [called(item) for item in state.get_interruptions()] == [
        f"call_{number}" for number in range(count)
    ]
    assert pauses.ran() == []
    pauses.decide(decision)
    if decision == "t":
        clock.advance(hours=1)
    if saved:
        agent = pauses.agent()
    resumed = await pauses.resume(agent, None if saved else state)
    letters = {number: decision[number % len(decision)] for number in range(count)}
    assert pauses.ran() == [f"deployed {number}" for number, letter in letters.items() if letter == "a"]
    left = [f"call_{number}" for number, letter in letters.items() if letter == "l"]
    assert resumed.interruptions == left
    assert [one.call_id for one in resumed.waiting] == left
    for number, letter in letters.items():
        if letter != "l":
            assert resumed.said(f"call_{number}") == REASONS.get(letter, f"deployed {number}")
    if not left:
        assert resumed.final == "done"
    story = {version_of(event.metadata): (event.claim, event.denial_reason) for event in pauses.log()}
    assert story == {
        str(number): ("succeeded" if letter == "a" else None, REASONS.get(letter))
        for number, letter in letters.items()
    }


async def test_equal_calls_have_requests_of_their_own(pauses: Pauses) -> None:
    """Two equal calls in one turn are two requests: one approval lets one of them run, and it is that one."""
    turn = [call("deploy", {"version": "1"}, call_id=name) for name in ("first", "second")]
    agent = pauses.agent(turn)
    state = await pauses.pause(agent)
    assert len(pauses.reviewer.list_pending_approvals_sync()) == 2
    waiting = {one.call_id: one for one in await apply_decisions(state)}
    assert waiting["second"].approval_id is not None
    pauses.reviewer.approve_action_sync(waiting["second"].approval_id)
    resumed = await pauses.resume(agent)
    assert (resumed.shown["second"], resumed.interruptions) == ("deployed 1", ["first"])
    assert pauses.ran() == ["deployed 1"]


async def test_a_call_that_waits_in_vain_does_not_take_an_equal_ones_answer(pauses: Pauses) -> None:
    """The application lets an undecided call go on: it is not run, and the equal call that was approved is."""
    turn = [call("deploy", {"version": "1"}, call_id=name) for name in ("first", "second")]
    agent = pauses.agent(turn, approval_timeout=0)
    state = await pauses.pause(agent)
    waiting = {one.call_id: one for one in await apply_decisions(state)}
    state.approve(waiting["first"].item)
    between = await Runner.run(agent, state)
    assert reason_in(shown_by_call(between)["first"]) == "APPROVAL_PENDING"
    assert waiting["second"].approval_id is not None
    pauses.reviewer.approve_action_sync(waiting["second"].approval_id)
    resumed = await pauses.resume(agent, between.to_state())
    assert resumed.said("second") == "deployed 1"
    assert pauses.ran() == ["deployed 1"]


async def test_what_needs_nobody_runs_beside_what_waits(pauses: Pauses) -> None:
    """An allowed call runs before the pause, a denied one reads its denial, and neither is decided on twice."""
    turn = [
        *calls("deploy", 1),
        call("free", {"version": "2"}, call_id="free"),
        call("forbidden", {"version": "3"}, call_id="forbidden"),
    ]
    agent = pauses.agent(turn)
    await pauses.pause(agent)
    assert pauses.ran() == ["said 2"]
    pauses.decide("a")
    resumed = await pauses.resume(agent)
    assert resumed.said("forbidden") == "POLICY_DENIED"
    assert pauses.ran() == ["deployed 0", "said 2"]
    assert [(event.action_type, event.claim) for event in pauses.log()] == [
        ("tool.deploy", "succeeded"),
        ("tool.free", "succeeded"),
        ("tool.forbidden", None),
    ]


# --- what happens in between -----------------------------------------------------------------------------------------


async def test_a_state_that_is_resumed_undecided_pauses_again(pauses: Pauses) -> None:
    """Nothing runs, nothing is asked twice, and the next resume can still go on."""
    agent = pauses.agent(calls("deploy", 2))
    await pauses.pause(agent)
    again = await pauses.resume(agent)
    assert again.interruptions == ["call_0", "call_1"]
    assert len(pauses.log("tool.deploy")) == 2
    pauses.decide("a")
    assert (await pauses.resume(agent)).final == "done"
    assert pauses.ran() == ["deployed 0", "deployed 1"]


@pytest.mark.parametrize("together", [False, True])
async def test_a_resume_done_twice_runs_the_tool_once(pauses: Pauses, together: bool) -> None:
    """One after the other or at once: the tool runs once, and whoever comes second is told that it ran."""
    first, second = pauses.agent(calls("deploy", 1)), pauses.agent()
    await pauses.pause(first)
    pauses.decide("a")
    if together:
        both = await asyncio.gather(pauses.resume(first), pauses.resume(second))
    else:
        both = [await pauses.resume(first), await pauses.resume(second)]
    assert pauses.ran() == ["deployed 0"]
    said = sorted(resumed.said("call_0") for resumed in both)
    assert said[1] == "deployed 0"
    assert said[0] in ("ALREADY_RAN", "OUTCOME_UNKNOWN")


async def test_a_decision_may_come_before_the_state_is_saved(pauses: Pauses) -> None:
    """The request is there before the run has paused, so a quick reviewer answers while the other tool still runs."""

    @function_tool
    async def free(version: str) -> str:
        """Take long enough for somebody to decide."""
        while not pauses.requests():
            await asyncio.sleep(0.01)
        pauses.decide("a")
        return "late"

    turn = [*calls("deploy", 1), call("free", {"version": "1"}, call_id="free")]
    tools = [pauses.tools()[0], free]
    agent = govern(Agent(name="main", tools=tools, model=ScriptedModel(turn)), pauses.al, on_approval="pause")
    state = await pauses.pause(agent)
    assert [item.raw_item.call_id for item in state.get_interruptions()] == ["call_0"]
    resumed = await pauses.resume(agent)
    assert (resumed.final, pauses.ran()) == ("done", ["deployed 0"])


@pytest.mark.parametrize(("effect", "ran"), [("deny", []), ("allow", ["deployed 0"])])
async def test_policy_may_change_while_a_run_is_paused(pauses: Pauses, effect: str, ran: list[str]) -> None:
    """The whole decision is made again when the approved call is claimed: what is denied by then does not run."""
    agent = pauses.agent(calls("deploy", 1))
    await pauses.pause(agent)
    pauses.decide("a")
    changed = pauses.directory / "policies.yaml"
    changed.write_text(
        POLICIES.replace(
            "action: tool.deploy, effect: require_approval", f"action: tool.deploy, effect: {effect}"
        )
    )
    pauses.al.apply_policies_sync(changed)
    resumed = await pauses.resume(agent)
    assert pauses.ran() == ran
    assert resumed.said("call_0") == ("deployed 0" if ran else "POLICY_DENIED")


async def test_observing_never_pauses(tmp_path: Path) -> None:
    """In observe mode everything runs at once, and the log says what enforcement would have asked."""
    pauses = Pauses(tmp_path, mode="observe")
    agent = pauses.agent(calls("deploy", 2))
    result = await Runner.run(agent, "go")
    assert (result.interruptions, pauses.ran()) == ([], ["deployed 0", "deployed 1"])
    assert [(event.status, event.claim) for event in pauses.log()] == [("requested", "succeeded")] * 2
    pauses.close()


async def test_an_unused_approval_lapses(pauses: Pauses, clock: ManualClock) -> None:
    """A run that is resumed more than a day after the approval asks nobody and runs nothing."""
    agent = pauses.agent(calls("deploy", 1))
    await pauses.pause(agent)
    pauses.decide("a")
    clock.advance(hours=25)
    resumed = await pauses.resume(agent)
    assert (resumed.said("call_0"), pauses.ran()) == ("approval_timeout", [])


@pytest.mark.parametrize("inside", [False, True], ids=["a tool", "inside an agent that is a tool"])
async def test_a_run_goes_on_in_another_trace(pauses: Pauses, inside: bool) -> None:
    """A process that resumes inside a trace of its own still finds the calls: they go by the trace they began in."""
    agent = (pauses.with_agent_tool if inside else pauses.agent)(calls("deploy", 1))
    with trace("asking"):
        await pauses.pause(agent)
    pauses.decide("a")
    with trace("answering"):
        resumed = await pauses.resume(agent)
    assert (resumed.final, pauses.ran(), len(pauses.log())) == ("done", ["deployed 0"], 1 + inside)


async def test_a_hook_that_changes_approved_arguments_runs_nothing(pauses: Pauses) -> None:
    """An edit after the approval is a new call, which policy decides on; nobody approved it, so it does not run."""
    from agents import RunHooks

    class Edit(RunHooks[Any]):
        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            context.tool_call.arguments = json.dumps({"version": "6.6.6"})

    agent = pauses.agent(calls("deploy", 1), approval_timeout=0)
    await pauses.pause(agent)
    pauses.decide("a")
    state = await pauses.load(agent)
    assert await apply_decisions(state) == []
    result = await Runner.run(agent, state, hooks=Edit())
    output = next(item.output for item in result.new_items if item.type == "tool_call_output_item")
    assert (reason_in(output), pauses.ran()) == ("APPROVAL_PENDING", [])
    assert [event.claim for event in pauses.log()] == ["unknown", None]


# --- decisions in the application ------------------------------------------------------------------------------------


async def test_an_approval_in_the_state_does_not_count_by_itself(pauses: Pauses) -> None:
    """`state.approve(...)` names nobody: the call stays undecided, and a run that goes on anyway runs nothing."""
    agent = pauses.agent(calls("deploy", 1), approval_timeout=0)
    state = await pauses.pause(agent)
    state.approve(state.get_interruptions()[0], always_approve=True)
    resumed = await pauses.resume(agent, state)
    assert [one.call_id for one in resumed.waiting] == ["call_0"]
    assert (resumed.said("call_0"), pauses.ran()) == ("APPROVAL_PENDING", [])


async def test_an_approval_in_the_state_is_the_operators_where_one_is_named(pauses: Pauses) -> None:
    """With `operator` the application's approval and rejection are that person's, in the log and by the rules."""
    agent = pauses.agent(calls("deploy", 2))
    state = await pauses.pause(agent)
    first, second = state.get_interruptions()
    state.approve(first)
    state.reject(second, rejection_message="not now")
    resumed = await pauses.resume(agent, state, operator=pauses.reviewer)
    assert (resumed.shown, pauses.ran()) == ({"call_0": "deployed 0", "call_1": "not now"}, ["deployed 0"])
    approved, denied = pauses.log()
    assert (approved.approved_by, denied.denial_reason) == ("rita", "DENIED_BY_REVIEWER")


async def test_an_agent_cannot_be_its_own_operator(pauses: Pauses) -> None:
    """The agent's own name does not approve what the agent asked for."""
    agent = pauses.agent(calls("deploy", 1))
    state = await pauses.pause(agent)
    state.approve(state.get_interruptions()[0])
    with pytest.raises(ForbiddenError):
        await apply_decisions(state, operator=pauses.al.for_operator("deployer"))
    assert len(pauses.requests()) == 1


async def test_a_rejection_in_the_state_takes_the_request_back(pauses: Pauses) -> None:
    """Nobody is left deciding in vain: without an operator the request is cancelled, with the reason."""
    agent = pauses.agent(calls("deploy", 1))
    state = await pauses.pause(agent)
    state.reject(state.get_interruptions()[0], rejection_message="no")
    resumed = await pauses.resume(agent, state)
    assert (resumed.shown["call_0"], pauses.ran(), pauses.requests()) == ("no", [], {})
    assert [event.denial_reason for event in pauses.log()] == ["APPROVAL_CANCELLED"]


async def test_the_tools_own_question_is_the_applications(pauses: Pauses) -> None:
    """What only the tool's `needs_approval` asks stays with the application; policy decides once it has agreed."""
    agent = pauses.agent(calls("own", 1))
    state = await pauses.pause(agent)
    (waiting,) = await apply_decisions(state)
    assert (waiting.call_id, waiting.approval_id, pauses.log()) == ("call_0", None, [])
    state.approve(state.get_interruptions()[0])
    resumed = await pauses.resume(agent, state)
    assert (resumed.waiting, resumed.final, pauses.ran()) == ([], "done", ["owned 0"])


# --- where calls come from -------------------------------------------------------------------------------------------


async def test_a_streamed_run_pauses_and_goes_on(pauses: Pauses) -> None:
    """Streamed before and after the pause, with the same answers."""
    agent = pauses.agent(calls("deploy", 2))
    run = Runner.run_streamed(agent, "go")
    async for _ in run.stream_events():
        pass
    pauses.saved.write_text(run.to_state().to_string())
    pauses.decide("ad")
    state = await pauses.load(agent)
    assert await apply_decisions(state) == []
    run = Runner.run_streamed(agent, state)
    async for _ in run.stream_events():
        pass
    assert (run.final_output, pauses.ran()) == ("done", ["deployed 0"])


async def test_a_run_pauses_after_a_hand_off(pauses: Pauses) -> None:
    """The agent that took over asks; its call is found again although the state is loaded with the first agent."""
    second = Agent(name="second", tools=pauses.tools(), model=ScriptedModel(calls("deploy", 1)))
    first = Agent(name="first", handoffs=[second], model=ScriptedModel([call("transfer_to_second")]))
    agent = govern(first, pauses.al, on_approval="pause")
    await pauses.pause(agent)
    pauses.decide("a")
    resumed = await pauses.resume(agent)
    assert (resumed.final, pauses.ran()) == ("done", ["deployed 0"])


@pytest.mark.parametrize("saved", [False, True], ids=["the state", "the saved state"])
async def test_an_agent_that_is_a_tool_pauses_inside(pauses: Pauses, saved: bool) -> None:
    """The inner call surfaces on the outer run, gets its own answer, and the outer call keeps its one claim."""
    agent = pauses.with_agent_tool(calls("deploy", 2))
    state = await pauses.pause(agent)
    pauses.decide("ad")
    resumed = await pauses.resume(agent, None if saved else state)
    assert (resumed.final, pauses.ran()) == ("done", ["deployed 0"])
    assert [(event.action_type, event.claim) for event in pauses.log()] == [
        ("tool.ask", "succeeded"),
        ("tool.deploy", "succeeded"),
        ("tool.deploy", None),
    ]
    again = await pauses.resume(agent)
    assert (again.interruptions, pauses.ran()) == ([], ["deployed 0"])


async def test_an_agent_that_is_a_tool_can_itself_need_a_person(tmp_path: Path) -> None:
    """First the call of the agent is asked about, then what it calls; each runs once."""
    pauses = Pauses(
        tmp_path, policies=POLICIES.replace("tool.ask, effect: allow", "tool.ask, effect: require_approval")
    )
    agent = pauses.with_agent_tool(calls("deploy", 1))
    state = await pauses.pause(agent)
    (outer,) = await apply_decisions(state)
    assert outer.approval_id is not None
    pauses.reviewer.approve_action_sync(outer.approval_id)
    state = await pauses.load(agent)
    assert await apply_decisions(state) == []
    result = await Runner.run(agent, state)
    pauses.saved.write_text(result.to_state().to_string())
    pauses.decide("a")
    resumed = await pauses.resume(agent)
    assert (resumed.final, pauses.ran()) == ("done", ["deployed 0"])
    assert [event.claim for event in pauses.log()] == ["succeeded", "succeeded"]
    pauses.close()


async def test_a_tool_of_a_server_pauses(tmp_path: Path) -> None:
    """A real MCP server: nothing reaches it before the approval, and once after it."""
    pauses = Pauses(
        tmp_path, policies=POLICIES.replace("tool.free, effect: allow", "tool.free, effect: require_approval")
    )
    params: Any = {
        "command": sys.executable,
        "args": ["-m", "agentlattice_integrations.contract.mcp_server", str(tmp_path / "served")],
    }
    async with MCPServerStdio(params=params, client_session_timeout_seconds=30) as server:
        model = ScriptedModel([call("free", {"text": "hello"}, call_id="call_0")])
        agent = govern(Agent(name="main", mcp_servers=[server], model=model), pauses.al, on_approval="pause")
        await pauses.pause(agent)
        assert not (tmp_path / "served").exists()
        (request,) = pauses.reviewer.list_pending_approvals_sync()
        pauses.reviewer.approve_action_sync(request.id)
        resumed = await pauses.resume(agent)
    assert resumed.final == "done"
    assert (tmp_path / "served").read_text().splitlines() == [json.dumps(["free", {"text": "hello"}])]
    pauses.close()


async def test_governed_tools_of_an_agent_that_is_not_pause(pauses: Pauses) -> None:
    """Tools that were governed one by one pause the run of whatever agent holds them."""
    tools = govern(pauses.tools(), pauses.al, on_approval="pause")
    agent = Agent(name="main", tools=tools, model=ScriptedModel(calls("deploy", 1)))
    await pauses.pause(agent)
    pauses.decide("a")
    assert (await pauses.resume(agent)).final == "done"
    assert pauses.ran() == ["deployed 0"]


# --- where a run cannot pause ----------------------------------------------------------------------------------------


async def test_a_run_without_a_trace_waits(pauses: Pauses) -> None:
    """Without a trace id a call cannot be found again, so the run waits for the person and does not pause."""
    set_tracing_disabled(True)
    agent = pauses.agent(calls("deploy", 1))
    running = asyncio.ensure_future(Runner.run(agent, "go", run_config=RunConfig(tracing_disabled=True)))
    while not await asyncio.to_thread(pauses.requests):
        await asyncio.sleep(0.01)
    await asyncio.to_thread(pauses.decide, "a")
    result = await running
    assert (result.interruptions, result.final_output, pauses.ran()) == ([], "done", ["deployed 0"])


async def test_arguments_that_cannot_be_read_are_refused_after_the_sdks_own_pause(pauses: Pauses) -> None:
    """The SDK pauses by itself where it cannot read the arguments; no person is asked, and the model is told."""
    agent = pauses.agent([call("deploy", '{"version": ', call_id="call_0")])
    await pauses.pause(agent)
    assert pauses.requests() == {}
    resumed = await pauses.resume(agent)
    assert (resumed.waiting, resumed.said("call_0"), pauses.ran()) == ([], "INVALID_ARGUMENTS", [])


def test_a_guardrail_alone_cannot_pause(pauses: Pauses) -> None:
    """It is an error when the guardrail is made, which names what can be used instead."""
    with pytest.raises(InvalidRequestError, match="use `govern`, `wait` or `defer`"):
        governance_guardrail(pauses.al, on_approval="pause")


async def test_arguments_with_defaults_left_out_do_not_pause_by_themselves(pauses: Pauses) -> None:
    """What policy allows runs without a pause, also where the SDK would ask because it fills in the arguments."""

    @function_tool
    def free(version: str, times: int = 1) -> str:
        """Say a version."""
        return f"said {version} {times}"

    model = ScriptedModel([call("free", {"version": "1"})])
    agent = govern(Agent(name="main", tools=[free], model=model), pauses.al, on_approval="pause")
    result = await Runner.run(agent, "go")
    assert (result.interruptions, model.shown) == ([], ["said 1 1"])


async def test_the_saved_state_is_plain_json(pauses: Pauses) -> None:
    """What is saved is what the SDK saves: nothing of ours is in it, and it can be loaded more than once."""
    agent = pauses.agent(calls("deploy", 1))
    await pauses.pause(agent)
    assert "agentlattice" not in json.dumps(json.loads(pauses.saved.read_text()))
    for _ in range(2):
        assert isinstance(await pauses.load(agent), RunState)
