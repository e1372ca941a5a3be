"""Timeouts, escalations and lapses are recorded though nobody waits, once, by whichever process comes first."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from agentlattice_core import AgentLattice, ForbiddenError, GovernanceEvent, IllegalTransitionError
from agentlattice_core.stores.projections import fold
from agentlattice_core.testing import ManualClock

POLICY = """
version: 1
policies:
  - name: Deploys
    action: deploy.*
    effect: require_approval
    approval: {timeout: 1h, approvers: ["user:lead"], escalate_after: 20m,
      escalate_to: ["group:oncall", "webhook:pager"]}
  - name: Both
    action: both.do
    effect: require_approval
    approval: {timeout: 1h, approvers: ["user:ann", "group:dba"], quorum: all, escalate_after: 20m,
      escalate_to: ["user:boss"]}
  - name: Orders
    action: order.place
    effect: require_approval
    rules:
      - {priority: 40, type: DAILY_CAP, cap: "100.00", currency: EUR, timezone: UTC, effect: REJECT}
"""

SHORT = "version: 1\npolicies:\n  - {name: D, action: deploy.*, effect: require_approval, approval: {timeout: 1s}}\n"


@pytest.fixture
def al(opened, policies: Path) -> AgentLattice:
    policies.write_text(POLICY)
    return opened()


def entries(al: AgentLattice, kind: str = "approval") -> list[dict[str, Any]]:
    with al._opened.read() as reader:
        found = [orjson.loads(row[1]) for row in reader.rows()]
    return [entry for entry in found if entry["kind"] == kind]


def ask(al: AgentLattice, action_type: str = "deploy.api", **fields: Any) -> str:
    asked = al.execute_sync(action_type, **fields)
    assert asked.approval_id is not None
    return asked.approval_id


def test_a_timeout_is_recorded_with_all_that_an_auditor_asks_for(
    al: AgentLattice, clock: ManualClock
) -> None:
    approval = ask(al)
    clock.advance(hours=1)
    last = entries(al)[-1]
    data = last["data"]
    assert (data["event"], data["approval"], data["action_type"]) == ("timed_out", approval, "deploy.api")
    assert (data["agent"], data["policy"]["name"], last["who"]) == ("ci", "Deploys", {"system": "deadline"})
    assert last["at"] == "2026-03-02T10:00:00.000000Z"
    assert al.verify_state_sync() == []


def test_a_timeout_gives_back_what_was_reserved(al: AgentLattice, clock: ManualClock) -> None:
    ask(al, "order.place", amount="100", currency="EUR")
    assert al.execute_sync("order.place", amount="1", currency="EUR").status == "denied"
    clock.advance(minutes=30)
    with al._opened.read() as reader:
        assert [limit["used"] for _, limit in reader.scan("limit")] == ["0"]


def test_an_unused_grant_lapses_by_itself_and_gives_its_amount_back(
    al: AgentLattice, operator: AgentLattice, clock: ManualClock
) -> None:
    asked = al.execute_sync("order.place", amount="100", currency="EUR")
    operator.approve_action_sync(asked.approval_id)
    clock.advance(hours=23, minutes=59)
    assert entries(al, "claim") == []
    clock.advance(minutes=1)
    (lapsed,) = entries(al, "claim")
    assert (lapsed["data"]["event"], lapsed["who"]) == ("lapsed", {"system": "deadline"})
    with al._opened.read() as reader:
        assert [limit["used"] for _, limit in reader.scan("limit")] == ["0"]
    refused = al.claim_sync(asked.audit_event_id)
    assert (refused.status, refused.denial_reason) == ("denied", "approval_timeout")
    assert "lapsed" in (refused.message or "")
    assert al.verify_state_sync() == []


def test_a_grant_that_was_used_does_not_lapse(
    al: AgentLattice, operator: AgentLattice, clock: ManualClock
) -> None:
    asked = al.execute_sync("order.place", amount="100", currency="EUR")
    operator.approve_action_sync(asked.approval_id)
    assert al.claim_sync(asked.audit_event_id).claim == "started"
    clock.advance(hours=25)
    assert [entry["data"]["event"] for entry in entries(al, "claim")] == ["started"]


def test_escalation_adds_approvers_and_tells_whom_to_ring(al: AgentLattice, clock: ManualClock) -> None:
    told: list[GovernanceEvent] = []
    heard = threading.Event()

    def hear(event: GovernanceEvent) -> None:
        told.append(event)
        heard.set()

    lead, oncall = al.for_operator("lead"), al.for_operator("dora", groups=["oncall"])
    lead.subscribe_sync(al.org_id, hear, events=["approval.escalated"])
    approval = ask(al)
    with pytest.raises(ForbiddenError, match="not among the approvers"):
        oncall.approve_action_sync(approval)
    digest = lead.list_pending_approvals_sync()[0].digest
    clock.advance(minutes=20)
    assert heard.wait(60)
    assert told[0].data["escalate_to"] == ["group:oncall", "webhook:pager"]
    (request,) = lead.list_pending_approvals_sync()
    assert (request.status, request.waits) == ("escalated", True)
    assert (request.escalated_to, request.digest) == (["group:oncall", "webhook:pager"], digest)
    assert oncall.approve_action_sync(approval, digest=digest).status == "approved"
    assert [entry["data"]["event"] for entry in entries(al)] == ["escalated", "approved"]
    assert al.verify_state_sync() == []
    lead.close()
    oncall.close()


def test_an_escalation_stands_in_for_one_of_all(al: AgentLattice, clock: ManualClock) -> None:
    """Where everybody of a set is asked, whom the escalation adds may take the place of one who does not answer."""
    approval = ask(al, "both.do")
    ann, boss = al.for_operator("ann"), al.for_operator("boss")
    assert ann.approve_action_sync(approval).status == "pending"
    clock.advance(minutes=20)
    assert boss.approve_action_sync(approval).status == "approved"
    ann.close()
    boss.close()


def test_what_is_decided_is_not_escalated(al: AgentLattice, clock: ManualClock) -> None:
    lead = al.for_operator("lead")
    lead.deny_action_sync(ask(al))
    ask(al)
    clock.advance(hours=2)
    assert [entry["data"]["event"] for entry in entries(al)] == ["denied", "timed_out"]
    with al._opened.read() as reader:
        assert list(reader.scan("due")) == []
    lead.close()


def test_what_fell_due_while_nobody_had_the_file_open_is_settled_on_opening(
    opened, policies: Path, clock: ManualClock
) -> None:
    policies.write_text(POLICY)
    al = opened()
    ask(al)
    al.close()
    clock.advance(hours=1)
    again = opened()
    assert [entry["data"]["event"] for entry in entries(again)] == ["timed_out"]


def test_more_than_a_transaction_holds_is_settled_all_the_same(al: AgentLattice, clock: ManualClock) -> None:
    """Six hundred requests that time out at once: each once, in transactions of bounded size."""
    approvals = [ask(al) for _ in range(600)]
    clock.advance(hours=1)
    ended = Counter(entry["data"]["approval"] for entry in entries(al))
    assert ended == Counter(approvals)
    assert al.verify_state_sync() == []


def test_the_timer_rings_by_the_machines_own_clock(opened, policies: Path) -> None:
    """Nobody waits, nobody asks: the timeout is told by the log alone."""
    policies.write_text(SHORT)
    al = opened(clock=None)
    ended = threading.Event()
    al.subscribe_sync(al.org_id, lambda _: ended.set(), events=["approval.resolved"])
    approval = ask(al)
    assert ended.wait(60)
    lead = al.for_operator("lead")
    with pytest.raises(IllegalTransitionError, match="timed out"):
        lead.approve_action_sync(approval)
    lead.close()


def _stay_open(path: str, ready: Any, stop: Any) -> None:
    operator = AgentLattice.embedded(path, operator="lead")
    ready.release()
    stop.wait(60)
    operator.close()


def test_several_processes_record_a_timeout_once(opened, policies: Path, tmp_path: Path) -> None:
    policies.write_text(SHORT)
    al = opened(clock=None)
    spawn = multiprocessing.get_context("spawn")
    ready, stop = spawn.Semaphore(0), spawn.Event()
    others = [
        spawn.Process(target=_stay_open, args=(str(tmp_path / "governance.db"), ready, stop))
        for _ in range(3)
    ]
    for process in others:
        process.start()
    for _ in others:
        assert ready.acquire(timeout=60)
    ended: list[str] = []
    done = threading.Event()

    def count(event: GovernanceEvent) -> None:
        ended.append(event.data["approval_id"])
        if len(ended) >= 20:
            done.set()

    al.subscribe_sync(al.org_id, count, events=["approval.resolved"])
    asked = [ask(al) for _ in range(20)]
    assert done.wait(60)
    stop.set()
    for process in others:
        process.join(60)
        assert process.exitcode == 0
    assert Counter(entry["data"]["approval"] for entry in entries(al)) == Counter(asked)
    assert al.verify_state_sync() == []


def test_entries_of_the_first_release_fold_to_what_they_did() -> None:
    """They say neither when to escalate nor when a grant lapses, so nothing falls due by them."""
    state: dict[tuple[str, str], Any] = {}

    def enter(
        kind: str, index: int, who: dict[str, Any], data: dict[str, Any], id: str | None = None
    ) -> None:
        at = f"2026-03-02T09:0{index}:00.000000Z"
        state.update(fold(lambda *name: state.get(name), kind, index, at, who, data, id))

    agent = {"agent": "ci", "agent_id": "agt_1"}
    terms = {
        "id": "apr_1",
        "timeout_at": "2026-03-02T10:00:00.000000Z",
        "sets": [{"approvers": ["user:lead"], "quorum": 1}],
        "escalate_after": "2026-03-02T09:20:00.000000Z",
        "escalate_to": ["group:oncall"],
    }
    enter("action", 0, agent, {"action_type": "x", "decision": "requested", "approval": terms}, "evt_1")
    enter(
        "approval",
        1,
        {"operator": "lead"},
        {"event": "approved", "approval": "apr_1", "by": "lead", "groups": []},
    )
    assert not any(kind == "due" for kind, _ in state)
    approval = state["approval", "apr_1"]
    assert (approval["escalate_after"], approval["votes"]) == ("2026-03-02T09:20:00.000000Z", [])
    assert not {"escalates_at", "lapses_at"} & set(approval)
    enter("claim", 2, agent, {"event": "started", "agent_id": "agt_1", "entry": 0, "action": "evt_1"})
    assert state["action", "agt_1/000000000000"]["claim"] == "started"
