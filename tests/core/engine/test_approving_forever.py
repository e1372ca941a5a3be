"""Approving forever lifts the policy that asked, as far as the whole quorum agreed, and never a rule or a guardrail."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import orjson
import pytest

from agentlattice_core import AgentLattice, ForbiddenError, IllegalTransitionError, InvalidRequestError
from agentlattice_core.policy import PolicyDocument

POLICY = """
version: 1
policies:
  - name: Deploys
    action: deploy.*
    effect: require_approval
    conditions:
      - {field: size, operator: lt, value: 50}
  - name: Two Keys
    action: vault.open
    effect: require_approval
    approval: {approvers: ["user:ann", "user:bob", "user:cid"], quorum: 2}
  - name: Refunds
    action: refund.issue
    effect: require_approval
    rules:
      - {priority: 10, type: AMOUNT_THRESHOLD, min: "500", currency: EUR, effect: REQUIRE_HUMAN}
  - name: Rule Only
    action: rule.only
    effect: allow
    rules:
      - {priority: 10, type: AMOUNT_THRESHOLD, min: "500", currency: EUR, effect: REQUIRE_HUMAN}
  - name: Listed
    action: listed.do
    effect: require_approval
    agents: [ci, bot]
  - name: Tagged
    action: tagged.do
    effect: require_approval
    agent_tags: [prod]
  - name: Capped
    action: capped.do
    effect: require_approval
    rules:
      - {priority: 10, type: DAILY_CAP, cap: "100", currency: EUR, timezone: UTC, effect: REJECT}
  - {name: Free, action: free.do, effect: allow}
guardrails:
  - {name: Freeze, action: free.do, effect: require_approval}
"""


@pytest.fixture
def al(opened, policies: Path) -> AgentLattice:
    policies.write_text(POLICY)
    return opened(tags=["prod"])


@pytest.fixture
def admin(al: AgentLattice) -> AgentLattice:
    return al.for_operator("boss", role="admin")


def ask(al: AgentLattice, action_type: str = "deploy.api", **fields: Any) -> str:
    if action_type.startswith("deploy"):
        fields.setdefault("metadata", {"size": 1})
    asked = al.execute_sync(action_type, **fields)
    assert asked.approval_id is not None, asked
    return asked.approval_id


def test_for_the_policy_nobody_is_asked_any_more(al: AgentLattice, admin: AgentLattice) -> None:
    other = al.for_agent("other")
    waiting = ask(other)
    approved = admin.approve_action_sync(ask(al), forever="policy")
    assert (approved.status, approved.forever) == ("approved", "policy")
    assert al.execute_sync("deploy.web", metadata={"size": 1000}).status == "executed"
    with al._opened.read() as reader:
        document = reader.get("approval", waiting)
        published = [orjson.loads(row[1]) for row in reader.rows() if b'"forever"' in row[1]]
    assert document is not None
    assert (document["status"], document["resolved_by"]) == ("approved", None)
    data = published[-1]["data"]
    assert (data["part"], data["version"], data["approval"]) == ("policy/deploys", 2, approved.id)
    assert published[-1]["who"]["operator"] == "boss"
    assert al.verify_state_sync() == []


def test_for_the_agent_the_others_are_still_asked(al: AgentLattice, admin: AgentLattice) -> None:
    other = al.for_agent("other")
    assert admin.approve_action_sync(ask(al), forever="agent").forever == "agent"
    assert al.execute_sync("deploy.web").status == "executed"
    assert other.execute_sync("deploy.web", metadata={"size": 1}).status == "requested"
    assert other.execute_sync("deploy.web", metadata={"size": 99}).status == "denied"


def test_an_agent_that_the_policy_lists_leaves_its_list(al: AgentLattice, admin: AgentLattice) -> None:
    bot = al.for_agent("bot")
    admin.approve_action_sync(ask(al, "listed.do"), forever="agent")
    assert al.execute_sync("listed.do").status == "executed"
    second = ask(bot, "listed.do")
    admin.approve_action_sync(second, forever="agent")
    assert bot.execute_sync("listed.do").status == "executed"
    assert al.for_agent("third").execute_sync("listed.do").status == "policy_not_found"


def test_a_rule_that_asks_goes_on_asking(al: AgentLattice, admin: AgentLattice) -> None:
    approved = admin.approve_action_sync(
        ask(al, "refund.issue", amount="500", currency="EUR"), forever="policy"
    )
    assert approved.forever == "policy"
    assert al.execute_sync("refund.issue", amount="499", currency="EUR").status == "executed"
    assert al.execute_sync("refund.issue", amount="500", currency="EUR").status == "requested"


def test_it_takes_an_administrator(al: AgentLattice) -> None:
    approval = ask(al)
    member = al.for_operator("mia")
    with pytest.raises(ForbiddenError, match="approving forever takes an administrator"):
        member.approve_action_sync(approval, forever="policy")
    with pytest.raises(InvalidRequestError, match="one of policy, agent"):
        member.approve_action_sync(approval, forever="ever")  # type: ignore[arg-type]
    assert member.approve_action_sync(approval).status == "approved"


@pytest.mark.parametrize(
    ("action_type", "fields", "forever", "says"),
    [
        ("free.do", {}, "policy", "guardrail"),
        ("rule.only", {"amount": "500", "currency": "EUR"}, "policy", "allows already"),
        ("tagged.do", {}, "agent", "by tags"),
        ("capped.do", {"amount": "1", "currency": "EUR"}, "agent", "counted anew"),
    ],
)
def test_what_cannot_be_lifted_is_refused_and_can_be_approved_once(
    al: AgentLattice, admin: AgentLattice, action_type: str, fields: dict[str, str], forever: Any, says: str
) -> None:
    approval = ask(al, action_type, **fields)
    with pytest.raises(IllegalTransitionError, match=says):
        admin.approve_action_sync(approval, forever=forever)
    assert admin.approve_action_sync(approval).status == "approved"
    assert al.execute_sync(action_type, **fields).status == "requested"


@pytest.mark.parametrize(
    ("first", "second", "reach"),
    [
        ("policy", "policy", "policy"),
        ("policy", "agent", "agent"),
        ("agent", "policy", "agent"),
        (None, "policy", None),
        ("policy", None, None),
    ],
)
def test_it_reaches_as_far_as_the_whole_quorum_agreed(
    al: AgentLattice, first: Any, second: Any, reach: str | None
) -> None:
    approval = ask(al, "vault.open")
    ann, bob = al.for_operator("ann", role="admin"), al.for_operator("bob", role="admin")
    assert ann.approve_action_sync(approval, forever=first).forever is None
    assert al.execute_sync("vault.open").status == "requested"
    done = bob.approve_action_sync(approval, forever=second)
    assert (done.status, done.forever) == ("approved", reach)
    status = al.execute_sync("vault.open").status
    assert status == ("requested" if reach is None else "executed")
    status = al.for_agent("other").execute_sync("vault.open").status
    assert status == ("executed" if reach == "policy" else "requested")
    assert al.verify_state_sync() == []


def test_a_policy_that_changed_since_it_asked_is_not_lifted(
    al: AgentLattice, admin: AgentLattice, policies: Path
) -> None:
    approval = ask(al)
    policies.write_text(POLICY.replace("value: 50", "value: 40"))
    al.apply_policies_sync(policies)
    with pytest.raises(IllegalTransitionError, match="not what it was"):
        admin.approve_action_sync(approval, forever="policy")


def test_an_unchanged_part_of_a_file_does_not_undo_it_and_says_so(
    opened, al: AgentLattice, admin: AgentLattice, policies: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither on opening with the file as it was, nor with one that changed elsewhere; only by saying something new, or
    by being applied explicitly.
    """
    admin.approve_action_sync(ask(al), forever="policy")
    for text in (POLICY, POLICY.replace("name: Free,", "name: Freed,")):
        policies.write_text(text)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="agentlattice"):
            again = opened()
        assert "policy/deploys" in caplog.text
        assert again.execute_sync("deploy.api").status == "executed"
    al.apply_policies_sync(policies)
    assert al.execute_sync("deploy.api", metadata={"size": 1}).status == "requested"
    assert al.verify_state_sync() == []


def test_a_file_that_says_something_new_of_the_part_is_applied(
    opened, al: AgentLattice, admin: AgentLattice, policies: Path
) -> None:
    admin.approve_action_sync(ask(al), forever="policy")
    policies.write_text(POLICY.replace("value: 50", "value: 40"))
    again = opened()
    assert again.execute_sync("deploy.api", metadata={"size": 1}).status == "requested"


def test_a_document_in_code_does_not_undo_it(opened, tmp_path: Path) -> None:
    document = PolicyDocument.parse(POLICY)
    al = opened(policies=document)
    al.for_operator("boss", role="admin").approve_action_sync(ask(al), forever="policy")
    assert opened(policies=document).execute_sync("deploy.api").status == "executed"
