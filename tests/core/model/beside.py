"""The engine beside the reference: each step does one thing to both, compares the answers, and counts its cell.

- What is illegal is refused with the error that the reference names, and records nothing.
- A cell is a state and an event; `CELLS` counts how often each was met, `STEPS` all steps by name.
- Choices come from a `Random` that the caller seeds, so that a step is one number.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial, wraps
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, ParamSpec, TypeVar
from unittest.mock import patch

import pytest
from reference import LIFE, MODES, ORDER, PEOPLE, REFUND, TERMS, TIMEOUT, Action, Agent, Delegation, Reference

from agentlattice_core import (
    AgentLattice,
    AgentLatticeError,
    Delegate,
    DigestMismatchError,
    EventIdConflictError,
    ForbiddenError,
    IllegalTransitionError,
    NotYourEventError,
    ReportOutcome,
    deadlines,
    delegation,
)
from agentlattice_core.clock import format_time, parse_time
from agentlattice_core.pauses import register_pause
from agentlattice_core.policy import PolicyDocument
from agentlattice_core.scheduler import Scheduler
from agentlattice_core.testing import ManualClock

__all__ = ["CAPABILITIES", "CAPS", "CELLS", "STEPS", "Beside"]

CELLS: Counter[tuple[str, str]] = Counter()
STEPS: Counter[str] = Counter()
CENT = Decimal("0.01")
CAPS = (60, 100)
CAPABILITIES = (("*",), ("order.*", "refund.*"), ("order.*",), ("order.place",), ("refund.issue",))
REFUSALS: dict[str, type[AgentLatticeError]] = {
    "illegal": IllegalTransitionError,
    "forbidden": ForbiddenError,
    "mismatch": DigestMismatchError,
}
_MEMORY = Path("/dev/shm")  # nothing here is about the disk, and steps that wait for it are few


class Paused(BaseException):
    """A framework's pause."""


register_pause(Paused)


def _document(mode: str, cap: int) -> PolicyDocument:
    capped = f'{{priority: 1, type: DAILY_CAP, cap: "{cap}", currency: EUR, timezone: UTC, effect: REJECT'
    lines = [
        "version: 1",
        "policies:",
        f"  - {{name: Refunds, action: {REFUND}, effect: allow, rules: [{capped}}}]}}",
    ]
    order = f"  - {{name: Orders, action: {ORDER}, effect: "
    rules = f"rules: [{capped}, release_on_failure: true}}]"
    if mode in TERMS:
        approvers, quorum, escalate_to = TERMS[mode]
        terms = f"timeout: 2h, approvers: {approvers}, quorum: {quorum}" if approvers else "timeout: 2h"
        escalation = f", escalate_after: 1h, escalate_to: {escalate_to}" if escalate_to else ""
        lines.append(f"{order}require_approval, approval: {{{terms}{escalation}}}, {rules}}}")
    elif mode != "gone":
        lines.append(f"{order}{mode}, {rules}}}" if mode == "allow" else f"{order}{mode}}}")
    return PolicyDocument.parse("\n".join(lines))


P = ParamSpec("P")
R = TypeVar("R")


def step(method: Callable[P, R]) -> Callable[P, R]:
    """Something that is done to both."""

    @wraps(method)
    def counted(*args: P.args, **kwargs: P.kwargs) -> R:
        STEPS[method.__name__] += 1
        return method(*args, **kwargs)

    return counted


DOCUMENTS = {(mode, cap): _document(mode, cap) for mode, cap in product(MODES, CAPS)}


class Beside:
    """The engine and the reference, from the first entry to verifying the last."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None))
        self.clock = ManualClock()
        self.reference = Reference()
        self.blocks: dict[Agent, list[Delegate]] = {}
        self.clients: dict[Agent, AgentLattice] = {}
        self.events: dict[tuple[Agent, str], Action] = {}
        self.open()
        self.al.apply_policies_sync(DOCUMENTS["two", 100], prune=True)

    def open(self) -> None:
        self.al = AgentLattice.embedded(
            self.directory / "governance.db", agent="ci", owner="olga", clock=self.clock
        )
        self.people = {
            name: self.al.for_operator(name, role="viewer" if name == "vic" else "member", groups=groups)
            for name, groups in PEOPLE.items()
        }
        self.blocks.clear()
        self.clients = {agent: self.al.for_agent(agent.name) for agent in self.reference.children()}
        self.clients[self.reference.root] = self.al

    def close(self) -> None:
        for client in (*self.people.values(), *self.clients.values()):
            client.close()

    @step
    def reopen(self) -> None:
        """The process dies and another one goes on: blocks are gone, children are not."""
        self.close()
        self.open()

    def end(self) -> None:
        try:
            self.agrees_in_the_end()
        finally:
            self.close()
            shutil.rmtree(self.directory)

    def now(self) -> datetime:
        with self.al._opened.read() as reader:
            return parse_time(max(reader.head.at, format_time(self.clock.now())))

    def refused(
        self, act: Callable[[], Any], error: type[AgentLatticeError] = IllegalTransitionError
    ) -> None:
        """What is illegal is refused with a typed error, and nothing is recorded."""
        with self.al._opened.read() as reader:
            before = reader.head.size
        with pytest.raises(error) as raised:
            act()
        assert type(raised.value) is error
        with self.al._opened.read() as reader:
            assert reader.head.size == before

    def meets(self, action: Action, event: str) -> None:
        """An action's request and its charge, each in its state, meet what is done."""
        if action.approval is not None:
            CELLS[action.named, event] += 1
        charged = {"cancel", "claim", "outcome", "failure", "asker is revoked"}
        if event in charged:
            CELLS[action.charge, event] += 1

    # Actions

    @step
    def ask(
        self, agent: Agent, action_type: str, amount: Decimal, event_id: str | None = None
    ) -> Action | None:
        now, client = self.now(), self.clients[agent]
        fields = {"amount": str(amount), "currency": "EUR", "event_id": event_id}
        known = self.events.get((agent, event_id)) if event_id is not None else None
        if known is not None:
            if (known.type, known.amount) != (action_type, amount):
                self.refused(lambda: client.execute_sync(action_type, **fields), EventIdConflictError)
            else:
                again = client.execute_sync(action_type, **fields)
                assert (again.replayed, again.audit_event_id, again.status) == (True, known.id, known.answer)
            return None
        if agent.parent is not None:
            CELLS[agent.held.state, "acts"] += 1
        expected = self.reference.decide(agent, action_type, amount, now)
        result = client.execute_sync(action_type, **fields)
        assert (result.status, result.denial_reason, result.replayed) == (*expected, False)
        if agent.parent is not None and result.status in ("executed", "requested"):
            above = self.clients[agent.parent].can_i_sync(action_type, amount="0", currency="EUR")
            assert above.allowed or above.needs_approval, "a child did what its parent could not"
        action = self.reference.ask(
            result.audit_event_id, result.approval_id, agent, action_type, amount, now
        )
        if result.approval_id is not None:
            action.digest = self.shown(result.approval_id)
            assert result.timeout_at == format_time(now + TIMEOUT)
        if event_id is not None:
            self.events[agent, event_id] = action
        return action

    def shown(self, approval: str) -> str:
        waiting = self.people["vic"].list_pending_approvals_sync()
        return next(one.digest for one in waiting if one.id == approval)

    @step
    def vote(self, action: Action, person: str, digest: bool) -> None:
        otherwise = digest and action.amended
        self.meets(action, "vote otherwise shown" if otherwise else "vote")
        refusal = self.reference.vote(action, person, otherwise)
        shown = action.digest if digest else None

        def act() -> Any:
            return self.people[person].approve_action_sync(action.approval or "", digest=shown)

        if refusal:
            self.refused(act, REFUSALS[refusal])
            return
        now = self.now()
        answer = act()
        self.reference.cast(action, person, now)
        assert (answer.waits, answer.approved_by) == (action.waits, action.votes)

    @step
    def deny(self, action: Action, person: str) -> None:
        self.meets(action, "deny")
        refusal = self.reference.vote(action, person, otherwise=False)
        if refusal and not (action.waits and person in action.votes):  # who approved may think better of it
            self.refused(
                lambda: self.people[person].deny_action_sync(action.approval or ""), REFUSALS[refusal]
            )
            return
        assert self.people[person].deny_action_sync(action.approval or "", "no").status == "denied"
        action.release("denied")

    @step
    def stranger_votes(self, action: Action, person: str, approve: bool) -> None:
        """A viewer, or whoever owns the root."""
        self.meets(action, "stranger votes")
        client = self.people[person]
        act = client.approve_action_sync if approve else client.deny_action_sync
        error = ForbiddenError if action.waits else IllegalTransitionError
        self.refused(lambda: act(action.approval or ""), error)

    @step
    def cancel(self, action: Action) -> None:
        self.meets(action, "cancel")
        client = self.clients[action.agent]
        if action.waits:
            client.cancel_sync(action.id, "changed its mind")
            action.release("cancelled")
        else:
            self.refused(lambda: client.cancel_sync(action.id))

    @step
    def claim(self, action: Action) -> None:
        self.meets(action, "claim")
        now, client = self.now(), self.clients[action.agent]
        if now.date() != action.asked.date():
            CELLS[action.charge, "claim on another day"] += 1
        if action.agent.parent is not None:
            CELLS[action.agent.held.state, "claims"] += 1
        if action.state in ("claimed", "reported"):
            self.refused(lambda: client.claim_sync(action.id))
            return
        expected = self.reference.take(action, now)
        answer = client.claim_sync(action.id)
        if action.answer in ("executed", "requested"):
            assert (answer.status, answer.denial_reason) == expected

    @step
    def claim_by_another(self, action: Action) -> None:
        other = next(one for one in self.clients if one is not action.agent)
        self.refused(lambda: self.clients[other].claim_sync(action.id), NotYourEventError)

    @step
    def outcome(self, action: Action, failed: bool) -> None:
        self.meets(action, "failure" if failed else "outcome")
        client = self.clients[action.agent]
        outcome = ReportOutcome("failure" if failed else "success")
        if action.state not in ("claimed", "reported"):
            self.refused(lambda: client.report_sync(action.id, outcome))
            return
        client.report_sync(action.id, outcome)
        self.reference.report(action, failed)

    @step
    def note_outcome(self, action: Action, claim: str) -> None:
        """As adapters do: without waiting, and of no consequence where nothing runs."""
        if claim == "unknown":
            self.meets(action, "outcome is lost")
        client = self.clients[action.agent]
        client.record_outcome(action.id, claim, "as the tool said \ud800")
        client.flush()
        self.reference.note(action, claim)

    def to_the_cent(self, agent: Agent, action_type: str, charges: str | None = None) -> None:
        """What is left is allowed, and not a cent more."""
        if charges is not None:
            CELLS[charges, "to the cent"] += 1
        now = self.now()
        left = max(self.reference.left(agent, action_type, now), Decimal(0))
        for amount in (left, left + CENT):
            status, reason = self.reference.decide(agent, action_type, amount, now)
            answer = self.clients[agent].can_i_sync(action_type, amount=str(amount), currency="EUR")
            assert (answer.allowed, answer.needs_approval) == (status == "executed", status == "requested")
            assert answer.reason == (reason if status != "policy_not_found" else "POLICY_NOT_FOUND")

    # Policy and time

    @step
    def policy_is(self, mode: str, cap: int) -> None:
        reference = self.reference
        if (mode, cap) != (reference.mode, reference.cap):
            events = {"allow": "policy allows", "deny": "policy denies", "gone": "policy is deleted"}
            for action in reference.actions[-12:]:
                if mode != reference.mode and action.approval is not None:
                    CELLS[action.named, events.get(mode, "policy asks others")] += 1
                if cap < reference.cap:
                    CELLS[action.charge, "cap is lowered"] += 1
        now = self.now()
        self.al.apply_policies_sync(DOCUMENTS[mode, cap], prune=True)
        reference.policy_is(mode, cap, now)

    @step
    def pass_time(self, minutes: int, *, unwatched: bool = False) -> None:
        """`unwatched`: nobody records at once what falls due, and it counts for nothing all the same."""
        before = self.now()
        # A clock that was set back lies behind the log, whose time goes on.
        self.clock.set(max(self.clock.now(), before) if minutes > 0 else self.clock.now())
        after = max(before, self.clock.now() + timedelta(minutes=minutes))
        for action in self.reference.actions[-60:]:
            for event, moment in self.moments(action):
                if before < moment <= after:
                    CELLS[action.named, event] += 1
            if before.date() != after.date():
                CELLS[action.charge, "day turns"] += 1
        for agent in self.reference.children():
            if before < agent.held.expires <= after:
                CELLS[agent.held.state, "expiry"] += 1
            above = agent.chain()[1:]
            if above and before < above[0].held.expires <= after:
                CELLS[agent.held.state, "parent expires"] += 1
        if unwatched:
            # Not the question whether anything is due: the scheduler's thread may be asking it at this moment.
            with patch.object(Scheduler, "_work", return_value=0):
                self.clock.advance(minutes=minutes)
                self.what_is_over_is_over(after)
                self.al._opened.run(deadlines.settle)
                self.al._opened.run(delegation.expire)
        else:
            self.clock.advance(minutes=minutes)
        self.reference.time_is(after)

    def what_is_over_is_over(self, now: datetime) -> None:
        for action in self.reference.actions:
            if action.waits and action.deadline is not None and now >= action.deadline:
                for person in ("ann", "bob"):
                    approve = self.people[person].approve_action_sync
                    self.refused(partial(approve, action.approval or ""))
                self.refused(partial(self.clients[action.agent].cancel_sync, action.id))
        for agent in self.reference.children()[-8:]:
            if agent.held.ended is None and now >= agent.held.expires:
                assert self.clients[agent].can_i_sync(REFUND, amount="0").reason == "OUT_OF_SCOPE"

    def moments(self, action: Action) -> list[tuple[str, datetime]]:
        """What the clock would do to a request, whether that is still to come or was overtaken."""
        if action.approval is None or action.deadline is None:
            return []
        found = [("deadline", action.deadline), ("lapse", (action.granted or action.deadline) + LIFE)]
        found += [("escalation", action.escalates or action.deadline - TIMEOUT / 2)]
        if action.agent.parent is not None:
            found.append(("asker expires", action.agent.held.expires))
        return found

    # Delegation

    @step
    def delegate(
        self, parent: Agent, given: str, capabilities: tuple[str, ...], minutes: int, run: str | None
    ) -> Agent | None:
        if parent.parent is not None:
            CELLS[parent.held.state, "delegates"] += 1
        now, ttl, reference = self.now(), timedelta(minutes=minutes), self.reference
        capabilities = tuple(sorted(capabilities))
        known = reference.known(parent, given, run)
        if known is not None:
            CELLS[known.held.state, "delegated again"] += 1
        block = self.clients[parent].delegate_sync(
            given, capabilities=capabilities, ttl=minutes * 60, run=run
        )
        refusal = reference.may_delegate(parent, given, capabilities, run)
        if refusal in REFUSALS:
            self.refused(block.__enter__, REFUSALS[refusal])
            return None
        child = block.__enter__()
        if refusal == "same":
            assert known is not None
            assert (child.agent, child.delegation_id) == (known.name, known.held.id)
        else:
            expires = reference.expiry(parent, ttl, now)
            assert (child.expires_at, child.clamped) == (format_time(expires), expires < now + ttl)
            if known is None:
                assert all(one.name != child.agent for one in reference.agents)
                known = Agent(child.agent or "", given, run, parent)
                reference.agents.append(known)
            assert child.agent == known.name
            known.delegations.append(Delegation(child.delegation_id, capabilities, expires))
        self.clients[known] = child
        self.blocks.setdefault(known, []).append(block)
        return known

    @step
    def leave(self, agent: Agent, pauses: bool) -> None:
        """A block ends, or is suspended. Whatever ended before stays as it is."""
        self.ends(agent, "paused" if pauses else "close")
        block = self.blocks[agent].pop()
        if pauses:
            block.__exit__(Paused, Paused(), None)
            return
        block.__exit__(None, None, None)
        if agent.held.ended is None:
            self.reference.end(agent, "closed")

    @step
    def revoke(self, agent: Agent, who: str) -> None:
        above = agent.parent
        assert above is not None
        by = {"root": self.al, "parent": self.clients[above], "itself": self.clients[agent]}.get(who)
        by = by or self.people["vic" if who == "viewer" else "ann"]
        if who in ("itself", "viewer"):
            self.refused(lambda: by.revoke_sync(agent.held.id), ForbiddenError)
            return
        self.ends(agent, "revoke")
        if agent.held.ended is not None:
            self.refused(lambda: by.revoke_sync(agent.held.id))
            return
        assert by.revoke_sync(agent.held.id).revoked
        self.reference.end(agent, "revoked")

    def ends(self, agent: Agent, event: str) -> None:
        CELLS[agent.held.state, event] += 1
        for action in self.reference.actions:
            if action.agent is agent and event == "revoke":
                self.meets(action, "asker is revoked")
        told = {"revoke": "parent is revoked", "close": "parent is closed"}
        for one in self.reference.children():
            if one.parent is agent and event in told:
                CELLS[one.held.state, told[event]] += 1

    # What always holds

    def what_waits_is_what_waits(self) -> None:
        found = {one.id: one for one in self.people["ann"].list_pending_approvals_sync()}
        waiting = [one for one in self.reference.actions if one.waits]
        assert set(found) == {action.approval for action in waiting}
        for action in waiting:
            shown = found[action.approval or ""]
            assert (shown.status == "escalated", shown.approved_by) == (action.escalated, action.votes)
            assert (shown.digest == action.digest) == (not action.amended)
            assert shown.timeout_at == format_time(action.deadline or self.now())

    def what_is_delegated_is_what_is_delegated(self) -> None:
        seen = self.people["ann"].delegations_sync(active_only=False).delegations
        told = {one.id: one.state for agent in self.reference.children() for one in agent.delegations}
        assert {one.id: one.status for one in seen} == told

    def agrees_in_the_end(self) -> None:
        self.what_waits_is_what_waits()
        self.what_is_delegated_is_what_is_delegated()
        verified = self.al.verify_sync()
        assert (verified.chain_valid, verified.problem) == (True, None)
        assert self.al.verify_state_sync() == []
        seen, cursor = [], None
        while True:
            page = self.people["ann"].audit_sync(cursor=cursor, limit=100)
            seen += [(one.id, one.agent, one.action_type, (one.status, one.claim)) for one in page.events]
            cursor = page.next_cursor
            if cursor is None:
                break
        actions = self.reference.actions
        assert seen[::-1] == [(one.id, one.agent.name, one.type, one.told) for one in actions]
        totals: Counter[tuple[Agent, str, str]] = Counter()
        for action in actions:
            if action.day is not None and action.amount:
                for agent in action.agent.lineage():
                    totals[agent, action.type, action.day] += action.amount  # type: ignore[assignment]
        with self.al._opened.read() as reader:
            held = [Decimal(limit["used"]) for _, limit in reader.scan("limit")]
        assert sorted(total for total in held if total) == sorted(map(Decimal, totals.values()))

    # Choosing

    def draw_action(self, chance: Random, *, of_request: bool) -> Action | None:
        """An action of any state that there is, each state being as likely as another, and of those a recent one."""
        by_state: dict[str, list[Action]] = {}
        for one in self.reference.actions:
            if one.approval is not None or not of_request:
                by_state.setdefault(one.named, []).append(one)
        return chance.choice(by_state[chance.choice(sorted(by_state))][-3:]) if by_state else None

    def draw_child(self, chance: Random) -> Agent | None:
        by_state: dict[str, list[Agent]] = {}
        for one in self.reference.children():
            by_state.setdefault(one.held.state, []).append(one)
        return chance.choice(by_state[chance.choice(sorted(by_state))][-4:]) if by_state else None
