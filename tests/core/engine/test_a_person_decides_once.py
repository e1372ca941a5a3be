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
    ReportOutcome,
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


def test_the_audit_trail_says_who_decided_what_when_why_and_by_which_policy(
    al: AgentLattice, operator: AgentLattice, clock: ManualClock
) -> None:
    """For a yes, a no, and a time that ran out."""
    yes, no, _ = ask(al)[1], ask(al)[1], ask(al)[1]
    operator.approve_action_sync(yes, "reviewed")
    operator.deny_action_sync(no, "window closed")
    clock.advance(hours=1)
    events = al.audit_sync().events[::-1]
    assert [event.approval and {**event.approval, "id": None} for event in events] == [
        {
            "id": None,
            "decision": decision,
            "operator": by,
            "reason": reason,
            "at": at,
            "policy": "Deploys",
            "approved_by": [by] if decision == "approved" else [],
        }
        for decision, by, reason, at in (
            ("approved", "k.chen@acme.com", "reviewed", "2026-03-02T09:00:00.000000Z"),
            ("denied", "k.chen@acme.com", "window closed", "2026-03-02T09:00:00.000000Z"),
            ("timed_out", None, None, "2026-03-02T10:00:00.000000Z"),
        )
    ]


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
    deadline = time.monotonic() + 60
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


@pytest.mark.parametrize("said", ["succeeded", "failed"])
def test_whoever_knows_how_it_went_overrules_an_unknown_outcome(al: AgentLattice, said: str) -> None:
    """A run that was presumed lost may still report, by either way; what is known is not made unknown again."""
    noted, reported = (al.execute_sync("pr.open", metadata={"pr_size": 1}).audit_event_id for _ in range(2))
    for event in (noted, reported):
        al.record_outcome(event, "unknown", "nobody had said")
    al.record_outcome(noted, said, "it was slow")
    al.report_sync(reported, ReportOutcome("success" if said == "succeeded" else "failure"))
    for event in (noted, reported):
        al.record_outcome(event, "unknown")
    al.flush()
    assert [event.claim for event in al.audit_sync().events] == [said, said]


def test_a_reason_that_cannot_be_recorded_is_refused(al: AgentLattice, operator: AgentLattice) -> None:
    _, approval = ask(al)
    for reason in ("\ud800", "a\0b", "x" * 20_000):
        with pytest.raises(InvalidRequestError):
            operator.deny_action_sync(approval, reason=reason)
    assert len(operator.list_pending_approvals_sync()) == 1


def test_each_approver_of_a_set_is_met_by_a_person_of_its_own(opened, policies) -> None:
    """`all` of `user:ann` and `group:dba` takes two people, the second of them from the group."""
    policies.write_text(
        "version: 1\n"
        "policies:\n"
        "  - name: Both\n"
        "    action: both.do\n"
        "    effect: require_approval\n"
        "    approval: {approvers: ['user:ann', 'group:dba'], quorum: all}\n"
        "guardrails:\n"
        "  - name: Bob Too\n"
        "    action: both.do\n"
        "    effect: require_approval\n"
        "    approval: {approvers: ['user:bob', 'group:sec']}\n"
    )
    al = opened()
    _, approval = ask(al, "both.do")
    ann = al.for_operator("ann", groups=["dba"])
    assert ann.approve_action_sync(approval).status == "pending"
    assert al.for_operator("bob").approve_action_sync(approval).status == "pending"
    assert al.for_operator("dora", groups=["dba"]).approve_action_sync(approval).status == "approved"


def test_who_approved_may_think_better_of_it_while_others_are_asked(al: AgentLattice) -> None:
    event, approval = ask(al, "vault.open")
    ann = al.for_operator("ann")
    ann.approve_action_sync(approval)
    assert ann.deny_action_sync(approval, reason="wrong vault").status == "denied"
    assert al.claim_sync(event).denial_reason == "DENIED_BY_REVIEWER"
    ann.close()


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"role": "guest"}, "role `guest` must be one of viewer, member, admin"),
        ({"groups": "dba"}, "must be a list of names"),
        ({"groups": ["dba", ""]}, "printable"),
        ({"groups": ["d\nba"]}, r"`d\\nba` must be 1 to 200 printable characters"),
    ],
)
def test_an_identity_that_makes_no_sense_is_refused(al: AgentLattice, options, refused: str) -> None:
    with pytest.raises(InvalidRequestError, match=refused) as caught:
        al.for_operator("k.chen", **options)
    assert caught.value.message.isprintable()


def test_time_of_the_log_decides_what_is_too_late_for_everybody(
    al: AgentLattice, operator: AgentLattice, clock: ManualClock
) -> None:
    """A clock that jumped ahead for one entry and was set back: what the log holds to be over is over."""
    event, approval = ask(al)
    clock.advance(hours=5)
    al.execute_sync("pr.open", metadata={"pr_size": 1})
    clock.advance(hours=-5)
    assert operator.list_pending_approvals_sync() == []
    with pytest.raises(IllegalTransitionError, match="timed out"):
        operator.approve_action_sync(approval)
    assert al.await_approval_sync(approval, timeout=1).status == "timed_out"
    assert al.claim_sync(event).status == "timed_out"


async def test_patience_without_bounds_is_patience_for_ever(al: AgentLattice, operator: AgentLattice) -> None:
    for timeout in (float("inf"), 1e18):
        _, approval = ask(al)
        waiting = asyncio.create_task(al.await_approval(approval, timeout))
        await asyncio.sleep(0)
        await operator.approve_action(approval)
        assert (await asyncio.wait_for(waiting, 60)).claim == "started"


def test_an_agent_that_cannot_be_registered_leaves_the_database_closable(opened) -> None:
    al = opened()
    engine = al._opened
    for wrong in ({"agent": "a\nb"}, {"agent": "b", "tags": "prod"}, {"agent": "b", "owner": ""}):
        with pytest.raises(InvalidRequestError):
            al.for_agent(**wrong)
    al.close()
    assert engine.users == 0


async def test_a_client_closed_behind_a_cancelled_call_still_gives_back(al: AgentLattice) -> None:
    """The admission of a cancelled call lapses although the client that asked for it was closed meanwhile."""
    other = al.for_agent("other")
    begun, go_on = threading.Event(), threading.Event()

    def hold(batch: object) -> None:
        begun.set()
        assert go_on.wait(60)

    holding = threading.Thread(target=lambda: al._opened.run(hold))
    holding.start()
    assert await asyncio.to_thread(begun.wait, 20)
    call = asyncio.create_task(other.execute("refund.issue", amount="100", currency="EUR"))
    await asyncio.sleep(0)
    sequencer = al._opened._sequencer
    go_on.set()
    holding.join()
    while sequencer._queue:  # until the batch with the call has opened
        pass
    call.cancel()
    other.close()
    await asyncio.gather(call, return_exceptions=True)
    deadline = time.monotonic() + 60
    status = ""
    while status != "executed" and time.monotonic() < deadline:
        al.flush()
        if call.cancelled():
            mine = al.for_agent("other")
            status = mine.execute_sync("refund.issue", amount="100", currency="EUR").status
            mine.close()
        else:
            status = "executed"
    assert status == "executed"


def test_a_request_taken_back_cannot_be_decided_and_gives_its_amount_back(
    al: AgentLattice, operator: AgentLattice
) -> None:
    asked = al.execute_sync("order.place", amount="100", currency="EUR")
    assert asked.approval_id is not None
    al.cancel_sync(asked.audit_event_id, reason="the user changed their mind")
    assert operator.list_pending_approvals_sync() == []
    with pytest.raises(IllegalTransitionError, match="already cancelled"):
        operator.approve_action_sync(asked.approval_id)
    with pytest.raises(IllegalTransitionError, match="already cancelled"):
        al.cancel_sync(asked.audit_event_id)
    result = al.claim_sync(asked.audit_event_id)
    assert (result.status, result.denial_reason) == ("denied", "APPROVAL_CANCELLED")
    assert al.execute_sync("order.place", amount="100", currency="EUR").status == "requested"


def test_only_what_waits_can_be_taken_back(al: AgentLattice) -> None:
    done = al.execute_sync("pr.open", metadata={"pr_size": 1})
    with pytest.raises(IllegalTransitionError, match="waits for nobody"):
        al.cancel_sync(done.audit_event_id)
