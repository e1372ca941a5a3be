"""A sub-agent acts under an identity that was delegated to it, over pauses and in other processes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner
from agents.tracing import set_tracing_disabled
from openai_pauses import Pauses, calls, process, reason_in, script, shown_by_call
from openai_scripted import ScriptedModel, call, say

from agentlattice_core.testing import ManualClock
from agentlattice_integrations.openai_agents import RunPaused, apply_decisions, govern, pause_block


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def pauses(tmp_path: Path, clock: ManualClock) -> Iterator[Pauses]:
    opened = Pauses(tmp_path, clock=clock)
    yield opened
    opened.close()


def acted(pauses: Pauses) -> dict[str, set[str]]:
    """Who did what, by the type of the action: the name that the parent gave it, or the parent's own."""
    found: dict[str, set[str]] = {}
    for event in pauses.reviewer.audit_sync().events:
        found.setdefault(event.action_type, set()).add(event.agent.partition("~")[0])
    return found


def in_force(pauses: Pauses) -> list[str]:
    return [one.name for one in pauses.al.delegations_sync().delegations]


# --- one line --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reached", ["by a hand-off", "as a tool"])
async def test_one_line_gives_a_sub_agent_an_identity_of_its_own(pauses: Pauses, reached: str) -> None:
    """What it does is its own, within what was delegated; handing work to it is the act of who hands over."""
    model = ScriptedModel(
        [call("free", {"version": "1"}, call_id="free"), call("deploy", {"version": "2"}, call_id="deploy")]
    )
    second = govern(
        Agent(name="second", tools=pauses.tools(), model=model),
        pauses.al.delegate("researcher", capabilities=["tool.free"], ttl=300),
    )
    if reached == "as a tool":
        first = Agent(
            name="first",
            tools=[second.as_tool("ask", "Ask.")],
            model=ScriptedModel([call("ask", {"input": "go"})]),
        )
    else:
        first = Agent(name="first", handoffs=[second], model=ScriptedModel([call("transfer_to_second")]))
    result = await Runner.run(govern(first, pauses.al), "go")
    assert result.final_output == "done"
    assert [reason_in(text) for text in model.shown[-2:]] == ["said 1", "OUT_OF_SCOPE"]
    assert pauses.ran() == ["said 1"]
    handed = "tool.ask" if reached == "as a tool" else "tool.transfer_to_second"
    assert acted(pauses) == {"tool.free": {"researcher"}, "tool.deploy": {"researcher"}, handed: {"deployer"}}


async def test_each_run_has_a_child_of_its_own(pauses: Pauses) -> None:
    """Revoking the child of one run leaves the others, and the run after it, as they are."""
    agent = govern(
        Agent(name="main", tools=pauses.tools(), model=ScriptedModel(*[calls("free", 1), [say("done")]] * 2)),
        pauses.al.delegate("researcher", capabilities=["tool.free"], ttl=300),
    )
    assert in_force(pauses) == []
    await Runner.run(agent, "go")
    (first,) = pauses.al.delegations_sync().delegations
    pauses.al.revoke_sync(first.id)
    await Runner.run(agent, "go")
    (second,) = pauses.al.delegations_sync().delegations
    assert first.agent != second.agent
    assert pauses.ran() == ["said 0"] * 2


async def test_a_child_begins_with_its_run_and_its_time_ends_it(pauses: Pauses, clock: ManualClock) -> None:
    """An agent that is made once and used all day has not lost its identity by then; a run that outlasts it has."""

    def later(_: Any) -> list[Any]:
        clock.advance(seconds=61)
        return [call("free", {"version": "1"}, call_id="call_1")]

    agent = govern(
        Agent(name="main", tools=pauses.tools(), model=ScriptedModel(calls("free", 1), later)),
        pauses.al.delegate("researcher", capabilities=["tool.free"], ttl=60),
    )
    clock.advance(hours=3)
    shown = shown_by_call(await Runner.run(agent, "go"))
    assert (shown["call_0"], reason_in(shown["call_1"])) == ("said 0", "OUT_OF_SCOPE")


async def test_a_revoked_child_is_refused_for_the_rest_of_its_run(pauses: Pauses) -> None:
    """The model reads why, nothing runs, and the log has the attempt as the parent's."""
    agent = govern(
        Agent(name="main", tools=pauses.tools(), model=ScriptedModel(calls("deploy", 1))),
        pauses.al.delegate("researcher", capabilities=["tool.deploy"], ttl=60),
        on_approval="pause",
    )
    await pauses.pause(agent)
    (child,) = pauses.al.delegations_sync().delegations
    pauses.al.revoke_sync(child.id)
    resumed = await pauses.resume(agent)
    assert (resumed.said("call_0"), pauses.ran()) == ("OUT_OF_SCOPE", [])
    told = [(event.agent.partition("~")[0], event.status) for event in pauses.reviewer.audit_sync().events]
    assert told == [("deployer", "denied"), ("researcher", "denied")]


async def test_without_a_trace_the_child_ends_with_what_it_was_given_to(pauses: Pauses) -> None:
    """Nobody could find it again, so nobody has to remember to revoke it."""
    set_tracing_disabled(True)
    agent = govern(
        Agent(name="main", tools=pauses.tools(), model=ScriptedModel(calls("free", 1))),
        pauses.al.delegate("researcher", capabilities=["tool.free"], ttl=60),
    )
    await Runner.run(agent, "go", run_config=RunConfig(tracing_disabled=True))
    assert (in_force(pauses), pauses.ran()) == (["researcher"], ["said 0"])
    del agent
    gc.collect()
    pauses.al.execute_sync("tool.free")
    assert in_force(pauses) == []


async def test_observing_withholds_nothing_from_a_child_that_cannot_be(tmp_path: Path) -> None:
    """A delegation that would be refused does not stop the tool in observe mode; the call is the parent's."""
    observed = Pauses(tmp_path, mode="observe")
    with observed.al.delegate_sync("outer", capabilities=["tool.deploy"], ttl=60) as outer:
        agent = govern(
            Agent(name="main", tools=observed.tools(), model=ScriptedModel(calls("free", 1))),
            outer.delegate("inner", capabilities=["tool.free"], ttl=60),
        )
        await Runner.run(agent, "go")
        assert (observed.ran(), acted(observed)) == (["said 0"], {"tool.free": {"outer"}})
    observed.close()


async def test_more_than_the_parent_holds_is_refused(pauses: Pauses) -> None:
    """A child that could do more than its parent never begins; its calls are denied as the parent's attempts."""
    with pauses.al.delegate_sync("outer", capabilities=["tool.deploy"], ttl=60) as outer:
        agent = govern(
            Agent(name="main", tools=pauses.tools(), model=ScriptedModel(calls("free", 1))),
            outer.delegate("inner", capabilities=["tool.free"], ttl=60),
        )
        result = await Runner.run(agent, "go")
    assert (reason_in(shown_by_call(result)["call_0"]), pauses.ran()) == ("OUT_OF_SCOPE", [])
    assert acted(pauses) == {"tool.free": {"outer"}}


# --- pauses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reached", ["by a hand-off", "as a tool"])
async def test_a_child_goes_on_after_a_pause_as_the_same_child(pauses: Pauses, reached: str) -> None:
    """The run returns, everything that was governed is gone, and the state finds the child and its approval again."""
    as_tool = reached == "as a tool"
    agent = pauses.delegating(calls("deploy", 2), as_tool=as_tool)
    await pauses.pause(agent)
    del agent
    gc.collect()
    (child,) = pauses.al.delegations_sync().delegations
    assert len(pauses.requests()) == 2
    pauses.decide("ad")
    resumed = await pauses.resume(pauses.delegating(as_tool=as_tool))
    assert (resumed.final, pauses.ran()) == ("done", ["deployed 0"])
    assert acted(pauses)["tool.deploy"] == {"researcher"}
    (same,) = pauses.al.delegations_sync(active_only=False).delegations
    assert (same.id, same.active) == (child.id, True)


@pytest.mark.parametrize("as_tool", [False, True], ids=["by a hand-off", "as a tool"])
def test_a_child_is_the_same_in_another_process(tmp_path: Path, as_tool: bool) -> None:
    """The process that asked is killed; the one that resumes the state acts as the very same child."""
    script(tmp_path, "deploy", 2, inside=as_tool, delegated=True)
    assert process("pause", [tmp_path]) == -9
    pauses = Pauses(tmp_path, policies=None)
    (child,) = pauses.al.delegations_sync().delegations
    pauses.decide("ad")
    pauses.close()
    assert process("resume", [tmp_path]) == 0
    pauses = Pauses(tmp_path, policies=None)
    assert pauses.ran() == ["deployed 0"]
    assert [one.id for one in pauses.al.delegations_sync(active_only=False).delegations] == [child.id]
    events = [one for one in pauses.reviewer.audit_sync().events if one.action_type == "tool.deploy"]
    assert {one.agent.partition("~")[0] for one in events} == {"researcher"}
    assert sorted((one.claim, one.denial_reason) for one in events if one.claim) == [("succeeded", None)]
    pauses.close()


async def test_a_child_whose_time_ended_in_a_pause_is_given_it_again(
    pauses: Pauses, clock: ManualClock
) -> None:
    """The state that goes on names the same child, and what was approved for it meanwhile runs once."""
    agent = pauses.delegating(calls("deploy", 1))
    await pauses.pause(agent)
    clock.advance(seconds=301)
    assert in_force(pauses) == []
    pauses.decide("a")
    resumed = await pauses.resume(pauses.delegating())
    assert (resumed.final, pauses.ran()) == ("done", ["deployed 0"])
    before, after = pauses.al.delegations_sync(active_only=False).delegations
    assert (before.agent, before.active, after.active) == (after.agent, False, True)


async def test_what_a_person_rejects_in_the_application_is_the_childs_request(pauses: Pauses) -> None:
    """Without an operator the child's own request is taken back, so nobody decides on it in vain."""
    agent = pauses.delegating(calls("deploy", 1))
    state = await pauses.pause(agent)
    state.reject(state.get_interruptions()[0], rejection_message="no")
    assert await apply_decisions(state) == []
    assert (await Runner.run(agent, state)).final_output == "done"
    assert (pauses.ran(), pauses.requests()) == ([], {})


# --- a child's client ------------------------------------------------------------------------------------------------


async def test_an_agent_that_is_handed_work_acts_under_its_own_delegation(pauses: Pauses) -> None:
    """The agent behind a hand-off may do what was delegated to it and no more; the log names the child."""
    model = ScriptedModel([call("free", {"version": "1"}), call("deploy", {"version": "2"})])
    with pauses.al.delegate_sync("second", capabilities=["tool.free"], ttl=60) as child:
        second = govern(Agent(name="second", tools=pauses.tools(), model=model), child)
        first = Agent(name="first", handoffs=[second], model=ScriptedModel([call("transfer_to_second")]))
        result = await Runner.run(govern(first, pauses.al), "go")
        said = child.agent
    assert result.final_output == "done"
    assert (model.shown[-2], reason_in(model.shown[-1])) == ("said 1", "OUT_OF_SCOPE")
    assert pauses.ran() == ["said 1"]
    named = {event.action_type: event.agent for event in pauses.reviewer.audit_sync().events}
    assert named == {"tool.free": said, "tool.deploy": said, "tool.transfer_to_second": "deployer"}


async def test_a_pause_leaves_a_delegated_child_as_it_is(pauses: Pauses) -> None:
    """Left by a pause the block suspends the child: its request stays, and the resumed run is the same child."""

    async def step(*turns: Any) -> tuple[str, Any]:
        async with pauses.al.delegate("worker", capabilities=["tool.deploy"], ttl=3600, run="run-1") as child:
            agent = govern(
                Agent(name="main", tools=pauses.tools(), model=ScriptedModel(*turns)),
                child,
                on_approval="pause",
            )
            if turns:
                names.append(child.agent)
                pause_block(await Runner.run(agent, "go"))
            return child.agent, await pauses.resume(agent)

    names: list[str] = []
    with pytest.raises(RunPaused) as paused:
        await step(calls("deploy", 1))
    pauses.saved.write_text(paused.value.state.to_string())
    pauses.decide("a")
    name, resumed = await step()
    assert (resumed.final, pauses.ran(), names) == ("done", ["deployed 0"], [name])
