"""A call that needs a person suspends the graph, and runs as often as it was approved, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph_pausing import FORMS, Thread, deploys, make_deploy

from agentlattice_core import AgentLattice
from agentlattice_core.results import AuditEvent

Recorded = Callable[..., list[AuditEvent]]
SEPARATE = [form for form in FORMS if form != "wrapped"]
APPROVE = {"decisions": [{"type": "approve"}]}


@pytest.fixture
def ana(al: AgentLattice) -> AgentLattice:
    """The person who decides."""
    return al.for_operator("ana")


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("form", SEPARATE)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_call_runs_as_often_as_it_was_approved(
    al: AgentLattice, ana: AgentLattice, recorded: Recorded, form: str, how: str, count: int
) -> None:
    """Decided in the core, in turn approved and denied: each answer reaches its own call, and the log says the same."""
    services = [f"s{number}" for number in range(count)]
    ran: list[str] = []
    graph = FORMS[form](al, deploys(*services), [make_deploy(ran.append)], InMemorySaver(), {})
    thread = Thread(graph, how=how).go()
    assert ran == []
    assert set(thread.paused) == {f"call-{each}" for each in services}
    approved = services[::2]
    for each in services:
        decide = ana.approve_action_sync if each in approved else ana.deny_action_sync
        decide(thread.approval(f"call-{each}"), f"because {each}")
    thread.answer_each(dict.fromkeys(thread.paused, "go on"))
    assert sorted(ran) == approved
    assert thread.paused == {}
    for each in services:
        said = thread.answers[f"call-{each}"]
        assert said == f"deployed {each}" if each in approved else f"because {each}" in said
    events = {event.metadata["service"]: event for event in recorded("tool.deploy")}
    assert {each: event.claim for each, event in events.items()} == {
        each: "succeeded" if each in approved else None for each in services
    }
