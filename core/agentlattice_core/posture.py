"""The governance posture: how well an organisation is governed, from 0 to 100.

Three components of 25 each:

- `policy_coverage`: the share of action types asked for that a policy is about, times the share of actions that were
  enforced rather than observed. A policy for `*` that allows without a condition or a rule is about nothing.
- `audit_integrity`: 25 for a log that verifies, 15 while entries have waited for a signature for more than a minute, 0
  for a log that is not what was written.
- `approval_response`: the mean over requests for a person: 1 if answered within half of the time given, falling to 0.5
  at the deadline, 0 if nobody answered. What policy decided and what was cancelled does not count.

And how they are counted:

- From the log and the state alone, as of a time of the log, over the 30 days before it. The same log at the same time
  has the same posture.
- What there is nothing to count of is not scored. It is `unmeasured`, with the reason, and the score is what the others
  earned of what they could have.
- A log that is not what was written says nothing: the score is 0, and nothing else is read from it.
- Action types under a tampered policy are not covered. An agent is shown counts, not the action types of others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson

from agentlattice_core import verification
from agentlattice_core.clock import parse_time, time_of_log
from agentlattice_core.engine import Engine
from agentlattice_core.policies import Policies
from agentlattice_core.policy.document import read_part
from agentlattice_core.policy.index import matches_pattern
from agentlattice_core.policy.model import Policy
from agentlattice_core.recorded import first_since
from agentlattice_core.results import PostureComponent, PostureResult, VerifyResult
from agentlattice_core.stores.base import Document, Reader

__all__ = ["WINDOW", "posture_of"]

WINDOW = timedelta(days=30)
"""How far back actions and requests count."""

_MAX = 25.0
_UNSIGNED_MAX = 15.0
_SIGNED_WITHIN = timedelta(minutes=1)
_PROMPT = 0.5
_MOST_NAMED = 50

Measured = PostureComponent | str
"""A component, or why there is none."""


def posture_of(engine: Engine, *, naming: bool) -> PostureResult:
    """The posture of an open log as it is now; with `naming`, it says which action types are not covered."""
    verified = verification.verify(engine)
    signed = engine.notary.last().size
    with engine.read() as reader:
        at = time_of_log(engine.clock, reader.head.at)
        return _posture(engine.policies, reader, at, verified, signed, naming=naming)


def _posture(
    policies: Policies, reader: Reader, at: str, verified: VerifyResult, signed: int, *, naming: bool
) -> PostureResult:
    """The posture at the time `at` of the log, which was `verified` and of which `signed` entries are signed."""
    measured: dict[str, Measured]
    if verified.chain_valid:
        seen = _seen(reader, at)
        measured = {
            "policy_coverage": _policy_coverage(policies, reader, seen, naming),
            "audit_integrity": _audit_integrity(reader, at, verified, signed),
            "approval_response": _approval_response(seen.asked),
        }
    else:
        broken = "the log is not what was written, so nothing is read from it"
        measured = {
            "policy_coverage": broken,
            "audit_integrity": _component(0.0, chain_valid=False, problem=verified.problem),
            "approval_response": broken,
        }
    measured["anomaly_rate"] = "this release detects no anomalies"
    components = {name: one for name, one in measured.items() if isinstance(one, PostureComponent)}
    earned = sum(one.score for one in components.values())
    return PostureResult(
        score=round(100 * earned / (_MAX * len(components)), 1),
        components=components,
        unmeasured={name: one for name, one in measured.items() if isinstance(one, str)},
    )


def _component(share: float, **extra: Any) -> PostureComponent:
    return PostureComponent(round(_MAX * share, 1), _MAX, extra)


# Counting


@dataclass(slots=True)
class _Asked:
    """Requests for a person: how many were answered and how well, in seconds and in points from 0 to 1 each."""

    answered: int = 0
    timed_out: int = 0
    waiting: int = 0
    seconds: float = 0.0
    points: float = 0.0

    def count(self, approval: Document, at: str) -> None:
        status = approval["status"]
        if status == "timed_out" or (status == "pending" and approval["timeout_at"] <= at):
            self.timed_out += 1
        elif status == "pending":
            self.waiting += 1
        elif approval["resolved_by"] is not None and status in ("approved", "denied"):
            asked = parse_time(approval["requested_at"])
            given = (parse_time(approval["timeout_at"]) - asked).total_seconds()
            taken = (parse_time(approval["resolved_at"]) - asked).total_seconds()
            self.answered += 1
            self.seconds += taken
            self.points += min(1.0, 1.0 + _PROMPT - taken / given) if given > 0 else 1.0
        # What policy decided, or whoever asked took back, says nothing of how people respond.


@dataclass(slots=True)
class _Seen:
    """What took place in the window."""

    types: set[str] = field(default_factory=set)
    actions: int = 0
    observed: int = 0
    asked: _Asked = field(default_factory=_Asked)


def _seen(reader: Reader, at: str) -> _Seen:
    seen = _Seen()
    for row in reader.rows(first_since(reader, parse_time(at) - WINDOW)):
        # Most entries can be told by a look at their bytes, which is much cheaper than parsing them.
        if b'"kind":"action"' not in row[1]:
            continue
        entry = orjson.loads(row[1])
        data = entry["data"]
        if entry["kind"] != "action" or data.get("reason") == "OUT_OF_SCOPE":
            continue  # what was beyond a delegation never came before policy
        seen.actions += 1
        seen.observed += data.get("mode") == "observe"
        seen.types.add(data["action_type"])
        if "approval" in data:
            approval = reader.get("approval", data["approval"]["id"])
            if approval is not None:
                seen.asked.count(approval, at)
    return seen


# Components


def _policy_coverage(policies: Policies, reader: Reader, seen: _Seen, naming: bool) -> Measured:
    if not seen.types:
        return f"no agent asked for anything in the last {WINDOW.days} days"
    parts = policies.parts(reader)
    tampered = [stored.pattern for stored in parts.values() if stored.tampered]
    patterns = [
        policy.action
        for policy in _policies(
            {part: one.content for part, one in parts.items() if one.active and not one.tampered}
        )
        if policy.active and not _allows_everything(policy)
    ]
    uncovered = sorted(
        name
        for name in seen.types
        if any(matches_pattern(pattern, name) for pattern in tampered)
        or not any(matches_pattern(pattern, name) for pattern in patterns)
    )
    types = len(seen.types)
    enforced = seen.actions - seen.observed
    extra: dict[str, Any] = {
        "action_types": types,
        "covered": types - len(uncovered),
        "actions": seen.actions,
        "enforced": enforced,
        "tampered": len(tampered),
    }
    if naming:
        extra["uncovered"] = uncovered[:_MOST_NAMED]
    return _component((types - len(uncovered)) / types * enforced / seen.actions, **extra)


def _policies(parts: dict[str, bytes]) -> Iterator[Policy]:
    """The policies among them. A guardrail only tightens what a policy lets run, so it covers nothing."""
    for part, content in parts.items():
        if part.startswith("policy/"):
            policy = read_part(part, content)
            if isinstance(policy, Policy):
                yield policy


def _allows_everything(policy: Policy) -> bool:
    """Whether it says no more of an action than that nothing was said of it."""
    return policy.action == "*" and policy.effect == "allow" and not policy.conditions and not policy.rules


def _audit_integrity(reader: Reader, at: str, verified: VerifyResult, signed: int) -> PostureComponent:
    unsigned = max(0, reader.head.size - signed)
    oldest = reader.row(signed) if unsigned else None
    late = oldest is not None and parse_time(orjson.loads(oldest[1])["at"]) + _SIGNED_WITHIN < parse_time(at)
    return _component(
        _UNSIGNED_MAX / _MAX if late else 1.0,
        chain_valid=True,
        entries=verified.verified_through_row + 1,
        unsigned=unsigned,
        cuts=len(verified.cuts),
    )


def _approval_response(asked: _Asked) -> Measured:
    due = asked.answered + asked.timed_out
    if not due:
        return f"no person had to answer anything in the last {WINDOW.days} days"
    return _component(
        asked.points / due,
        answered=asked.answered,
        timed_out=asked.timed_out,
        waiting=asked.waiting,
        mean_seconds=round(asked.seconds / asked.answered, 1) if asked.answered else None,
    )
