"""Who may decide: roles and groups that the log vouches for, and nobody who has a hand in the agent."""

from __future__ import annotations

import pytest

from agentlattice_core import AgentLattice, ForbiddenError, IllegalTransitionError, NotFoundError
from agentlattice_core.batch import Batch
from agentlattice_core.segregation import check_segregation


def ask(al: AgentLattice, action_type: str = "deploy.production") -> str:
    approval = al.execute_sync(action_type).approval_id
    assert approval is not None
    return approval


@pytest.fixture
def boss(al: AgentLattice) -> AgentLattice:
    boss = al.for_operator("boss", role="admin")
    boss.register_operator_sync("boss", role="admin")
    return boss


def test_until_somebody_is_registered_the_process_says_who_one_is(al: AgentLattice) -> None:
    assert al.operators_sync() == []
    assert al.for_operator("anybody").approve_action_sync(ask(al)).status == "approved"


def test_from_the_first_registration_on_role_and_groups_are_the_logs(
    al: AgentLattice, boss: AgentLattice
) -> None:
    boss.register_operator_sync("dora", role="member", groups=["dba"])
    boss.register_operator_sync("vera", role="viewer")
    approval = ask(al, "db.migrate")
    with pytest.raises(ForbiddenError, match="not a registered operator"):
        al.for_operator("lead@acme.com", role="admin").approve_action_sync(approval)
    with pytest.raises(ForbiddenError, match="not a registered operator"):
        al.for_operator("stranger").list_pending_approvals_sync()
    vera = al.for_operator("vera", role="admin", groups=["dba"])
    assert len(vera.list_pending_approvals_sync()) == 1
    with pytest.raises(ForbiddenError, match="is a viewer"):
        vera.approve_action_sync(approval)
    assert al.for_operator("dora").approve_action_sync(approval).status == "approved"
    assert [(one.name, one.role, one.established) for one in al.operators_sync()] == [
        ("boss", "admin", "registered"),
        ("dora", "member", "registered"),
        ("vera", "viewer", "registered"),
    ]
    assert al.verify_state_sync() == []


def test_managing_people_erasing_and_policy_take_an_administrator(
    al: AgentLattice, boss: AgentLattice, policies
) -> None:
    boss.register_operator_sync("mia")
    mia = al.for_operator("mia", role="admin")
    for act in (
        lambda: mia.register_operator_sync("mia", role="admin"),
        lambda: mia.remove_operator_sync("boss"),
        lambda: mia.erase_sync([0], "why not"),
        lambda: mia.apply_policies_sync(policies),
    ):
        with pytest.raises(ForbiddenError, match="takes an administrator"):
            act()
    assert boss.apply_policies_sync(policies) == []


def test_an_administrator_is_always_left(al: AgentLattice) -> None:
    boss = al.for_operator("boss", role="admin")
    with pytest.raises(IllegalTransitionError, match="nobody could manage people"):
        boss.register_operator_sync("mia")
    boss.register_operator_sync("boss", role="admin")
    for act in (
        lambda: boss.register_operator_sync("boss", role="member"),
        lambda: boss.remove_operator_sync("boss"),
    ):
        with pytest.raises(IllegalTransitionError, match="nobody could manage people"):
            act()
    boss.register_operator_sync("ann", role="admin")
    boss.remove_operator_sync("boss")
    with pytest.raises(ForbiddenError, match="not a registered operator"):
        boss.register_operator_sync("boss", role="admin")
    with pytest.raises(NotFoundError):
        al.for_operator("ann").remove_operator_sync("boss")


def test_an_agent_is_never_registered_as_a_person(al: AgentLattice, boss: AgentLattice) -> None:
    with pytest.raises(ForbiddenError, match="is an agent"):
        boss.register_operator_sync("ci")


def test_who_registered_an_agent_does_not_decide_for_it(al: AgentLattice) -> None:
    ann = al.for_operator("ann")
    agent = ann.for_agent("made-by-ann", owner="bob")
    approval = ask(agent)
    with pytest.raises(ForbiddenError, match="registered the agent"):
        ann.approve_action_sync(approval)
    with pytest.raises(ForbiddenError, match="owns the agent"):
        al.for_operator("bob").deny_action_sync(approval)
    assert al.for_operator("cid").approve_action_sync(approval).status == "approved"


class _Agents:
    """Agents' state, and nothing else."""

    def __init__(self, **agents: dict[str, str]) -> None:
        self.agents = agents

    def get(self, kind: str, key: str) -> dict[str, str] | None:
        if kind == "agent":
            return self.agents.get(key)
        named = [name for name, agent in self.agents.items() if agent.get("id") == key]
        return {"agent": named[0]} if kind == "agent_id" and named else None


@pytest.mark.parametrize(("parent_of_leaf", "parent_of_child"), [("child", "root"), ("agt_2", "agt_1")])
def test_nobody_in_the_chain_of_an_agent_decides(parent_of_leaf: str, parent_of_child: str) -> None:
    """Whether a child names its parent by name or by id."""
    state = _Agents(
        root={"id": "agt_1", "owner": "olga"},
        child={"id": "agt_2", "owner": "otto", "registered_by": "rita", "parent": parent_of_child},
        leaf={"id": "agt_3", "owner": "ole", "parent": parent_of_leaf},
    )
    for person in ("olga", "otto", "rita", "ole", "root", "child", "leaf"):
        with pytest.raises(ForbiddenError):
            check_segregation(state, "leaf", person)
    check_segregation(state, "leaf", "zoe")
    check_segregation(state, "root", "ole")


def test_a_chain_that_cannot_be_followed_lets_nobody_decide() -> None:
    for state in (_Agents(leaf={"parent": "gone"}), _Agents(leaf={"parent": "leaf"})):
        with pytest.raises(ForbiddenError, match="cannot be followed"):
            check_segregation(state, "leaf", "zoe")


def test_people_are_remembered_when_the_log_is_opened_again(opened, boss: AgentLattice) -> None:
    def count(batch: Batch) -> int:
        return sum(1 for _ in batch.scan("operator"))

    again = opened(agent=None, operator="boss")
    assert again._opened.run(count) == 1
    assert [one.name for one in again.operators_sync()] == ["boss"]
