"""Whatever is done in whatever order: the answers, the limits and the log are those of a model of a hundred lines.

The model knows actions, approvals, charges and time, and nothing of logs, transactions, projections or files.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentlattice_core import (
    ActionResult,
    AgentLattice,
    EventIdConflictError,
    IllegalTransitionError,
    NotYourEventError,
    ReportOutcome,
    deadlines,
)
from agentlattice_core.clock import format_time, parse_time
from agentlattice_core.policy import PolicyDocument
from agentlattice_core.testing import ManualClock

AGENTS = ("ci", "bot")
OPERATORS = ("ann", "bob", "cid")
TYPES = ("refund.issue", "order.place", "vault.open")
RAN = ("started", "succeeded", "failed", "unknown")
CENT = Decimal("0.01")

POLICIES = """
version: 1
policies:
  - name: Refunds
    action: refund.issue
    effect: allow
    rules:
      - {{priority: 1, type: DAILY_CAP, cap: "{cap}", currency: EUR, timezone: UTC, effect: REJECT}}
  - name: Orders
    action: order.place
    effect: require_approval
    approval: {{timeout: 1h}}
    rules:
      - {{priority: 1, type: DAILY_CAP, cap: "{cap}", currency: EUR, timezone: UTC, effect: REJECT,
        release_on_failure: true}}
  - name: Vault
    action: vault.open
    effect: {vault}
    {approval}
"""


def policies(cap: int, vault: str) -> PolicyDocument:
    asking = 'approval: {timeout: 2h, approvers: ["user:ann", "user:bob", "user:cid"], quorum: 2}'
    approval = asking if vault == "require_approval" else ""
    return PolicyDocument.parse(POLICIES.format(cap=cap, vault=vault, approval=approval))


@dataclass
class Action:
    """What the model remembers of one action. `day` is the day its amount is charged to, if it is."""

    id: str
    agent: str
    type: str
    amount: Decimal
    answer: str
    status: str
    claim: str | None = None
    day: str | None = None
    approval: str | None = None
    deadline: datetime | None = None
    votes: list[str] = field(default_factory=list)
    resolved_at: datetime | None = None


class Governance(RuleBasedStateMachine):
    """The engine beside its model."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.clock = ManualClock()
        self.cap, self.vault = 100, "require_approval"
        self.actions: list[Action] = []
        self.events: dict[tuple[str, str], Action] = {}
        self.latest = ""
        self.open()
        self.al["ci"].apply_policies_sync(policies(self.cap, self.vault))

    def open(self) -> None:
        first = AgentLattice.embedded(self.directory / "governance.db", agent="ci", clock=self.clock)
        self.al = {"ci": first, "bot": first.for_agent("bot")}
        self.people = {name: first.for_operator(name) for name in OPERATORS}

    def close(self) -> None:
        for client in (*self.people.values(), *self.al.values()):
            client.close()

    # The model

    def now(self) -> datetime:
        with self.al["ci"]._opened.read() as reader:
            latest = reader.head.at
        assert latest >= self.latest, "time in the log ran backwards"
        self.latest = latest
        return parse_time(max(latest, format_time(self.clock.now())))

    def status(self, action: Action, now: datetime) -> str:
        """A deadline needs nobody to look at it; a clock that is set back moves what nobody recorded."""
        late = action.deadline is not None and now >= action.deadline
        return "timed_out" if action.status == "requested" and late else action.status

    def used(self, agent: str, action_type: str, now: datetime, but: Action | None = None) -> Decimal:
        counted = (agent, action_type, now.date().isoformat())
        return sum(
            (
                a.amount
                for a in self.actions
                if (a.agent, a.type, a.day) == counted and a is not but and self.status(a, now) != "timed_out"
            ),
            Decimal(0),
        )

    def decide(
        self, agent: str, action_type: str, amount: Decimal, now: datetime, but: Action | None = None
    ) -> tuple[str, str | None]:
        """The status and the reason."""
        if action_type == "vault.open":
            return ("requested", None) if self.vault == "require_approval" else ("denied", "POLICY_DENIED")
        if self.used(agent, action_type, now, but) + amount > self.cap:
            return "denied", "LIMIT_EXCEEDED"
        return ("executed" if action_type == "refund.issue" else "requested"), None

    # What is done to both

    @rule(
        agent=st.sampled_from(AGENTS),
        action_type=st.sampled_from(TYPES),
        cents=st.sampled_from([1, 999, 2500, 4000, 6000, 10000, 10001]),
        event_id=st.one_of(st.none(), st.sampled_from(["e1", "e2", "e3"])),
    )
    def execute(self, agent: str, action_type: str, cents: int, event_id: str | None) -> None:
        now, amount = self.now(), Decimal(cents) / 100
        fields = {"amount": str(amount), "currency": "EUR", "event_id": event_id}
        known = self.events.get((agent, event_id)) if event_id is not None else None
        if known is not None:
            if (known.type, known.amount) != (action_type, amount):
                with pytest.raises(EventIdConflictError):
                    self.al[agent].execute_sync(action_type, **fields)
                return
            again = self.al[agent].execute_sync(action_type, **fields)
            assert (again.replayed, again.audit_event_id, again.status) == (True, known.id, known.answer)
            return
        status, reason = self.decide(agent, action_type, amount, now)
        result = self.al[agent].execute_sync(action_type, **fields)
        assert (result.status, result.denial_reason, result.replayed) == (status, reason, False)
        action = Action(result.audit_event_id, agent, action_type, amount, status, status)
        if status == "executed":
            action.claim = "started"
        if status == "requested":
            action.approval = result.approval_id
            action.deadline = now + timedelta(hours=1 if action_type == "order.place" else 2)
            assert result.timeout_at == format_time(action.deadline)
        if status != "denied" and action_type != "vault.open":
            action.day = now.date().isoformat()
        assert all(action.id != other.id for other in self.actions)
        self.actions.append(action)
        if event_id is not None:
            self.events[agent, event_id] = action

    def asked(self) -> list[Action]:
        return [action for action in self.actions if action.approval is not None]

    @precondition(lambda self: self.asked())
    @rule(data=st.data(), name=st.sampled_from(OPERATORS), approve=st.booleans())
    def decide_on(self, data: st.DataObject, name: str, approve: bool) -> None:
        now = self.now()
        action = data.draw(st.sampled_from(self.asked()[-6:]))
        assert action.approval is not None
        act = self.people[name].approve_action_sync if approve else self.people[name].deny_action_sync
        if self.status(action, now) != "requested" or (approve and name in action.votes):
            with pytest.raises(IllegalTransitionError):
                act(action.approval)
            return
        answer = act(action.approval).status
        if not approve:
            action.status, action.day = "denied", None
            assert answer == "denied"
            return
        action.votes.append(name)
        if len(action.votes) < (1 if action.type == "order.place" else 2):
            assert answer == "pending"
        else:
            assert answer == "approved"
            action.status, action.resolved_at = "approved", now

    @precondition(lambda self: self.actions)
    @rule(data=st.data(), agent=st.sampled_from(AGENTS))
    def claim(self, data: st.DataObject, agent: str) -> None:
        self.claim_by(agent, data.draw(st.sampled_from(self.actions[-8:])))

    def claim_by(self, agent: str, action: Action) -> None:
        now = self.now()
        if agent != action.agent:
            with pytest.raises(NotYourEventError):
                self.al[agent].claim_sync(action.id)
            return
        if action.claim in RAN:
            with pytest.raises(IllegalTransitionError, match="at most once"):
                self.al[agent].claim_sync(action.id)
            return
        result: ActionResult = self.al[agent].claim_sync(action.id)
        if action.status != "approved":
            status = self.status(action, now)
            expected = "denied" if status == "lapsed" else status
            assert (result.status, result.claim in RAN) == (expected, False)
            return
        assert action.resolved_at is not None
        if now >= action.resolved_at + timedelta(hours=24):
            raise AssertionError("what lapsed was noted when the clock moved")
        status, reason = self.decide(agent, action.type, action.amount, now, but=action)
        if status == "denied":
            assert (result.status, result.denial_reason) == ("denied", reason)
            action.status, action.claim, action.day = "denied", "refused", None
            return
        assert (result.status, result.claim) == ("executed", "started")
        action.status, action.claim = "executed", "started"
        action.day = now.date().isoformat() if action.type != "vault.open" else None

    @precondition(lambda self: self.actions)
    @rule(data=st.data(), outcome=st.sampled_from(["succeeded", "failed", "unknown"]))
    def outcome(self, data: st.DataObject, outcome: str) -> None:
        action = data.draw(st.sampled_from(self.actions[-8:]))
        self.al[action.agent].record_outcome(action.id, outcome, "as the tool said \ud800")
        self.al[action.agent].flush()
        if action.claim == "started":
            action.claim = outcome
            if outcome == "failed" and action.type == "order.place":
                action.day = None

    @precondition(lambda self: self.actions)
    @rule(data=st.data(), status=st.sampled_from(["success", "failure", "partial"]))
    def report(self, data: st.DataObject, status: str) -> None:
        action = data.draw(st.sampled_from(self.actions[-8:]))
        if action.claim not in RAN:
            with pytest.raises(IllegalTransitionError, match="never ran"):
                self.al[action.agent].report_sync(action.id, ReportOutcome(status))
            return
        self.al[action.agent].report_sync(action.id, ReportOutcome(status))
        if action.claim == "started":
            action.claim = "failed" if status == "failure" else "succeeded"
        if status == "failure" and action.type == "order.place":
            action.day = None

    @rule(minutes=st.sampled_from([1, 59, 60, 119, 121, 600, 1440, 1441, -1, -90, -3000]))
    def clock_jumps(self, minutes: int) -> None:
        self.clock.advance(minutes=minutes)
        self.falls_due()

    @rule(agent=st.sampled_from(AGENTS), asks_again=st.booleans())
    def nobody_decides_in_time(self, agent: str, asks_again: bool) -> None:
        """All that is left of a cap is held by a request, until its deadline and not a moment longer."""
        left = self.cap - self.used(agent, "order.place", self.now())
        if left <= 0:
            return
        self.execute(agent, "order.place", int(left * 100), None)
        self.clock.advance(hours=1)
        if asks_again:
            self.execute(agent, "order.place", int(left * 100), None)
        else:
            self.claim_by(agent, self.actions[-1])

    @rule(hour=st.sampled_from([0, 23]))
    def clock_nears_midnight(self, hour: int) -> None:
        now = self.clock.now()
        self.clock.set(datetime(now.year, now.month, now.day, hour, 59 if hour else 0, tzinfo=UTC))
        self.falls_due()

    def falls_due(self) -> None:
        """Whatever time has run out for is over, and stays so when the clock is set back."""
        now = self.now()
        for action in self.actions:
            if self.status(action, now) == "timed_out":
                action.status, action.day = "timed_out", None
            granted = action.resolved_at if action.status == "approved" else None
            if granted is not None and now >= granted + timedelta(hours=24):
                action.status, action.claim, action.day = "lapsed", "lapsed", None

    @rule(cap=st.sampled_from([60, 100]), vault=st.sampled_from(["require_approval", "deny"]))
    def change_policy(self, cap: int, vault: str) -> None:
        now = self.now()
        self.al["ci"].apply_policies_sync(policies(cap, vault))
        changed = (cap != self.cap, vault != self.vault)
        self.cap, self.vault = cap, vault
        waiting = [a for a in self.actions if a.approval is not None and self.status(a, now) == "requested"]
        for action in sorted(waiting, key=lambda a: (a.deadline, a.approval)):
            if not changed[action.type == "vault.open"]:
                continue
            assert action.deadline is not None
            asked = action.deadline - timedelta(hours=1 if action.type == "order.place" else 2)
            if self.decide(action.agent, action.type, action.amount, asked, but=action)[0] == "denied":
                action.status, action.day = "denied", None

    @rule()
    def reopen(self) -> None:
        self.close()
        self.open()

    # What always holds

    @invariant()
    def caps_are_exact(self) -> None:
        """What is left of each cap is allowed, and not a cent more."""
        now = self.now()
        for agent in AGENTS:
            for action_type in ("refund.issue", "order.place"):
                left = self.cap - self.used(agent, action_type, now)
                for amount in {max(left, Decimal(0)), max(left + CENT, Decimal(0))}:
                    answer = self.al[agent].can_i_sync(action_type, amount=str(amount), currency="EUR")
                    assert (answer.allowed or answer.needs_approval) == (amount <= left)

    @invariant()
    def what_waits_is_what_waits(self) -> None:
        now = self.now()
        waiting = {a.approval for a in self.actions if self.status(a, now) == "requested"}
        assert {request.id for request in self.people["ann"].list_pending_approvals_sync()} == waiting

    def teardown(self) -> None:
        if not hasattr(self, "directory"):
            return
        try:
            self.agrees_in_the_end()
        finally:
            self.close()
            shutil.rmtree(self.directory)

    def agrees_in_the_end(self) -> None:
        engine = self.al["ci"]._opened
        engine.run(deadlines.settle)
        for action in self.actions:
            action.status = self.status(action, self.now())
            if action.status == "timed_out":
                action.day = None
        verified = self.al["ci"].verify_sync()
        assert (verified.chain_valid, verified.problem) == (True, None)
        assert self.al["ci"].verify_state_sync() == []
        seen = []
        cursor = None
        while True:
            page = self.people["ann"].audit_sync(cursor=cursor, limit=50)
            seen += [
                (event.id, event.agent, event.action_type, event.status, event.claim) for event in page.events
            ]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen[::-1] == [(a.id, a.agent, a.type, a.status, a.claim) for a in self.actions]
        with engine.read() as reader:
            held = [Decimal(limit["used"]) for _, limit in reader.scan("limit")]
        charged: dict[tuple[str, str, str], Decimal] = {}
        for action in self.actions:
            if action.day is not None:
                key = (action.agent, action.type, action.day)
                charged[key] = charged.get(key, Decimal(0)) + action.amount
        assert sorted(total for total in held if total) == sorted(charged.values())


_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

TestGovernance = Governance.TestCase
TestGovernance.settings = settings(
    max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=_QUIET
)


@pytest.mark.soak
class TestGovernanceAtLength(Governance.TestCase):  # type: ignore[name-defined, misc]
    settings = settings(
        max_examples=300, stateful_step_count=100, deadline=None, suppress_health_check=_QUIET
    )
