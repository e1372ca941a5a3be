"""Whatever happens to a request in whatever order: its state is that of a model, and what is illegal changes nothing.

The model knows sets of approvers, votes and time. Each state of a request is met with each event; how often is counted
and printed, so that a run can show what it has covered.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentlattice_core import (
    AgentLattice,
    AgentLatticeError,
    DigestMismatchError,
    ForbiddenError,
    IllegalTransitionError,
    ReportOutcome,
)
from agentlattice_core.clock import format_time, parse_time
from agentlattice_core.policy import PolicyDocument
from agentlattice_core.testing import ManualClock

PEOPLE = {"ann": ["dba"], "bob": ["dba"], "cid": [], "eve": ["oncall"], "vic": [], "olga": []}
"""Names and groups. `vic` is a viewer, `olga` owns the agent."""

TERMS: dict[str, tuple[list[tuple[list[str], int | str]], list[str]]] = {
    "anyone": ([([], 1)], []),
    "two": ([(["user:ann", "user:bob", "user:cid"], 2)], ["group:oncall"]),
    "all": ([(["user:ann", "group:dba"], "all")], ["user:eve"]),
    "cid": ([(["user:cid"], 1)], []),
}
MODES = (*TERMS, "allow", "deny", "gone")

EVENTS = (
    "vote",
    "vote otherwise shown",
    "deny",
    "stranger votes",
    "cancel",
    "escalation",
    "deadline",
    "lapse",
    "policy allows",
    "policy denies",
    "policy is deleted",
    "policy asks others",
    "claim",
    "outcome",
)
STATES = (
    "pending",
    "voted",
    "escalated",
    "approved",
    "approved by policy",
    "denied",
    "denied by policy",
    "timed out",
    "cancelled",
    "claimed",
    "refused",
    "lapsed",
)
CELLS: Counter[tuple[str, str]] = Counter()

TIMEOUT, ESCALATION, LIFE = timedelta(hours=2), timedelta(hours=1), timedelta(hours=24)


def document(mode: str) -> PolicyDocument:
    lines = ["version: 1", "policies:", "  - {name: Idle, action: idle.do, effect: allow}"]
    if mode in TERMS:
        ((approvers, quorum),), escalate_to = TERMS[mode]
        escalation = f", escalate_after: 1h, escalate_to: {escalate_to}" if escalate_to else ""
        terms = f"timeout: 2h, approvers: {approvers}, quorum: {quorum}" if approvers else "timeout: 2h"
        lines.append(
            f"  - {{name: Deploys, action: deploy.run, effect: require_approval, approval: {{{terms}{escalation}}}}}"
        )
    elif mode != "gone":
        lines.append(f"  - {{name: Deploys, action: deploy.run, effect: {mode}}}")
    return PolicyDocument.parse("\n".join(lines))


def means(approver: str, person: str) -> bool:
    kind, _, name = approver.partition(":")
    return name == person if kind == "user" else name in PEOPLE[person]


def filled(mode: str, votes: list[str], escalated: bool) -> bool:
    """Whether the votes suffice, found by trying every assignment of people to places."""
    ((approvers, quorum),), escalate_to = TERMS[mode]
    added = escalate_to if escalated else []
    if not approvers:
        return len(votes) >= 1
    if quorum == "all":
        return any(
            len(set(chosen)) == len(chosen)
            and all(
                any(means(one, person) for one in (place, *added))
                for place, person in zip(approvers, chosen, strict=True)
            )
            for chosen in product(votes, repeat=len(approvers))
        )
    return sum(any(means(one, person) for one in (*approvers, *added)) for person in votes) >= int(quorum)


def counts(mode: str, person: str, escalated: bool) -> bool:
    ((approvers, _),), escalate_to = TERMS[mode]
    return not approvers or any(
        means(one, person) for one in (*approvers, *(escalate_to if escalated else []))
    )


@dataclass
class Request:
    """What the model remembers. `mode` are the terms it waits under, `digest` what was shown of it first."""

    event: str
    approval: str
    mode: str
    digest: str
    deadline: datetime
    escalates: datetime | None
    state: str = "pending"
    votes: list[str] = field(default_factory=list)
    escalated: bool = False
    amended: bool = False
    granted: datetime | None = None

    @property
    def waits(self) -> bool:
        return self.state == "pending"

    @property
    def named(self) -> str:
        """The state as cells are counted by."""
        if not self.waits:
            return self.state
        return "escalated" if self.escalated else "voted" if self.votes else "pending"


class Approvals(RuleBasedStateMachine):
    """The engine beside its model."""

    @initialize(mode=st.sampled_from(sorted(TERMS)))
    def begin(self, mode: str) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.clock = ManualClock()
        self.requests: list[Request] = []
        self.mode = mode
        self.open()
        self.al.apply_policies_sync(document(mode), prune=True)

    def open(self) -> None:
        self.al = AgentLattice.embedded(
            self.directory / "governance.db", agent="ci", owner="olga", clock=self.clock
        )
        self.people = {
            name: self.al.for_operator(name, role="viewer" if name == "vic" else "member", groups=groups)
            for name, groups in PEOPLE.items()
        }

    def close(self) -> None:
        for client in (*self.people.values(), self.al):
            client.close()

    def now(self) -> datetime:
        with self.al._opened.read() as reader:
            return parse_time(max(reader.head.at, format_time(self.clock.now())))

    def one(self, data: st.DataObject) -> Request:
        """A request to do something to: of any state that there is, and of those a recent one."""
        state = data.draw(st.sampled_from(sorted({request.named for request in self.requests})))
        return data.draw(st.sampled_from([one for one in self.requests if one.named == state][-3:]))

    def refused(self, act: Any, error: type[AgentLatticeError] = IllegalTransitionError) -> None:
        """What is illegal is refused with a typed error, and nothing is recorded."""
        with self.al._opened.read() as reader:
            before = reader.head.size
        with pytest.raises(error):
            act()
        with self.al._opened.read() as reader:
            assert reader.head.size == before

    # What is done to both

    @precondition(lambda self: self.mode in TERMS)
    @rule()
    def ask(self) -> None:
        self.new_request()

    def new_request(self) -> Request:
        now = self.now()
        asked = self.al.execute_sync("deploy.run")
        assert asked.approval_id is not None
        request = Request(
            asked.audit_event_id,
            asked.approval_id,
            self.mode,
            self.shown(asked.approval_id),
            now + TIMEOUT,
            now + ESCALATION if TERMS[self.mode][1] else None,
        )
        self.requests.append(request)
        return request

    @rule(number=st.integers(0, 2**32 - 1))
    def meet(self, number: int) -> None:
        """A cell drawn evenly, which a choice by the framework is not, so that rare ones are met as often as others."""
        chance = random.Random(number)
        self.meet_cell(chance.choice(STATES), chance.choice(EVENTS), chance.random() < 0.5)

    def meet_cell(self, state: str, event: str, amended: bool) -> None:
        request = self.bring_about(state, amended or event == "vote otherwise shown")
        if event == "vote":
            self.do_vote(request, "bob", False)
        elif event == "vote otherwise shown":
            self.do_vote(request, "bob", True)
        elif event == "deny":
            self.do_deny(request, "bob")
        elif event == "stranger votes":
            self.do_stranger_votes(request, "vic", True)
        elif event == "cancel":
            self.do_cancel(request)
        elif event == "claim":
            self.do_claim(request)
        elif event == "outcome":
            self.do_outcome(request)
        elif event in ("escalation", "deadline", "lapse"):
            self.pass_time({"escalation": 60, "deadline": 120, "lapse": 1600}[event])
        else:
            modes = {"policy allows": "allow", "policy denies": "deny", "policy is deleted": "gone"}
            mode = modes.get(event, "anyone")
            self.change_policy("two" if mode == self.mode else mode)
            self.change_policy(mode)

    def bring_about(self, state: str, amended: bool) -> Request:
        self.change_policy("two")
        request = self.new_request()
        if amended:
            self.change_policy("all")
        if state in ("approved", "claimed", "refused", "lapsed"):
            self.cast(request, "ann", None)
            self.cast(request, "bob", None)
        if state == "voted":
            self.cast(request, "ann", None)
        elif state in ("escalated", "timed out", "lapsed"):
            self.pass_time({"escalated": 60, "timed out": 120, "lapsed": 1440}[state])
        elif state == "denied":
            self.do_deny(request, "ann")
        elif state == "cancelled":
            self.do_cancel(request)
        elif state in ("approved by policy", "denied by policy"):
            self.change_policy("allow" if state == "approved by policy" else "deny")
        elif state == "refused":
            self.change_policy("cid")
        if state in ("claimed", "refused"):
            self.do_claim(request)
        assert request.named == state
        return request

    def shown(self, approval: str) -> str:
        return next(
            one.digest for one in self.people["vic"].list_pending_approvals_sync() if one.id == approval
        )

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), person=st.sampled_from(["ann", "bob", "cid", "eve"]), shown=st.booleans())
    def vote(self, data: st.DataObject, person: str, shown: bool) -> None:
        self.do_vote(self.one(data), person, shown)

    def do_vote(self, request: Request, person: str, shown: bool) -> None:
        digest = request.digest if shown else None
        otherwise = shown and request.amended
        CELLS[request.named, "vote otherwise shown" if otherwise else "vote"] += 1

        def act() -> Any:
            return self.people[person].approve_action_sync(request.approval, digest=digest)

        if not request.waits:
            self.refused(act)
        elif not counts(request.mode, person, request.escalated):
            self.refused(act, ForbiddenError)
        elif person in request.votes:
            self.refused(act)
        elif otherwise:
            self.refused(act, DigestMismatchError)
        else:
            self.cast(request, person, digest)

    def cast(self, request: Request, person: str, digest: str | None) -> None:
        answer = self.people[person].approve_action_sync(request.approval, digest=digest)
        request.votes.append(person)
        if filled(request.mode, request.votes, request.escalated):
            request.state, request.granted = "approved", self.now()
            assert answer.status == "approved"
        else:
            assert answer.waits
        assert answer.approved_by == request.votes

    @precondition(lambda self: any(request.amended for request in self.requests[-8:]))
    @rule(data=st.data())
    def vote_otherwise_shown(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from([one for one in self.requests[-8:] if one.amended]))
        self.do_vote(request, data.draw(st.sampled_from(["ann", "bob", "cid", "eve"])), True)

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), person=st.sampled_from(["ann", "bob", "cid", "eve"]))
    def deny(self, data: st.DataObject, person: str) -> None:
        self.do_deny(self.one(data), person)

    def do_deny(self, request: Request, person: str) -> None:
        CELLS[request.named, "deny"] += 1

        def act() -> Any:
            return self.people[person].deny_action_sync(request.approval, "no")

        if not request.waits:
            self.refused(act)
        elif not counts(request.mode, person, request.escalated):
            self.refused(act, ForbiddenError)
        else:
            assert act().status == "denied"
            request.state = "denied"

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), person=st.sampled_from(["vic", "olga"]), approve=st.booleans())
    def stranger_votes(self, data: st.DataObject, person: str, approve: bool) -> None:
        """A viewer, and whoever owns the agent."""
        self.do_stranger_votes(self.one(data), person, approve)

    def do_stranger_votes(self, request: Request, person: str, approve: bool) -> None:
        CELLS[request.named, "stranger votes"] += 1
        client = self.people[person]
        act = client.approve_action_sync if approve else client.deny_action_sync
        self.refused(
            lambda: act(request.approval), ForbiddenError if request.waits else IllegalTransitionError
        )

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.do_cancel(self.one(data))

    def do_cancel(self, request: Request) -> None:
        CELLS[request.named, "cancel"] += 1
        if request.waits:
            self.al.cancel_sync(request.event, "changed its mind")
            request.state = "cancelled"
        else:
            self.refused(lambda: self.al.cancel_sync(request.event))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        self.do_claim(self.one(data))

    def do_claim(self, request: Request) -> None:
        CELLS[request.named, "claim"] += 1
        if request.state == "claimed":
            self.refused(lambda: self.al.claim_sync(request.event))
            return
        answer = self.al.claim_sync(request.event)
        expected: tuple[str, str | None] = {
            "pending": ("requested", None),
            "denied": ("denied", "DENIED_BY_REVIEWER"),
            "timed out": ("timed_out", "approval_timeout"),
            "cancelled": ("denied", "APPROVAL_CANCELLED"),
            "lapsed": ("denied", "approval_timeout"),
            "approved": ("executed", None),
            "approved by policy": ("executed", None),
        }.get(request.state, ("denied", "POLICY_DENIED"))
        if request.state.startswith("approved"):
            asks = self.mode in TERMS and not filled(self.mode, request.votes, request.escalated)
            request.state = "refused" if asks or self.mode == "deny" else "claimed"
            if request.state == "refused":
                expected = ("denied", "POLICY_DENIED")
        assert (answer.status, answer.denial_reason) == expected, request

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def outcome(self, data: st.DataObject) -> None:
        self.do_outcome(self.one(data))

    def do_outcome(self, request: Request) -> None:
        CELLS[request.named, "outcome"] += 1

        def act() -> Any:
            return self.al.report_sync(request.event, ReportOutcome("success"))

        if request.state == "claimed":
            assert act().status == "success"
        else:
            self.refused(act)

    @rule(minutes=st.sampled_from([1, 59, 60, 61, 119, 120, 600, 1439, 1440, 1600, -30, -3000]))
    def time_passes(self, minutes: int) -> None:
        self.pass_time(minutes)

    def pass_time(self, minutes: int) -> None:
        before = self.now()
        # A clock that was set back lies behind the log, whose time goes on.
        self.clock.set(max(self.clock.now(), before) if minutes > 0 else self.clock.now())
        self.clock.advance(minutes=minutes)
        now = max(before, self.now())
        for request in self.requests:
            for event, moment in self.moments(request, before):
                if moment <= now:
                    CELLS[request.named, event] += 1
            if request.waits and now >= request.deadline:
                request.state = "timed out"
            elif request.waits and request.escalates is not None and now >= request.escalates:
                request.escalated = True
            elif request.state.startswith("approved"):
                assert request.granted is not None
                if now >= request.granted + LIFE:
                    request.state = "lapsed"

    def moments(self, request: Request, before: datetime) -> list[tuple[str, datetime]]:
        """What the clock would do to it, whether that is still to come or was overtaken."""
        at = [("deadline", request.deadline), ("lapse", (request.granted or request.deadline) + LIFE)]
        at += [("escalation", request.escalates or request.deadline - ESCALATION)]
        return [(event, moment) for event, moment in at if moment > before]

    @rule(mode=st.sampled_from(MODES))
    def policy_changes(self, mode: str) -> None:
        self.change_policy(mode)

    def change_policy(self, mode: str) -> None:
        self.al.apply_policies_sync(document(mode), prune=True)
        event = {"allow": "policy allows", "deny": "policy denies", "gone": "policy is deleted"}.get(
            mode, "policy asks others"
        )
        changed, self.mode = mode != self.mode, mode
        if not changed:
            return
        for request in self.requests[-12:]:
            CELLS[request.named, event] += 1
        for request in self.requests:
            if not request.waits:
                continue
            if mode in ("allow", "gone"):
                request.state, request.granted = "approved by policy", self.now()
            elif mode == "deny":
                request.state = "denied by policy"
            elif TERMS[mode] != TERMS[request.mode]:
                request.mode, request.amended = mode, True
                request.votes = [one for one in request.votes if counts(mode, one, request.escalated)]
                if request.votes and filled(mode, request.votes, request.escalated):
                    request.state, request.granted = "approved by policy", self.now()

    @rule()
    def reopen(self) -> None:
        self.close()
        self.open()

    # What always holds

    @invariant()
    def what_waits_is_what_waits(self) -> None:
        found = {one.id: one for one in self.people["ann"].list_pending_approvals_sync()}
        assert set(found) == {request.approval for request in self.requests if request.waits}
        for request in self.requests:
            if request.waits:
                shown = found[request.approval]
                assert (shown.status == "escalated", shown.approved_by) == (request.escalated, request.votes)
                assert (shown.digest == request.digest) == (not request.amended)
                assert shown.timeout_at == format_time(request.deadline)

    def teardown(self) -> None:
        if not hasattr(self, "directory"):
            return
        try:
            assert self.al.verify_sync().chain_valid
            assert self.al.verify_state_sync() == []
        finally:
            self.close()
            shutil.rmtree(self.directory)


_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

TestApprovals = Approvals.TestCase
TestApprovals.settings = settings(
    max_examples=8, stateful_step_count=40, deadline=None, suppress_health_check=_QUIET
)


def report() -> list[str]:
    """The table of cells, for whoever looks at a run: how often each state met each event."""
    return [f"{state:>18} x {event:<20} {CELLS[state, event]:>6}" for state in STATES for event in EVENTS]


IMPOSSIBLE = {
    ("escalated", "escalation"),
    ("timed out", "escalation"),
    ("timed out", "deadline"),
    ("lapsed", "escalation"),
    ("lapsed", "deadline"),
    ("lapsed", "lapse"),
}
"""Moments that lie in the past of whatever is in that state, so that they cannot come any more."""


def meet_all(times: int, seed: int) -> None:
    """Meet each cell that can be met as many times, in an order of chance, and agree with the model all the way."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    cells = [cell for cell in product(STATES, EVENTS) if cell not in IMPOSSIBLE] * times
    chance.shuffle(cells)
    for start in range(0, len(cells), 60):
        machine = Approvals()
        machine.begin("two")
        try:
            for state, event in cells[start : start + 60]:
                machine.meet_cell(state, event, chance.random() < 0.5)
                machine.what_waits_is_what_waits()
        finally:
            machine.teardown()


def test_every_state_meets_every_event() -> None:
    """Each cell of the table once, and what is illegal is refused with a typed error and changes nothing."""
    before = CELLS.copy()
    meet_all(1, seed=20261120)
    assert {cell for cell in product(STATES, EVENTS) if CELLS[cell] == before[cell]} == IMPOSSIBLE


@pytest.mark.soak
def test_a_hundred_thousand_steps_are_clean_and_meet_every_cell_a_hundred_times() -> None:
    """Steps of chance, then each cell a hundred times; how often each was met is printed."""

    class AtLength(Approvals.TestCase):  # type: ignore[name-defined, misc]
        settings = settings(
            max_examples=1000,
            stateful_step_count=100,
            deadline=None,
            suppress_health_check=_QUIET,
            print_blob=True,
        )

    AtLength("runTest").runTest()
    meet_all(100, seed=random.randrange(2**32))
    print("\n".join(report()))
    assert {cell for cell in product(STATES, EVENTS) if CELLS[cell] < 100} == IMPOSSIBLE
