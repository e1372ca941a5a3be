"""A child acts for its parent, with a part of what it holds, for a while, and under its policies and limits."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from agentlattice_core import (
    ActionOptions,
    AgentLattice,
    AgentLatticeDeniedError,
    DelegatedAgent,
    ForbiddenError,
    GovernanceEvent,
    IllegalTransitionError,
    InvalidRequestError,
    NotFoundError,
)
from agentlattice_core.agents import LONGEST_CHAIN
from agentlattice_core.clock import format_time
from agentlattice_core.policy import PolicyDocument, PolicySet
from agentlattice_core.policy.simulate import simulate
from agentlattice_core.recorded import RecordedActions
from agentlattice_core.testing import ManualClock

DAY = 86400


async def test_the_documented_program_runs(al: AgentLattice) -> None:
    """As the client's documentation has it: async, blocking, chained, in parallel."""
    async with al.delegate("data-processor", capabilities=["read_data", "write_results"], ttl=300) as sub:
        assert isinstance(sub, DelegatedAgent)
        await sub.execute("read_data")
        assert (await sub.execute("write_results")).status == "executed"
        async with sub.delegate("sub-reader", capabilities=["read_data"], ttl=60) as s:
            await s.gate("read_data")
    with al.delegate_sync("data-processor", capabilities=["read_data"], ttl=300) as sub:
        sub.execute_sync("read_data")
        with sub.delegate_sync("sub-reader", capabilities=["read_data"], ttl=60) as s:
            s.gate_sync("read_data", ActionOptions(metadata={"table": "users"}))
    async with AgentLattice.parallel(
        al.delegate("reader-1", capabilities=["read_data"], ttl=60),
        al.delegate("reader-2", capabilities=["read_data"], ttl=60),
    ) as [r1, r2]:
        assert (await r1.execute("read_data")).status == "executed"
        assert (await r2.execute("read_data")).status == "executed"
    assert (await al.delegations(role="parent")).delegations == []
    assert len((await al.delegations(role="parent", active_only=False)).delegations) == 4
    assert al.verify_state_sync() == []


def test_what_was_not_delegated_is_out_of_scope(al: AgentLattice) -> None:
    """Whatever policy says of the parent; the answer tells what is held, and the attempt is in the log."""
    with al.delegate_sync("reader", capabilities=["read_data"], ttl=60) as reader:
        result = reader.execute_sync("write_results")
        assert (result.status, result.denial_reason) == ("denied", "OUT_OF_SCOPE")
        [condition] = result.conditions_evaluated
        assert (condition.field, condition.operator) == ("delegation.capabilities", "contains")
        assert (condition.expected, condition.actual, condition.result) == (
            "write_results",
            ["read_data"],
            False,
        )
        assert result.message == "`write_results` is not among what was delegated to `reader`: `read_data`"
        check = reader.can_i_sync("write_results")
        assert (check.allowed, check.needs_approval, check.reason) == (False, False, "OUT_OF_SCOPE")
        with pytest.raises(AgentLatticeDeniedError) as denied:
            reader.gate_sync("write_results")
        assert denied.value.reason == "OUT_OF_SCOPE"
        assert [event.denial_reason for event in reader.audit_sync().events] == ["OUT_OF_SCOPE"] * 2


def test_a_child_is_never_given_more_than_its_parent_holds(al: AgentLattice) -> None:
    """A pattern that covers one thing more is refused, and the refusal says which; nothing is recorded."""
    with al.delegate_sync("reader", capabilities=["deploy.*", "read_data"], ttl=60) as reader:
        for wrong in (["write_results"], ["*"], ["deploy.*", "read_data.*"], ["read_data", "deploy"]):
            with pytest.raises(ForbiddenError, match="does not hold") as refused:
                reader.delegate_sync("more", capabilities=wrong, ttl=60).__enter__()
            assert refused.value.details["held"] == ["deploy.*", "read_data"]
            assert refused.value.details["exceeding"]
        with reader.delegate_sync("less", capabilities=["deploy.eu.*", "deploy.us"], ttl=60) as less:
            assert less.can_i_sync("deploy.eu.web").needs_approval
            assert less.can_i_sync("deploy.us").needs_approval
            assert less.can_i_sync("deploy.asia").reason == "OUT_OF_SCOPE"
        assert len(al.delegations_sync(active_only=False).delegations) == 1
        assert len(reader.delegations_sync("parent", active_only=False).delegations) == 1


def test_the_whole_chain_is_asked(al: AgentLattice) -> None:
    """What the grandparent was never given no grandchild does, also where a link below says `*` wrongly."""
    with (
        al.delegate_sync("one", capabilities=["deploy.*", "read_data"], ttl=60) as one,
        one.delegate_sync("two", capabilities=["deploy.*"], ttl=60) as two,
        two.delegate_sync("three", capabilities=["deploy.eu"], ttl=60) as three,
    ):
        assert three.can_i_sync("deploy.eu").needs_approval
        assert three.can_i_sync("read_data").reason == "OUT_OF_SCOPE"
        al.revoke_sync(one.delegation_id)
        result = three.execute_sync("deploy.eu")
        assert (result.denial_reason, result.message) == (
            "OUT_OF_SCOPE",
            "the delegation of `three` was revoked",
        )


def test_policies_are_those_of_the_root(opened: Any, al: AgentLattice) -> None:
    """A policy that names an agent or its tags applies to descendants; a child's own name satisfies nothing."""
    root = opened(agent="boss", tags=["trusted"], grants=["secrets"])
    with (
        root.delegate_sync("ci", capabilities=["*"], ttl=60) as namesake,
        namesake.delegate_sync("payroll", capabilities=["*"], ttl=60) as below,
    ):
        for child in (namesake, below):
            assert child.execute_sync("read_data").status == "policy_not_found"
            assert child.execute_sync("payroll.read").status == "policy_not_found"
            assert child.execute_sync("tagged.read").status == "executed"
            assert child.execute_sync("granted.read").denial_reason == "CONDITIONS_DENIED"
    with al.delegate_sync("boss", capabilities=["*"], ttl=60) as child:
        assert child.execute_sync("read_data").status == "executed"
        assert child.execute_sync("tagged.read").status == "policy_not_found"
        assert child.execute_sync("granted.read").denial_reason == "CONDITIONS_DENIED"


def test_a_grant_is_a_childs_only_where_it_is_passed_on(opened: Any) -> None:
    """By everybody between it and the root, each of whom holds it."""
    root = opened(agent="boss", grants=["secrets", "keys"])
    ask = {"capabilities": ["*"], "ttl": 60}
    with (
        root.delegate_sync("one", grants=["secrets"], **ask) as one,
        one.delegate_sync("two", grants=["secrets"], **ask) as two,
        one.delegate_sync("none", **ask) as none,
    ):
        assert two.execute_sync("granted.read").status == "executed"
        assert none.execute_sync("granted.read").denial_reason == "CONDITIONS_DENIED"
        for client, grants in ((one, ["keys"]), (none, ["secrets"]), (root, ["secrets", "other"])):
            with pytest.raises(ForbiddenError, match="does not hold"):
                client.delegate_sync("more", grants=grants, **ask).__enter__()
        opened(agent="boss", grants=[])  # taken from the root, it is taken from all
        assert two.execute_sync("granted.read").denial_reason == "CONDITIONS_DENIED"


def test_nobody_passes_for_the_parent_by_a_name(opened: Any, al: AgentLattice) -> None:
    """`agent.parent` is who delegated: a child that calls itself so is not."""
    with opened(agent="desk").delegate_sync("clerk", capabilities=["*"], ttl=60) as clerk:
        assert clerk.execute_sync("desk.read").status == "executed"
    with (
        al.delegate_sync("desk", capabilities=["*"], ttl=60) as namesake,
        namesake.delegate_sync("clerk", capabilities=["*"], ttl=60) as clerk,
    ):
        assert clerk.execute_sync("desk.read").status == "denied"


def test_children_charge_their_ancestors_limits(al: AgentLattice) -> None:
    """However many children share the work, the parent's cap is one cap."""
    money = {"amount": "30.00", "currency": "EUR"}
    with AgentLattice.parallel_sync(
        *(al.delegate_sync(f"refunds-{n}", capabilities=["refund.issue"], ttl=60) for n in range(4))
    ) as children:
        answers = [child.execute_sync("refund.issue", **money).status for child in children]
        assert answers == ["executed"] * 3 + ["denied"]
        assert al.execute_sync("refund.issue", **money).denial_reason == "LIMIT_EXCEEDED"
        assert al.execute_sync("refund.issue", amount="10.00", currency="EUR").status == "executed"


@pytest.mark.parametrize("ttl", [0, -1, DAY + 1, float("nan"), float("inf"), True, "60", None, 10**400])
def test_a_life_is_more_than_none_and_at_most_a_day(al: AgentLattice, ttl: Any) -> None:
    """Longer is an error, said before anything is recorded."""
    with pytest.raises(InvalidRequestError, match="ttl"):
        al.delegate("reader", capabilities=["read_data"], ttl=ttl)
    al.delegate("reader", capabilities=["read_data"], ttl=DAY)


@pytest.mark.parametrize("name", ["", " x", "x" * 101, "a\nb", 7, None])
def test_a_child_has_a_name(al: AgentLattice, name: Any) -> None:
    with pytest.raises(InvalidRequestError, match="name"):
        al.delegate(name, capabilities=["read_data"], ttl=60)
    with pytest.raises(InvalidRequestError, match="run"):
        al.delegate("reader", capabilities=["read_data"], ttl=60, run="")


def test_a_child_never_outlives_its_parent_and_is_told(al: AgentLattice, clock: ManualClock) -> None:
    """A longer life is cut to the parent's, by whom is in the log."""
    with al.delegate_sync("one", capabilities=["read_data"], ttl=60) as one:
        assert not one.clamped
        clock.advance(seconds=20)
        with (
            one.delegate_sync("two", capabilities=["read_data"], ttl=DAY) as two,
            two.delegate_sync("three", capabilities=["read_data"], ttl=30) as three,
        ):
            assert (two.expires_at, two.clamped) == (one.expires_at, True)
            assert not three.clamped
            [seen] = one.delegations_sync("parent").delegations
            assert (seen.clamped, seen.expires_at) == (True, one.expires_at)
            clock.advance(seconds=39.999)
            assert two.execute_sync("read_data").status == "executed"
            assert three.execute_sync("read_data").denial_reason == "OUT_OF_SCOPE"
            clock.advance(seconds=0.001)
            late = two.execute_sync("read_data")
            assert late.denial_reason == "OUT_OF_SCOPE"
            assert late.message == f"the delegation of `two` expired at {format_time(clock.now())}"
            with pytest.raises(ForbiddenError, match="expired"):
                two.delegate_sync("late", capabilities=["read_data"], ttl=1).__enter__()


def test_a_chain_is_not_endless(al: AgentLattice) -> None:
    """As deep as a decision can afford to look, and no deeper."""
    client: AgentLattice = al
    for _ in range(LONGEST_CHAIN):
        client = client.delegate_sync("next", capabilities=["read_data"], ttl=60).__enter__()
    assert client.execute_sync("read_data").status == "executed"
    with pytest.raises(ForbiddenError, match="delegate no further"):
        client.delegate_sync("next", capabilities=["read_data"], ttl=60).__enter__()


def test_the_same_run_finds_the_same_child(al: AgentLattice, clock: ManualClock) -> None:
    """While it lives as it is, and after its time as the same agent under a new delegation."""
    ask = {"capabilities": ["read_data"], "ttl": 60, "run": "thread-1"}
    first = al.delegate_sync("reader", **ask).__enter__()
    clock.advance(seconds=30)
    again = al.delegate_sync("reader", **ask).__enter__()
    assert (again.agent, again.delegation_id, again.expires_at) == (
        first.agent,
        first.delegation_id,
        first.expires_at,
    )
    with pytest.raises(IllegalTransitionError, match="other capabilities"):
        al.delegate_sync("reader", capabilities=["*"], ttl=60, run="thread-1").__enter__()
    clock.advance(seconds=30)
    later = al.delegate_sync("reader", **ask).__enter__()
    assert later.agent == first.agent
    assert later.delegation_id != first.delegation_id
    assert first.execute_sync("read_data").status == "executed"  # it is the same agent
    for other in (
        al.delegate_sync("reader", **{**ask, "run": "thread-2"}),
        al.delegate_sync("writer", **ask),
        later.delegate_sync("reader", **ask),
        al.delegate_sync("reader", capabilities=["read_data"], ttl=60),
        al.delegate_sync("reader", capabilities=["read_data"], ttl=60),
    ):
        child = other.__enter__()
        assert child.agent != first.agent
    al.revoke_sync(later.delegation_id)
    with pytest.raises(IllegalTransitionError, match="revoked"):
        al.delegate_sync("reader", **ask).__enter__()


def test_one_child_is_not_asked_for_twice_at_once(al: AgentLattice) -> None:
    """Two blocks for one child would take it from each other."""
    one = al.delegate_sync("reader", capabilities=["read_data"], ttl=60, run="r")
    with pytest.raises(InvalidRequestError, match="one child twice"):
        al.parallel_sync(one, al.delegate_sync("reader", capabilities=["read_data"], ttl=9, run="r"))
    with pytest.raises(InvalidRequestError, match="passed twice"):
        al.parallel_sync(one, one)
    with one, pytest.raises(IllegalTransitionError, match="entered already"):
        one.__enter__()


def test_nothing_is_said_of_a_child_that_was_not_said_of_its_parent(al: AgentLattice) -> None:
    """Its tags, grants and owner are its parent's to hold."""
    with al.delegate_sync("reader", capabilities=["read_data"], ttl=60) as reader:
        assert reader.agent is not None
        for said in ({"tags": ["trusted"]}, {"grants": ["secrets"]}, {"owner": "ann"}):
            with pytest.raises(ForbiddenError, match="passed on to it"):
                al.for_agent(reader.agent, **said)
        with pytest.raises(ForbiddenError, match="acts for itself only"):
            reader.for_agent("ci")
        with al.for_agent(reader.agent) as same:
            assert same.execute_sync("read_data").status == "executed"
            assert same.execute_sync("write_results").denial_reason == "OUT_OF_SCOPE"


def test_a_registered_agent_is_never_taken_for_a_child(al: AgentLattice) -> None:
    """Whoever foresaw a child's name and registered it first gets nothing, and keeps the child from being made."""
    identity = json.dumps(
        ["delegation", al.whoami_sync().config_id, "reader", "run", "r"], separators=(",", ":")
    )
    name = f"reader~agt_{hashlib.sha256(identity.encode()).hexdigest()[:20]}"
    al.for_agent(name).close()
    with pytest.raises(ForbiddenError, match="registered already"):
        al.delegate_sync("reader", capabilities=["read_data"], ttl=60, run="r").__enter__()
    with al.delegate_sync("reader", capabilities=["read_data"], ttl=60, run="s") as other:
        assert other.agent is not None
        assert other.agent.startswith("reader~agt_")


async def test_looking_shows_both_sides(al: AgentLattice, operator: AgentLattice, clock: ManualClock) -> None:
    """Who delegated, who was given, what and until when; whoami says the same."""
    async with al.delegate("reader", capabilities=["read_data"], ttl=60) as reader:
        me, child = await al.whoami(), await reader.whoami()
        assert (child.name, child.config_id) == ("reader", reader.whoami_sync().config_id)
        assert [policy.name for policy in child.policies] == [policy.name for policy in me.policies]
        [as_parent], [as_child] = me.delegations["as_parent"], child.delegations["as_child"]
        assert as_parent == as_child
        assert (as_parent.id, as_parent.scope) == (reader.delegation_id, {"action_types": ["read_data"]})
        assert (as_parent.parent_config_id, as_parent.child_config_id) == (me.config_id, child.config_id)
        assert (as_parent.active, as_parent.expires_at) == (True, reader.expires_at)
        assert (await al.delegations(role="child")).delegations == []
        assert (await reader.delegations(role="child")).delegations == [as_child]
        assert (await operator.delegations()).delegations == [as_child]
        clock.advance(seconds=60)
        assert not (await reader.whoami()).is_active
        assert (await al.whoami()).delegations["as_parent"] == []
        [late] = (await al.delegations(active_only=False)).delegations
        assert (late.active, late.status) == (False, "expired")
    with pytest.raises(InvalidRequestError, match="role"):
        await al.delegations(role="owner")
    with pytest.raises(InvalidRequestError, match="operator"):
        await operator.delegations(role="parent")


def test_who_may_revoke(al: AgentLattice, opened: Any, operator: AgentLattice) -> None:
    """Whoever is above the child, and people; not the child, not a neighbour, not who only looks, and never twice."""
    with (
        al.delegate_sync("one", capabilities=["read_data"], ttl=60) as one,
        one.delegate_sync("two", capabilities=["read_data"], ttl=60) as two,
    ):
        for stranger in (two, opened(agent="stranger"), opened(agent=None, operator="v", role="viewer")):
            with pytest.raises(ForbiddenError):
                stranger.revoke_sync(two.delegation_id)
        assert two.execute_sync("read_data").status == "executed"
        result = al.revoke_sync(two.delegation_id)
        assert (result.revoked, result.delegation_id) == (True, two.delegation_id)
        assert two.execute_sync("read_data").denial_reason == "OUT_OF_SCOPE"
        assert one.execute_sync("read_data").status == "executed"
        assert operator.revoke_sync(one.delegation_id).revoked
        for ended in (one, two):
            with pytest.raises(IllegalTransitionError, match="revoked already"):
                al.revoke_sync(ended.delegation_id)
    for unknown in ("del_0", "", None):
        with pytest.raises(NotFoundError):
            al.revoke_sync(unknown)  # type: ignore[arg-type]


def test_an_end_takes_everything_below_with_it_and_is_told(
    al: AgentLattice, operator: AgentLattice, opened: Any
) -> None:
    """One entry and one notification each, with the cause; an agent hears of its own, a stranger of none."""
    told: list[GovernanceEvent] = []
    mine: list[GovernanceEvent] = []
    strange: list[GovernanceEvent] = []
    events = ["delegation.revoked", "delegation.expired"]
    opened(agent="stranger").subscribe_sync(al.org_id, strange.append, events=events)
    al.subscribe_sync(al.org_id, mine.append, events=events)
    operator.subscribe_sync(al.org_id, told.append, events=events)
    with al.delegate_sync("one", capabilities=["read_data"], ttl=60) as one:
        two = one.delegate_sync("two", capabilities=["read_data"], ttl=60).__enter__()
        three = two.delegate_sync("three", capabilities=["read_data"], ttl=60).__enter__()
        sibling = al.delegate_sync("sibling", capabilities=["read_data"], ttl=60).__enter__()
        al.revoke_sync(one.delegation_id)
        for child in (one, two, three):
            assert child.execute_sync("read_data").denial_reason == "OUT_OF_SCOPE"
        assert sibling.execute_sync("read_data").status == "executed"
    while len(told) < 3:
        pass
    assert [event.event_type for event in told] == ["delegation.revoked"] * 3
    assert [event.data["delegation_id"] for event in told] == [
        one.delegation_id,
        two.delegation_id,
        three.delegation_id,
    ]
    assert [event.data["cause"] for event in told] == [None, one.delegation_id, one.delegation_id]
    assert [event.data["status"] for event in told] == ["revoked"] * 3
    assert ([event.data["child"] for event in mine], strange) == ([one.agent], [])
    assert al.verify_state_sync() == []


def test_a_child_asks_a_person_like_anyone(al: AgentLattice, operator: AgentLattice) -> None:
    """It waits, is approved, and runs once; its parent cannot take its approval."""
    with al.delegate_sync("deployer", capabilities=["deploy.*"], ttl=3600) as deployer:
        asked = deployer.execute_sync("deploy.web")
        assert (asked.status, asked.approval_id is not None) == ("requested", True)
        operator.approve_action_sync(asked.approval_id or "")
        with pytest.raises(ForbiddenError):
            al.claim_sync(asked.audit_event_id)
        assert deployer.claim_sync(asked.audit_event_id).status == "executed"
        with pytest.raises(IllegalTransitionError):
            deployer.claim_sync(asked.audit_event_id)


def test_an_approval_is_worth_nothing_to_a_child_that_has_ended(
    al: AgentLattice, operator: AgentLattice
) -> None:
    """Scope is asked again when the approval is claimed."""
    with al.delegate_sync("deployer", capabilities=["deploy.*"], ttl=3600) as deployer:
        asked = deployer.execute_sync("deploy.web")
        operator.approve_action_sync(asked.approval_id or "")
        operator.revoke_sync(deployer.delegation_id)
        claimed = deployer.claim_sync(asked.audit_event_id)
        assert (claimed.status, claimed.denial_reason) == ("denied", "OUT_OF_SCOPE")
    assert al.verify_state_sync() == []


@pytest.mark.parametrize("ending", ["close", "revoke", "cascade"])
def test_nobody_is_asked_in_vain_for_a_child_that_has_ended(
    al: AgentLattice, operator: AgentLattice, ending: str
) -> None:
    """What waits for a person is cancelled with the child that asked, and what it held of a cap is free again."""
    with al.delegate_sync("one", capabilities=["*"], ttl=3600) as one:
        deployer = one.delegate_sync("deployer", capabilities=["deploy.*"], ttl=3600)
        child = deployer.__enter__()
        asked = child.execute_sync("deploy.web")
        assert len(operator.list_pending_approvals_sync()) == 1
        if ending == "close":
            deployer.__exit__(None, None, None)
        else:
            al.revoke_sync(child.delegation_id if ending == "revoke" else one.delegation_id)
        assert operator.list_pending_approvals_sync() == []
        with pytest.raises(IllegalTransitionError):
            operator.approve_action_sync(asked.approval_id or "")
        assert child.claim_sync(asked.audit_event_id).denial_reason == "APPROVAL_CANCELLED"
    assert al.verify_state_sync() == []


def test_a_run_that_comes_back_late_uses_what_was_approved_meanwhile(
    al: AgentLattice, operator: AgentLattice, clock: ManualClock
) -> None:
    """Its child expired while a person thought; delegated to again in its run, the same child claims its approval."""
    ask = {"capabilities": ["deploy.*"], "ttl": 60, "run": "thread-1"}
    child = al.delegate_sync("deployer", **ask).__enter__()
    asked = child.execute_sync("deploy.web")
    clock.advance(seconds=90)
    operator.approve_action_sync(asked.approval_id or "")
    again = al.delegate_sync("deployer", **ask).__enter__()
    assert again.claim_sync(asked.audit_event_id).status == "executed"


def test_what_a_child_did_is_replayed_under_its_roots_policies(al: AgentLattice) -> None:
    """Long after it has ended; what was beyond its delegation was never policy's to decide, and is left out."""
    with al.delegate_sync("reader", capabilities=["read_data"], ttl=60) as reader:
        reader.execute_sync("read_data")
        reader.execute_sync("write_results")
    for effect, flips in (("allow", 0), ("deny", 1)):
        candidate = PolicyDocument.parse(
            "version: 1\npolicies:\n"
            f"  - {{name: Reading, action: read_data, effect: {effect}, agents: [ci]}}\n"
            "  - {name: Rest, action: '*', effect: allow, agents: [reader]}\n"
        )
        with al._opened.read() as log:
            recorded = RecordedActions(log)
            report = simulate(recorded, PolicySet.from_document(candidate))
        assert (report.total, sum(report.flips.values()), recorded.refused) == (1, flips, 1)
