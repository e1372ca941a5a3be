"""Every start of a tool has a decision and a claim of its own, whatever starts it: CrewAI, the clock, the tool."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from crew_harness import agent_with, crew_of
from crew_tools import Recorded, Traces, denial
from crewai.tools import BaseTool, tool
from scripted_crewai import ScriptedModel

from agentlattice_core import AgentLattice
from agentlattice_integrations.contract import ScriptedCall
from agentlattice_integrations.crewai import current_action_id, govern


def test_each_of_the_six_starts_of_a_raising_tool_holds_a_claim(al: AgentLattice, recorded: Recorded) -> None:
    """CrewAI's text protocol starts a raising tool up to six times for one call: six actions, all failed, no more."""
    starts = []

    @tool("flaky")
    def flaky(path: str) -> str:
        """Fail."""
        starts.append(path)
        raise RuntimeError("no")

    model = ScriptedModel([[ScriptedCall("flaky", {"path": "a"})]], native=False)
    govern(crew_of(agent_with(model, [flaky])), al).kickoff()
    assert len(starts) == 6
    assert [event.claim for event in recorded("tool.flaky")] == ["failed"] * 6


def test_a_tool_whose_run_calls_its_own_coroutine_is_asked_about_once(
    al: AgentLattice, recorded: Recorded
) -> None:
    """`_run` that hands on to `_arun` with the same arguments is one start; the next call is another."""

    class Both(BaseTool):
        name: str = "both"
        description: str = "Does it both ways."

        def _run(self, path: str) -> str:
            return asyncio.run(self._arun(path=path))

        async def _arun(self, path: str) -> str:
            return f"did {path}"

    both = govern(Both(), al)
    assert both.run(path="a") == "did a"
    assert len(recorded("tool.both")) == 1
    assert both.run(path="a") == "did a"
    assert len(recorded("tool.both")) == 2


def test_a_tool_that_calls_another_tool_does_not_lend_it_its_permit(al: AgentLattice, traces: Traces) -> None:
    """What a permitted tool calls is asked about itself, with the same arguments too."""
    delete = traces.delete()

    class Clean(BaseTool):
        name: str = "clean"
        description: str = "Cleans up."

        def _run(self, path: str) -> str:
            return str(delete.run(path=path))

    clean, _ = govern([Clean(), delete], al)
    assert denial(clean.run(path="a"))["tool"] == "delete"
    assert traces.ran == []


def test_a_tool_that_runs_its_own_coroutine_twice_is_asked_about_twice(
    al: AgentLattice, recorded: Recorded
) -> None:
    """One permit lets one start run."""

    class Twice(BaseTool):
        name: str = "twice"
        description: str = "Does it twice."

        def _run(self, path: str) -> list[str]:
            return [asyncio.run(self._arun(path=path)), asyncio.run(self._arun(path=path))]

        async def _arun(self, path: str) -> str:
            return f"did {path}"

    assert govern(Twice(), al).run(path="a") == ["did a", "did a"]
    assert len(recorded("tool.twice")) == 2


def test_no_tool_starts_after_the_agents_time_is_over(
    al: AgentLattice, reviewer: AgentLattice, traces: Traces, recorded: Recorded
) -> None:
    """Approved too late: `max_execution_time` has ended the run with an error, and the tool does not run behind it."""

    def approve_late() -> None:
        while not (pending := reviewer.list_pending_approvals_sync()):
            time.sleep(0.01)
        time.sleep(4.2)
        reviewer.approve_action_sync(pending[0].id)

    person = threading.Thread(target=approve_late)
    model = ScriptedModel([[ScriptedCall("deploy", {"version": "1"})]])
    crew = govern(crew_of(agent_with(model, [traces.deploy()], max_execution_time=4)), al)
    person.start()
    with pytest.raises(TimeoutError):
        crew.kickoff()
    person.join()
    assert traces.ran == []
    assert recorded("tool.deploy")[-1].status == "denied"
    assert [event.claim for event in recorded("tool.deploy") if event.claim] == ["failed"]


def test_a_tool_in_time_runs_under_a_deadline(al: AgentLattice, traces: Traces) -> None:
    """`max_execution_time` by itself denies nothing."""
    model = ScriptedModel([[ScriptedCall("read", {"path": "a"})]])
    govern(crew_of(agent_with(model, [traces.read()], max_execution_time=60)), al).kickoff()
    assert model.shown[0].content == "read a"


def test_a_tool_can_ask_for_the_id_of_its_action(al: AgentLattice, recorded: Recorded) -> None:
    """Inside, it is the id in the log, in every start another one; outside there is none."""
    asked = []

    @tool("pay")
    def pay(amount: int) -> str:
        """Pay."""
        asked.append(current_action_id())
        return "paid"

    govern(pay, al)
    pay.run(amount=1)
    pay.run(amount=1)
    assert asked == [event.id for event in recorded("tool.pay")]
    assert len(set(asked)) == 2
    assert current_action_id() is None
