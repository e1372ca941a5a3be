"""An agent of a crew acts under an identity that was delegated to it."""

from __future__ import annotations

import gc

from crew_harness import DELEGATE, agent_with, crew_of
from crew_tools import DELETE, Recorded, Traces, denial
from scripted_crewai import ScriptedModel

from agentlattice_core import AgentLattice
from agentlattice_integrations.contract import ScriptedCall
from agentlattice_integrations.crewai import govern

READ = ScriptedCall("read", {"path": "a"})


def test_a_delegate_does_only_what_was_delegated_to_it(
    al: AgentLattice, traces: Traces, recorded: Recorded
) -> None:
    """One line gives a co-worker an identity of its own, whatever its crew may do."""
    order = {"task": "t", "context": "c", "coworker": "specialist"}
    chief = agent_with(ScriptedModel([[ScriptedCall(DELEGATE, order)]]), allow_delegation=True)
    model = ScriptedModel([[READ], [ScriptedCall("draw", {"amount": "1", "currency": "EUR"})], [DELETE]])
    specialist = agent_with(model, [traces.read(), traces.draw(), traces.delete()], role="specialist")
    govern(specialist, al.delegate("reader", capabilities=["tool.read", "tool.delete"], ttl=60))
    govern(crew_of(chief, specialist), al).kickoff()
    assert traces.ran == [("read", "a")]
    assert [denial(seen.content)["reason"] for seen in model.shown[1:]] == ["OUT_OF_SCOPE", "POLICY_DENIED"]
    (delegation,) = recorded(f"tool.{DELEGATE}")
    assert delegation.agent == "tester"


def test_a_childs_identity_ends_with_what_it_was_given_to(al: AgentLattice, traces: Traces) -> None:
    """Nobody has to remember to revoke it."""
    agent = govern(
        agent_with(ScriptedModel(), [traces.read()]),
        al.delegate("reader", capabilities=["tool.read"], ttl=60),
    )
    assert len(al.delegations_sync().delegations) == 1
    del agent
    gc.collect()
    al.execute_sync("tool.read")
    assert al.delegations_sync().delegations == []


def test_a_child_of_a_named_run_is_found_again(al: AgentLattice, traces: Traces) -> None:
    """Governing again in the same run, as after a restart, gives the same child."""
    for _ in range(2):
        model = ScriptedModel([[READ]])
        agent = agent_with(model, [traces.read()])
        govern(
            crew_of(agent), al.delegate("reader", capabilities=["tool.read"], ttl=60, run="ticket 1")
        ).kickoff()
        del agent
        gc.collect()
    assert len(al.delegations_sync().delegations) == 1
    assert traces.ran == [("read", "a")] * 2
