"""A framework's pause is no end: the child is left as it is, and the run that goes on finds the same one."""

from __future__ import annotations

from typing import Any

import pytest

from agentlattice_core import AgentLattice, DelegatedAgent
from agentlattice_core.pauses import is_pause, register_pause

ASK: dict[str, Any] = {"capabilities": ["deploy.*", "read_data"], "ttl": 3600}


class Paused(Exception):  # noqa: N818 - frameworks do not call their pauses errors
    """What this test's framework pauses by."""


register_pause(Paused)


@pytest.mark.parametrize("error", [Paused(), ExceptionGroup("two", [Paused(), Paused()])])
def test_a_pause_leaves_the_child_and_what_it_waits_for(
    al: AgentLattice, operator: AgentLattice, error: Exception
) -> None:
    """Its request stays, is decided meanwhile, and is claimed by the same child when the run goes on."""
    block = al.delegate_sync("deployer", run="thread-1", **ASK)
    child = block.__enter__()
    asked = child.execute_sync("deploy.web")
    block.__exit__(type(error), error, None)
    assert [entry.status for entry in al.delegations_sync().delegations] == ["active"]
    operator.approve_action_sync(asked.approval_id or "")
    with al.delegate_sync("deployer", run="thread-1", **ASK) as again:
        assert (again.agent, again.delegation_id) == (child.agent, child.delegation_id)
        assert again.claim_sync(asked.audit_event_id).status == "executed"
    assert al.delegations_sync().delegations == []


def test_what_is_not_only_a_pause_is_an_end(al: AgentLattice) -> None:
    """One error among pauses ends the block, and so does an error that a pause merely caused."""
    caused = LookupError()
    caused.__cause__ = Paused()
    for error in (ExceptionGroup("both", [Paused(), LookupError()]), caused):
        with pytest.raises(type(error)), al.delegate_sync("deployer", run="r", **ASK):
            raise error
        assert al.delegations_sync().delegations == []
    assert not is_pause(None)


async def test_a_pause_suspends_all_that_run_side_by_side(al: AgentLattice) -> None:
    """The fan-out that is resumed has the same children."""

    def fan_out() -> Any:
        return AgentLattice.parallel(*(al.delegate(f"reader-{n}", run="thread-1", **ASK) for n in range(3)))

    first: list[DelegatedAgent] = []
    with pytest.raises(Paused):
        async with fan_out() as first:
            raise Paused
    assert len((await al.delegations()).delegations) == 3
    async with fan_out() as again:
        assert [child.delegation_id for child in again] == [child.delegation_id for child in first]
    assert (await al.delegations()).delegations == []


def test_a_run_can_be_named_later(al: AgentLattice) -> None:
    """For adapters, which are handed a delegation before they know which run it is for."""
    offered = al.delegate("worker", **ASK)
    with offered.of_run("thread-1") as one, offered.of_run("thread-2") as two:
        assert one.agent != two.agent
        with al.delegate("worker", run="thread-1", **ASK) as same:
            assert same.agent == one.agent
