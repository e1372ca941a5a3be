"""Who acts in a governed call under a delegation, whatever the framework calls its runs."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentlattice_core import AgentLattice
from agentlattice_core.testing import ManualClock
from agentlattice_core.toolcalls import Permit, ToolCall, ToolGate
from agentlattice_core.toolcalls.acting import Acting, NoChild

_POLICIES = """
version: 1
policies:
  - {name: Search, action: tool.search, effect: allow}
  - {name: Deploy, action: tool.deploy, effect: require_approval}
"""
_SEARCH = ToolCall("test", "search", {"query": "q"})
_DEPLOY = ToolCall("test", "deploy", {"version": "1.4"})


class Place:
    """What a framework makes anew whenever it begins or resumes a run."""


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def al(tmp_path: Path, clock: ManualClock) -> Iterator[AgentLattice]:
    """The agent that delegates."""
    policies = tmp_path / "policies.yaml"
    policies.write_text(_POLICIES, encoding="utf-8")
    with AgentLattice.embedded(
        tmp_path / "governance.db", policies=policies, agent="lead", clock=clock
    ) as client:
        yield client


@pytest.fixture
def acting(al: AgentLattice) -> Acting:
    """A delegation whose children search and deploy."""
    return Acting(al.delegate("scout", capabilities=["tool.search", "tool.deploy"], ttl=600), _gate)


def _gate(client: object) -> ToolGate:
    return ToolGate(client, on_approval="defer")  # type: ignore[arg-type]


def _of(found: ToolGate | NoChild) -> ToolGate:
    assert isinstance(found, ToolGate)
    return found


async def test_each_run_has_a_child_of_its_own_and_finds_it_again(al: AgentLattice, acting: Acting) -> None:
    """By its name, wherever it is resumed, and in another entry point of the same delegation."""
    again = Acting(al.delegate("scout", capabilities=["tool.search", "tool.deploy"], ttl=600), _gate)
    names = [
        _of(gate).client.agent  # type: ignore[attr-defined]
        for gate in (
            acting.gate_sync("one", Place()),
            acting.gate_sync("one", Place()),
            await again.gate_of("one", None),
            await acting.gate_of("two", Place()),
        )
    ]
    assert names[0] == names[1] == names[2] != names[3]
    assert acting.client_in("one").agent == names[0]  # type: ignore[attr-defined]
    assert acting.client_in("three") is al


def test_what_a_child_asked_is_remembered_as_long_as_its_delegation_lasts(
    al: AgentLattice, acting: Acting, clock: ManualClock
) -> None:
    """A run that is resumed in time meets its open question; one that is resumed later has its time again."""
    first = _of(acting.gate_sync("one", Place()))
    asked = first.authorize_sync(_DEPLOY)
    resumed = _of(acting.gate_sync("one", Place()))
    assert resumed.authorize_sync(_DEPLOY).approval_id == asked.approval_id  # type: ignore[union-attr]
    clock.advance(minutes=10)
    place = Place()
    assert "OUT_OF_SCOPE" in resumed.authorize_sync(_SEARCH).text  # type: ignore[union-attr]
    later = _of(acting.gate_sync("one", place))
    assert isinstance(later.authorize_sync(_SEARCH), Permit)
    assert acting.gate_sync("one", place) is later
    assert [one.status for one in al.delegations_sync("parent", active_only=False).delegations] == [
        "expired",
        "active",
    ]


def test_a_run_is_not_kept_alive(acting: Acting) -> None:
    """The framework's own object goes when the framework lets it go."""
    place = Place()
    acting.gate_sync("one", place)
    gone = weakref.ref(place)
    del place
    gc.collect()
    assert gone() is None


async def test_a_call_for_which_there_can_be_no_child_is_the_parents_refused_attempt(
    al: AgentLattice, acting: Acting
) -> None:
    """A run that was revoked stays revoked, and each attempt is in the log."""
    _of(acting.gate_sync("one", Place()))
    (delegation,) = al.delegations_sync("parent").delegations
    al.revoke_sync(delegation.id)
    for nobody in (acting.gate_sync("one", Place()), await acting.gate_of("one", Place())):
        assert isinstance(nobody, NoChild)
        assert nobody.refuse_sync(acting.gate, _SEARCH).reason == "OUT_OF_SCOPE"
        assert (await nobody.refuse(acting.gate, _SEARCH)).reason == "OUT_OF_SCOPE"
    assert [(event.agent, event.status) for event in al.audit_sync().events] == [("lead", "denied")] * 4


async def test_where_not_even_the_attempt_can_be_recorded_the_model_is_told(
    al: AgentLattice, acting: Acting
) -> None:
    """Nothing is raised into the framework, and nothing runs."""
    _of(acting.gate_sync("one", Place()))
    (delegation,) = al.delegations_sync("parent").delegations
    al.revoke_sync(delegation.id)
    nobody = acting.gate_sync("one", Place())
    assert isinstance(nobody, NoChild)
    al.close()
    closed = acting.gate_sync("two", Place())
    assert isinstance(closed, NoChild)
    for one in (nobody, closed):
        assert one.refuse_sync(acting.gate, _SEARCH).reason == "NOT_RECORDED"
        assert (await one.refuse(acting.gate, _SEARCH)).reason == "NOT_RECORDED"
