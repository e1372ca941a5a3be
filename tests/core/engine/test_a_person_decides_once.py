"""Approvals and claims: asked, decided at most once, claimed at most once, decided on again when claimed."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from agentlattice_core import (
    AgentLattice,
    AgentLatticeDeniedError,
    AgentLatticeTimeoutError,
    ForbiddenError,
    IllegalTransitionError,
    InvalidRequestError,
    NotFoundError,
)
from agentlattice_core.testing import ManualClock


def ask(al: AgentLattice, action_type: str = "deploy.production", **fields) -> tuple[str, str]:
    result = al.execute_sync(action_type, **fields)
    assert result.status == "requested"
    assert result.approval_id is not None
    return result.audit_event_id, result.approval_id


def test_a_request_shows_what_is_asked_and_by_whom(al: AgentLattice, operator: AgentLattice) -> None:
    event, approval = ask(
        al, "db.migrate", metadata={"table": "users"}, data_accessed=[{"type": "database", "count": 1}]
    )
    (request,) = operator.list_pending_approvals_sync()
    assert (request.id, request.audit_event_id, request.agent, request.action_type) == (
        approval,
        event,
        "ci",
        "db.migrate",
    )
    assert request.metadata == {"table": "users"}
    assert request.approvers == [{"approvers": ["group:dba", "user:lead@acme.com"], "quorum": 1}]
    assert request.timeout_at > request.requested_at


def test_an_approved_action_is_claimed_once(al: AgentLattice, operator: AgentLattice) -> None:
    event, approval = ask(al)
    assert al.claim_sync(event).status == "requested"
    assert operator.approve_action_sync(approval, reason="reviewed").status == "approved"
    claimed = al.claim_sync(event)
    assert (claimed.status, claimed.claim) == ("executed", "started")
    with pytest.raises(IllegalTransitionError, match="at most once"):
        al.claim_sync(event)
    found = al.audit_sync().events[0]
    assert (found.status, found.approved_by, found.claim) == ("executed", "k.chen@acme.com", "started")


def test_a_denial_ends_it_and_its_reason_reaches_the_agent(al: AgentLattice, operator: AgentLattice) -> None:
    event, approval = ask(al)
    operator.deny_action_sync(approval, reason="deployment window closed")
    result = al.claim_sync(event)
    assert (result.status, result.denial_reason) == ("denied", "DENIED_BY_REVIEWER")
    assert result.message == "deployment window closed"


def test_a_decision_is_final(al: AgentLattice, operator: AgentLattice) -> None:
    _, approval = ask(al)
    operator.deny_action_sync(approval)
    with pytest.raises(IllegalTransitionError, match=r"already denied by `k\.chen@acme\.com`"):
        operator.approve_action_sync(approval)
    with pytest.raises(NotFoundError):
        operator.approve_action_sync("apr_unknown")


def test_a_hundred_deciders_racing_decide_once(al: AgentLattice) -> None:
    _, approval = ask(al)
    answers: list[str] = []

    def decide(number: int) -> None:
        client = al.for_operator(f"operator-{number}")
        try:
            act = client.approve_action_sync if number % 2 else client.deny_action_sync
            answers.append(act(approval).status)
        except IllegalTransitionError:
            answers.append("late")
        finally:
            client.close()

    threads = [threading.Thread(target=decide, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers)[1:] == ["late"] * 99


def test_a_decision_at_the_deadline_does_not_count(
    al: AgentLattice, operator: AgentLattice, clock: ManualClock
) -> None:
    event, approval = ask(al)
    clock.advance(hours=1)
    with pytest.raises(IllegalTransitionError, match="timed out"):
        operator.approve_action_sync(approval)
    assert operator.list_pending_approvals_sync() == []
    assert al.await_approval_sync(approval).status == "timed_out"
    result = al.claim_sync(event)
    assert (result.status, result.denial_reason) == ("timed_out", "approval_timeout")


def test_a_decision_just_before_the_deadline_counts(
    al: AgentLattice, operator: AgentLattice, clock: ManualClock
) -> None:
    _, approval = ask(al)
    clock.advance(minutes=59, seconds=59.999)
    assert operator.approve_action_sync(approval).status == "approved"


def test_an_approval_that_nobody_claims_lapses(
    al: AgentLattice, operator: AgentLattice, clock: ManualClock
) -> None:
    event, approval = ask(al)
    operator.approve_action_sync(approval)
    clock.advance(hours=24)
    assert al.claim_sync(event).status == "denied"
    assert al.audit_sync().events[0].status == "lapsed"


@pytest.mark.parametrize(
    ("name", "options", "refused"),
    [
        ("viewer", {"role": "viewer"}, "is a viewer"),
        ("ci", {}, "is an agent"),
        ("stranger", {}, "not among the approvers"),
        ("boss", {"role": "admin"}, "not among the approvers"),
    ],
)
def test_who_may_not_decide_is_refused(al: AgentLattice, name: str, options, refused: str) -> None:
    _, approval = ask(al, "db.migrate")
    client = al.for_operator(name, **options)
    with pytest.raises(ForbiddenError, match=refused):
        client.approve_action_sync(approval)
    client.close()


def test_the_owner_of_the_agent_may_not_decide_for_it(opened) -> None:
    al = opened(owner="ann@acme.com")
    _, approval = ask(al)
    with pytest.raises(ForbiddenError, match="owns the agent"):
        al.for_operator("ann@acme.com").approve_action_sync(approval)


def test_a_listed_group_or_person_may_decide(al: AgentLattice) -> None:
    for options in ({"operator": "lead@acme.com"}, {"operator": "dora", "groups": ["dba"]}):
        _, approval = ask(al, "db.migrate")
        client = al.for_operator(**options)
        assert client.approve_action_sync(approval).status == "approved"
        client.close()


def test_a_quorum_takes_as_many_different_people(al: AgentLattice) -> None:
    event, approval = ask(al, "vault.open")
    ann, bob = al.for_operator("ann"), al.for_operator("bob")
    assert ann.approve_action_sync(approval).status == "pending"
    assert al.claim_sync(event).status == "requested"
    with pytest.raises(IllegalTransitionError, match="another approver"):
        ann.approve_action_sync(approval)
    assert bob.approve_action_sync(approval).status == "approved"
    ann.close()
    bob.close()


def test_a_decision_is_bound_to_what_was_shown(al: AgentLattice, operator: AgentLattice) -> None:
    _, one = ask(al, metadata={"service": "a"})
    _, other = ask(al, metadata={"service": "b"})
    shown = {request.id: request.digest for request in operator.list_pending_approvals_sync()}
    with pytest.raises(IllegalTransitionError, match="not what was shown"):
        operator.approve_action_sync(one, digest=shown[other])
    assert operator.approve_action_sync(one, digest=shown[one]).status == "approved"


def test_policy_is_asked_again_when_an_approved_action_is_claimed(
    al: AgentLattice, operator: AgentLattice, policies
) -> None:
    event, approval = ask(al)
    operator.approve_action_sync(approval)
    text = policies.read_text()
    policies.write_text(
        text.replace("action: deploy.*\n    effect: require_approval", "action: deploy.*\n    effect: deny")
    )
    al.apply_policies_sync(policies)
    result = al.claim_sync(event)
    assert (result.status, result.denial_reason) == ("denied", "POLICY_DENIED")
    policies.write_text(text)
    al.apply_policies_sync(policies)
    assert al.claim_sync(event).status == "denied"


def test_erased_arguments_cannot_be_decided_on_again(al: AgentLattice, operator: AgentLattice) -> None:
    event, approval = ask(al)
    operator.approve_action_sync(approval)
    admin = al.for_operator("dpo", role="admin")
    admin.erase_sync([int(event[4:16], 16)], "request of the person concerned")
    admin.close()
    with pytest.raises(IllegalTransitionError, match="erased"):
        al.claim_sync(event)


async def test_gate_wakes_when_somebody_decides(al: AgentLattice, operator: AgentLattice) -> None:
    async def decide() -> None:
        while not (waiting := await operator.list_pending_approvals()):
            await asyncio.sleep(0.01)
        await operator.approve_action(waiting[0].id)

    result, _ = await asyncio.gather(al.gate("deploy.production"), decide())
    assert (result.status, result.claim) == ("executed", "started")


def test_gate_sync_wakes_when_somebody_decides(al: AgentLattice, operator: AgentLattice) -> None:
    def decide() -> None:
        while not (waiting := operator.list_pending_approvals_sync()):
            pass
        operator.deny_action_sync(waiting[0].id, reason="not today")

    thread = threading.Thread(target=decide)
    thread.start()
    with pytest.raises(AgentLatticeDeniedError, match="not today") as raised:
        al.gate_sync("deploy.production")
    thread.join()
    assert raised.value.reason == "DENIED_BY_REVIEWER"
    assert raised.value.approval_id is not None


def test_gate_times_out_at_the_deadline_of_the_request(al: AgentLattice, clock: ManualClock) -> None:
    timer = threading.Timer(0.1, lambda: clock.advance(hours=2))
    timer.start()
    with pytest.raises(AgentLatticeTimeoutError):
        al.gate_sync("deploy.production")
    assert al.audit_sync().events[0].denial_reason == "approval_timeout"


def test_gate_gives_up_after_its_own_timeout_and_leaves_the_request_open(opened) -> None:
    al = opened(gate_poll_timeout_ms=0)
    with pytest.raises(AgentLatticeTimeoutError):
        al.gate_sync("deploy.production")
    assert len(al.for_operator("k.chen").list_pending_approvals_sync()) == 1


async def test_a_cancelled_gate_leaves_no_claim(al: AgentLattice, operator: AgentLattice) -> None:
    task = asyncio.create_task(al.gate("deploy.production"))
    while not (waiting := await operator.list_pending_approvals()):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await operator.approve_action(waiting[0].id)
    assert (await al.audit()).events[0].claim is None


async def test_an_admission_whose_caller_was_cancelled_lapses(al: AgentLattice) -> None:
    tasks = [asyncio.create_task(al.execute("refund.issue", amount="10", currency="EUR")) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    delivered = sum(not isinstance(answer, BaseException) for answer in answers)
    # What lapses is given back, as soon as the batch it was in has ended: the whole of the cap is there again.
    deadline = time.monotonic() + 20
    allowed = 0
    while allowed < 10 - delivered and time.monotonic() < deadline:
        al.flush()
        allowed += al.execute_sync("refund.issue", amount="10", currency="EUR").status == "executed"
    assert allowed == 10 - delivered
    assert al.execute_sync("refund.issue", amount="0.01", currency="EUR").status == "denied"
    events = (await al.audit(limit=200)).events
    assert sum(event.claim == "started" for event in events) == 10


def test_outcomes_need_no_waiting_and_the_first_word_on_a_claim_counts(al: AgentLattice) -> None:
    event = al.execute_sync("pr.open", metadata={"pr_size": 1}).audit_event_id
    al.record_outcome(event, "failed", "merge conflict")
    al.record_outcome(event, "succeeded")
    al.flush()
    found = al.audit_sync().events[0]
    assert (found.claim, found.outcome) == ("failed", {"claim": "failed", "message": "merge conflict"})


def test_a_reason_that_cannot_be_recorded_is_refused(al: AgentLattice, operator: AgentLattice) -> None:
    _, approval = ask(al)
    for reason in ("\ud800", "a\0b", "x" * 20_000):
        with pytest.raises(InvalidRequestError):
            operator.deny_action_sync(approval, reason=reason)
    assert len(operator.list_pending_approvals_sync()) == 1
