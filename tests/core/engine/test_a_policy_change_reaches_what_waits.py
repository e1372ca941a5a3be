"""When policy changes, requests that wait are asked about again: approved, denied or shown to others, by nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from agentlattice_core import AgentLattice, DigestMismatchError, ForbiddenError, reevaluation
from agentlattice_core.operators import operator_identity
from agentlattice_core.policies import publish
from agentlattice_core.policy import PolicyDocument
from agentlattice_core.testing import ManualClock

ASKS = """
  - name: Deploys
    action: deploy.*
    effect: require_approval
    approval: {timeout: 1h, approvers: [%s], quorum: %s}
"""
ALLOWS = "  - {name: Deploys, action: deploy.*, effect: allow}\n"
DENIES = "  - {name: Deploys, action: deploy.*, effect: deny}\n"
OTHER = "  - {name: Other, action: other.do, effect: allow}\n"

Change = Callable[..., list[str]]


def asking(*approvers: str, quorum: int | str = 1) -> str:
    return ASKS % (", ".join(f'"{one}"' for one in approvers), quorum)


@pytest.fixture
def al(opened, policies: Path) -> AgentLattice:
    policies.write_text("version: 1\npolicies:\n" + asking("user:ann", "user:bob", quorum=2) + OTHER)
    return opened()


@pytest.fixture
def change(al: AgentLattice, policies: Path) -> Change:
    def publish_text(text: str, guardrails: str = "") -> list[str]:
        policies.write_text("version: 1\npolicies:\n" + OTHER + text + guardrails)
        return al.apply_policies_sync(policies, prune=True)

    return publish_text


def ask(al: AgentLattice, **fields: Any) -> tuple[str, str]:
    asked = al.execute_sync("deploy.api", **fields)
    assert asked.approval_id is not None
    return asked.audit_event_id, asked.approval_id


def last(al: AgentLattice, kind: str = "approval") -> dict[str, Any]:
    with al._opened.read() as reader:
        entries = [orjson.loads(row[1]) for row in reader.rows()]
    return [entry for entry in entries if entry["kind"] == kind][-1]


def test_what_policy_now_allows_is_approved_by_nobody_with_a_note(al: AgentLattice, change: Change) -> None:
    event, approval = ask(al)
    change(ALLOWS)
    data = last(al)["data"]
    assert (data["approval"], data["event"], data["by"], data["note"]) == (
        approval,
        "approved",
        None,
        "policy now allows it",
    )
    assert al.claim_sync(event).claim == "started"
    found = al.audit_sync().events[0]
    assert (found.approved_by, found.approved_at is not None) == (None, True)
    assert al.verify_state_sync() == []


def test_what_waits_for_a_deleted_policy_is_approved_and_runs_but_nothing_new_does(
    al: AgentLattice, change: Change
) -> None:
    event, _ = ask(al)
    change("")
    assert last(al)["data"]["note"] == "its policy was deleted or deactivated"
    assert al.execute_sync("deploy.api").status == "policy_not_found"
    assert al.claim_sync(event).claim == "started"
    assert al.verify_state_sync() == []


def test_a_deactivated_policy_is_as_a_deleted_one(al: AgentLattice, change: Change) -> None:
    event, _ = ask(al)
    change(asking("user:ann").replace("require_approval", "require_approval\n    active: false"))
    assert al.claim_sync(event).claim == "started"


def test_a_guardrail_still_holds_when_the_policy_is_deleted(al: AgentLattice, change: Change) -> None:
    ask(al)
    guard = "guardrails:\n  - {name: Freeze, action: deploy.*, effect: %s}\n"
    change("", guard % "require_approval")
    assert len(al.for_operator("zoe").list_pending_approvals_sync()) == 1
    change("", guard % "deny")
    assert last(al)["data"]["event"] == "denied"


def test_a_policy_that_no_longer_covers_it_denies_it(al: AgentLattice, change: Change) -> None:
    """Narrowing is not deleting: what falls out of a policy fails closed."""
    event, _ = ask(al)
    change(asking("user:ann").replace("deploy.*", "deploy.web"))
    refused = al.claim_sync(event)
    assert (refused.status, refused.denial_reason) == ("denied", "POLICY_DENIED")
    assert refused.message == "no policy covers it any more"


def test_what_policy_now_denies_is_denied_for_policys_reason(al: AgentLattice, change: Change) -> None:
    event, _ = ask(al)
    change(DENIES)
    refused = al.claim_sync(event)
    assert (refused.status, refused.denial_reason) == ("denied", "POLICY_DENIED")
    assert al.audit_sync().events[0].denial_reason == "POLICY_DENIED"
    data = last(al)["data"]
    assert (data["by"], data["decided_by"]["name"], data["decided_by"]["version"]) == (None, "Deploys", 2)


def test_a_waiter_wakes_when_policy_decides(al: AgentLattice, change: Change) -> None:
    asked = threading.Event()
    answers: list[str | None] = []
    al.subscribe_sync(al.org_id, lambda _: asked.set(), events=["approval.requested"])
    waiting = threading.Thread(target=lambda: answers.append(al.gate_sync("deploy.api").claim))
    waiting.start()
    assert asked.wait(60)
    change(ALLOWS)
    waiting.join(60)
    assert answers == ["started"]


def test_votes_of_who_is_no_longer_listed_are_void(al: AgentLattice, change: Change) -> None:
    event, approval = ask(al)
    ann, bob, cid = (al.for_operator(name) for name in ("ann", "bob", "cid"))
    ann.approve_action_sync(approval)
    deadline = ann.list_pending_approvals_sync()[0].timeout_at
    change(asking("user:bob", "user:cid", quorum=2))
    (request,) = bob.list_pending_approvals_sync()
    assert (request.approved_by, request.timeout_at) == ([], deadline)
    with pytest.raises(ForbiddenError, match="not among the approvers"):
        ann.approve_action_sync(approval)
    assert bob.approve_action_sync(approval).status == "pending"
    assert cid.approve_action_sync(approval).status == "approved"
    assert al.claim_sync(event).claim == "started"
    assert al.verify_state_sync() == []
    for client in (ann, bob, cid):
        client.close()


def test_a_smaller_quorum_that_is_full_already_approves(al: AgentLattice, change: Change) -> None:
    event, approval = ask(al)
    ann = al.for_operator("ann")
    ann.approve_action_sync(approval)
    change(asking("user:ann", "user:bob", quorum=1))
    data = last(al)["data"]
    assert (data["event"], data["by"]) == ("approved", None)
    assert al.claim_sync(event).claim == "started"
    ann.close()


def test_a_decision_on_what_was_shown_before_the_terms_changed_is_a_conflict(
    al: AgentLattice, change: Change
) -> None:
    _, approval = ask(al)
    bob = al.for_operator("bob")
    before = bob.list_pending_approvals_sync()[0].digest
    change(asking("user:bob"))
    with pytest.raises(DigestMismatchError) as raised:
        bob.approve_action_sync(approval, digest=before)
    assert raised.value.code == "DIGEST_MISMATCH"
    after = bob.list_pending_approvals_sync()[0].digest
    assert bob.approve_action_sync(approval, digest=after).status == "approved"
    bob.close()


def test_a_grant_of_too_few_is_not_claimed_under_a_stricter_policy(al: AgentLattice, change: Change) -> None:
    event, approval = ask(al)
    ann, bob = al.for_operator("ann"), al.for_operator("bob")
    ann.approve_action_sync(approval)
    bob.approve_action_sync(approval)
    change(asking("user:ann", "user:eve", quorum=2))
    refused = al.claim_sync(event)
    assert (refused.status, refused.claim, refused.denial_reason) == ("denied", None, "POLICY_DENIED")
    assert "other approvers" in (refused.message or "")
    assert al.claim_sync(event).status == "denied"
    assert al.verify_state_sync() == []
    ann.close()
    bob.close()


def test_a_grant_by_policy_is_not_claimed_once_policy_asks_again(al: AgentLattice, change: Change) -> None:
    event, _ = ask(al)
    change(ALLOWS)
    change(asking("user:ann"))
    assert al.claim_sync(event).status == "denied"


def test_a_change_elsewhere_changes_nothing_here(
    al: AgentLattice, policies: Path, clock: ManualClock
) -> None:
    """Nor does the hour: what is asked about again is asked as of when it was asked."""
    hours = (
        "version: 1\npolicies:\n  - name: Deploys\n    action: deploy.*\n    effect: allow\n"
        "    approval: {timeout: 4h}\n    rules:\n"
        "      - {priority: 1, type: TIME_WINDOW, from: '09:00', to: '10:00', timezone: UTC, effect: REQUIRE_HUMAN}\n"
    )
    policies.write_text(hours + OTHER)
    al.apply_policies_sync(policies)
    _, approval = ask(al)
    clock.advance(hours=1)
    assert al.execute_sync("deploy.api").status == "executed"
    waits = al.for_operator("zoe").list_pending_approvals_sync
    al.apply_policies_sync(
        PolicyDocument.parse("version: 1\npolicies:\n  - {name: M, action: m.do, effect: allow}\n")
    )
    assert [one.id for one in waits()] == [approval]
    policies.write_text(hours.replace("effect: allow", "effect: allow\n    description: as before") + OTHER)
    assert al.apply_policies_sync(policies) == ["policy/deploys"]
    assert [one.id for one in waits()] == [approval]


def test_a_request_whose_deadline_has_passed_is_not_approved_by_policy(
    al: AgentLattice, change: Change, clock: ManualClock
) -> None:
    event, _ = ask(al)
    clock.advance(hours=1)
    change(ALLOWS)
    assert al.claim_sync(event).status == "timed_out"


def test_a_thousand_requests_are_all_reached(al: AgentLattice, change: Change) -> None:
    """More than a transaction holds: what is left is noted in the log and done next; nothing is left over."""
    resolved: set[str] = set()
    done = threading.Event()

    def count(event: Any) -> None:
        resolved.add(event.data["approval_id"])
        if len(resolved) == 1000:
            done.set()

    asked = {ask(al)[1] for _ in range(1000)}
    al.subscribe_sync(al.org_id, count, events=["approval.resolved"])
    change(ALLOWS)
    assert done.wait(60)
    assert resolved == asked
    al.flush()
    assert al.for_operator("zoe").list_pending_approvals_sync() == []
    assert al.verify_state_sync() == []
    with al._opened.read() as reader:
        assert reader.get("reevaluation", "set") is None


def test_what_a_killed_process_left_undone_is_done_on_opening(
    opened, al: AgentLattice, policies: Path
) -> None:
    """The change is durable and half of the requests are not asked about yet; whoever opens the file goes on."""
    for _ in range(10):
        ask(al)
    document = PolicyDocument.parse("version: 1\npolicies:\n" + ALLOWS)
    boss = al.for_operator("boss")

    def some(batch: Any) -> None:
        by = operator_identity(boss._deciding())
        change = publish(
            batch, document, source=policies.name, source_digest="x", by=by, prune=True, force=True
        )
        reevaluation.begin(al._opened.policies, batch, change.patterns, limit=3)

    engine = al._opened
    engine._scheduler.stop()
    engine.keeper.close()
    engine.run(some)
    assert len(boss.list_pending_approvals_sync()) == 7
    boss.close()
    al.close()
    again = opened(policies=None)
    assert again.for_operator("boss").list_pending_approvals_sync() == []
    assert again.verify_state_sync() == []


def test_a_rehearsal_tells_what_would_be_approved_and_does_nothing(al: AgentLattice, policies: Path) -> None:
    _, approval = ask(al)
    policies.write_text("version: 1\npolicies:\n" + OTHER)
    rehearsal = al.rehearse_policies_sync(policies, prune=True)
    assert rehearsal.changed == ["policy/deploys"]
    assert [(one.id, one.status) for one in rehearsal.approved] == [(approval, "approved")]
    assert (rehearsal.denied, rehearsal.amended) == ([], [])
    assert [one.id for one in al.for_operator("zoe").list_pending_approvals_sync()] == [approval]
    assert al.execute_sync("deploy.api").status == "requested"
    assert al.verify_state_sync() == []
