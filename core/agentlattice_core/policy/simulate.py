"""What a candidate policy set would have said of actions that are already recorded.

- Pure: recorded actions come in as an iterable in the order of their times, flips go out. Nothing is stored.
- Day totals are kept as the replay goes, under the candidate's own caps. What the candidate admits, or would
  have asked a person about, is charged, as if the person had said yes.
- A replay that begins in the middle of a day would find its caps empty. So what is recorded within `LEAD`
  before it is replayed too, and only charged.
- Why the candidate says what it says is found only for the examples that are shown: they are decided on twice.
- Memory is bounded by the limit keys that are alive, not by the length of the log: totals of days that have
  ended everywhere on earth are dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from agentlattice_core.actions import Action
from agentlattice_core.policy.decision import Decision, Facts, Outcome
from agentlattice_core.policy.evaluate import PolicySet
from agentlattice_core.policy.rules import exact_sum
from agentlattice_core.principals import AgentFacts

__all__ = [
    "LEAD",
    "DayTotals",
    "Flip",
    "FlipKind",
    "RecordedAction",
    "SimulationReport",
    "outcome_of_status",
    "replay",
    "simulate",
]

LEAD = timedelta(hours=26)
"""How far back a day can reach whose caps count now: a day, and an hour or two where clocks are put back."""

_OUTCOMES: dict[str, Outcome] = {
    "executed": "allow",
    "requested": "require_approval",
    "timed_out": "require_approval",
    "denied": "deny",
    "policy_not_found": "not_found",
}
_STRICTNESS: dict[Outcome, int] = {"allow": 0, "require_approval": 1, "deny": 2, "not_found": 2}


def outcome_of_status(status: str) -> Outcome:
    """The outcome behind a recorded status. Raises ValueError for one that there is not."""
    try:
        return _OUTCOMES[status]
    except KeyError:
        raise ValueError(f"`{status}` is not the status of an action") from None


@dataclass(slots=True)
class RecordedAction:
    """An action as the log has it: what was asked by whom and when, what policy said, and which policy. `observed` that
    it was free to run whatever policy said.

    Nobody changes one. It is made for every entry of a long log, so it is not frozen, which would take longer.
    """

    action: Action
    agent: AgentFacts
    at: datetime
    outcome: Outcome
    policy: str | None = None
    observed: bool = False

    @property
    def ran(self) -> bool:
        """Whether policy did not keep it from running: it allowed it, asked a person, or was only observing."""
        return self.observed or _STRICTNESS[self.outcome] < 2


class FlipKind(NamedTuple):
    """What flips have in common: the action type, what was and would be said, and the policy that would say
    it.
    """

    action_type: str
    was: Outcome
    now: Outcome
    policy: str | None

    @property
    def stricter(self) -> bool:
        """Whether the candidate would let less through than what was."""
        return _STRICTNESS[self.now] > _STRICTNESS[self.was]

    @property
    def denies(self) -> bool:
        """Whether the candidate would deny what was not denied."""
        return _STRICTNESS[self.now] > 1 >= _STRICTNESS[self.was]


@dataclass(frozen=True, slots=True)
class Flip:
    """A recorded action of which the candidate says something else."""

    recorded: RecordedAction
    decision: Decision

    @property
    def kind(self) -> FlipKind:
        """What it has in common with others."""
        return _kind(self.recorded, self.decision)


def _kind(recorded: RecordedAction, decision: Decision) -> FlipKind:
    policy = decision.policy.name if decision.policy is not None else None
    return FlipKind(recorded.action.action_type, recorded.outcome, decision.outcome, policy)


@dataclass(slots=True)
class SimulationReport:
    """All flips counted by kind, with the first few of each kind as examples."""

    total: int = 0
    flips: Counter[FlipKind] = field(default_factory=Counter)
    examples: dict[FlipKind, list[Flip]] = field(default_factory=dict)

    @property
    def stricter(self) -> int:
        """How many actions the candidate would newly stop or ask a person about."""
        return sum(count for kind, count in self.flips.items() if kind.stricter)

    @property
    def unchanged(self) -> int:
        """How many actions would be answered as they were."""
        return self.total - self.flips.total()

    @property
    def kinds(self) -> list[FlipKind]:
        """The kinds of flips, what would newly be denied first, then what a person would newly be asked about."""
        return sorted(
            self.flips,
            key=lambda kind: (
                not kind.denies,
                not kind.stricter,
                -self.flips[kind],
                kind.action_type,
                kind.was,
            ),
        )

    @property
    def new_denials(self) -> int:
        """How many actions the candidate would newly deny."""
        return sum(count for kind, count in self.flips.items() if kind.denies)

    def as_json(self) -> dict[str, Any]:
        """It as JSON."""
        return {
            "actions": self.total,
            "unchanged": self.unchanged,
            "stricter": self.stricter,
            "new_denials": self.new_denials,
            "flips": [
                {
                    "action_type": kind.action_type,
                    "was": kind.was,
                    "now": kind.now,
                    "policy": kind.policy,
                    "count": self.flips[kind],
                    "examples": [
                        {
                            "at": flip.recorded.at.isoformat(),
                            "agent": flip.recorded.agent.name,
                            "reason": flip.decision.denial_reason,
                            "message": flip.decision.message,
                        }
                        for flip in self.examples[kind]
                    ],
                }
                for kind in self.kinds
            ],
        }


_NOTHING = Decimal(0)


class DayTotals:
    """What is charged so far, by limit key, for days that have not ended everywhere."""

    def __init__(self) -> None:
        self._totals: dict[str, Decimal] = {}
        self._keys_by_date: dict[str, list[str]] = {}
        self._tomorrow = datetime.min.replace(tzinfo=UTC)

    def read(self, key: str) -> Decimal:
        """What is charged to `key`."""
        return self._totals.get(key, _NOTHING)

    def charge(self, decision: Decision) -> None:
        """Add what the decision charges."""
        for charge in decision.charges:
            key, total = charge.key, self._totals.get(charge.key)
            if total is None:
                self._keys_by_date.setdefault(charge.scope["date"], []).append(key)
                self._totals[key] = charge.amount
            else:
                self._totals[key] = exact_sum(total, charge.amount)

    def forget_before(self, now: datetime) -> None:
        """Drop the totals of days that have ended everywhere by `now`."""
        if now < self._tomorrow:
            return
        self._tomorrow = datetime.combine(now.astimezone(UTC), time.min, UTC) + timedelta(days=1)
        # West of UTC it can still be the day before; never two days before.
        oldest = self._tomorrow.date() - timedelta(days=2)
        for day in [day for day in self._keys_by_date if day < oldest.isoformat()]:
            for key in self._keys_by_date.pop(day):
                del self._totals[key]


def replay(
    records: Iterable[RecordedAction],
    candidate: PolicySet,
    registries: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
) -> Iterator[tuple[RecordedAction, Decision]]:
    """Each recorded action with what the candidate says of it and why, in order."""
    for recorded, _, decision in _decided(records, candidate, registries, findings=True):
        yield recorded, decision


def simulate(
    records: Iterable[RecordedAction],
    candidate: PolicySet,
    registries: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    *,
    examples: int = 3,
    since: datetime | None = None,
) -> SimulationReport:
    """Replay `records` and count what flips, keeping up to `examples` flips of each kind.

    With `since` (aware), records before it are not counted; they are charged to caps like the others.
    """
    report = SimulationReport()
    for recorded, facts, decision in _decided(records, candidate, registries, findings=False):
        if since is not None and recorded.at < since:
            continue
        report.total += 1
        if decision.outcome == recorded.outcome:
            continue
        kind = _kind(recorded, decision)
        report.flips[kind] += 1
        kept = report.examples.get(kind)
        if kept is None:
            kept = report.examples[kind] = []
        if len(kept) < examples:
            kept.append(Flip(recorded, candidate.decide(facts)))
    return report


def _decided(
    records: Iterable[RecordedAction],
    candidate: PolicySet,
    registries: Mapping[str, Mapping[str, Mapping[str, Any]]] | None,
    *,
    findings: bool,
) -> Iterator[tuple[RecordedAction, Facts, Decision]]:
    """Each action with the decision and the facts it was made from, which hold until the next one is asked for."""
    totals = DayTotals()
    stored = registries or {}
    for recorded in records:
        totals.forget_before(recorded.at)
        facts = Facts(recorded.action, recorded.agent, recorded.at, totals.read, stored)
        decision = candidate.decide(facts, findings=findings)
        yield recorded, facts, decision
        totals.charge(decision)
