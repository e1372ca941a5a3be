"""The posture is counted from what the log and the state hold, and from nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from agentlattice_core import AgentLattice, PostureResult
from agentlattice_core.policy import PolicyDocument
from agentlattice_core.testing import ManualClock

POLICIES = """
version: 1
policies:
  - {name: Reading, action: read.*, effect: allow}
  - {name: Deploys, action: deploy, effect: require_approval, approval: {timeout: 100m}}
  - {name: Allow All, action: "*", effect: allow}
"""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def al(tmp_path: Path, clock: ManualClock) -> Iterator[AgentLattice]:
    with opened(tmp_path, clock) as client:
        yield client


@pytest.fixture
def operator(al: AgentLattice) -> Iterator[AgentLattice]:
    with al.for_operator("ana", role="admin") as client:
        yield client


def opened(directory: Path, clock: ManualClock, policies: str = POLICIES, **options: Any) -> AgentLattice:
    document = PolicyDocument.parse(policies)
    options = {"agent": "ci", **options}
    return AgentLattice.embedded(directory / "governance.db", policies=document, clock=clock, **options)


def answered(al: AgentLattice, operator: AgentLattice, clock: ManualClock, minutes: int) -> None:
    result = al.execute_sync("deploy")
    assert result.approval_id is not None
    clock.advance(minutes=minutes)
    operator.approve_action_sync(result.approval_id)


def scores(found: PostureResult) -> dict[str, float]:
    return {name: one.score for name, one in found.components.items()}


def test_what_there_is_nothing_to_count_of_is_said_and_not_scored(al: AgentLattice) -> None:
    found = al.posture_sync()
    assert scores(found) == {"audit_integrity": 25.0}
    assert found.score == 100.0
    assert set(found.unmeasured) == {"policy_coverage", "approval_response", "anomaly_rate"}


def test_coverage_is_of_action_types_that_a_policy_is_about(al: AgentLattice, operator: AgentLattice) -> None:
    """Allowing everything is about nothing; how often a type was asked for does not matter."""
    for action_type in ("read.a", "read.b", "read.b", "other", "deploy"):
        al.execute_sync(action_type)
    found = al.posture_sync()
    coverage = found.components["policy_coverage"]
    assert (coverage.score, coverage.max) == (18.8, 25.0)
    assert coverage.extra == {
        "action_types": 4,
        "covered": 3,
        "actions": 5,
        "enforced": 5,
        "tampered": 0,
    }
    assert operator.posture_sync().components["policy_coverage"].extra["uncovered"] == ["other"]
    assert found.score == round(100 * (18.8 + 25) / 50, 1)


@pytest.mark.parametrize(
    ("rest", "covered"),
    [
        ("{name: Rest, action: '*', effect: deny}", 2),
        ("{name: Rest, action: '*', effect: require_approval}", 2),
        (
            "{name: Rest, action: '*', effect: allow, conditions: [{field: a, operator: exists, value: true}]}",
            2,
        ),
        ("{name: Rest, action: '*', effect: allow}", 1),
        ("{name: Rest, action: rest.*, effect: deny, active: false}", 1),
    ],
)
def test_a_policy_for_everything_counts_if_it_says_something(
    tmp_path: Path, clock: ManualClock, rest: str, covered: int
) -> None:
    policies = (
        f"version: 1\npolicies:\n  - {{name: Reading, action: read, effect: allow}}\n  - {rest}\n"
        "guardrails:\n  - {name: Guard, action: '*', effect: deny, "
        "conditions: [{field: b, operator: exists, value: true}]}\n"
    )
    with opened(tmp_path, clock, policies) as al:
        al.execute_sync("read")
        al.execute_sync("rest.x")
        assert al.posture_sync().components["policy_coverage"].extra["covered"] == covered


def test_what_was_only_observed_was_not_governed(
    tmp_path: Path, clock: ManualClock, al: AgentLattice
) -> None:
    al.execute_sync("read.a")
    with opened(tmp_path, clock, agent="watched", mode="observe") as watched:
        for _ in range(3):
            watched.execute_sync("read.a")
    coverage = al.posture_sync().components["policy_coverage"]
    assert (coverage.score, coverage.extra["enforced"], coverage.extra["actions"]) == (6.2, 1, 4)


def test_what_was_beyond_a_delegation_says_nothing_of_policy(al: AgentLattice) -> None:
    with al.delegate_sync("reader", capabilities=["read.a"], ttl=60) as reader:
        reader.execute_sync("read.a")
        reader.execute_sync("made.up")
    assert al.posture_sync().components["policy_coverage"].extra["action_types"] == 1


@pytest.mark.parametrize(
    ("minutes", "points"),
    [(0, 1.0), (50, 1.0), (60, 0.9), (99, 0.51)],
    ids=["at once", "half", "later", "late"],
)
def test_a_request_counts_by_how_soon_it_was_answered(
    al: AgentLattice, operator: AgentLattice, clock: ManualClock, minutes: int, points: float
) -> None:
    """Within half of its 100 minutes fully, and half at the deadline."""
    answered(al, operator, clock, minutes)
    response = al.posture_sync().components["approval_response"]
    assert response.score == round(25 * points, 1)
    assert response.extra == {"answered": 1, "timed_out": 0, "waiting": 0, "mean_seconds": 60.0 * minutes}


def test_a_request_that_nobody_answered_counts_as_nothing(
    al: AgentLattice, operator: AgentLattice, clock: ManualClock
) -> None:
    """From its deadline on, and not while it waits; a denial is an answer, and what was taken back is none."""
    answered(al, operator, clock, 0)
    denied = al.execute_sync("deploy").approval_id
    operator.deny_action_sync(denied or "", "no")
    al.cancel_sync(al.execute_sync("deploy").audit_event_id)
    al.execute_sync("deploy")
    response = al.posture_sync().components["approval_response"]
    assert (response.score, response.extra["answered"], response.extra["waiting"]) == (25.0, 2, 1)
    clock.advance(minutes=100)
    response = al.posture_sync().components["approval_response"]
    assert (response.score, response.extra["timed_out"], response.extra["waiting"]) == (16.7, 1, 0)


def test_what_policy_decided_is_no_answer_of_a_person(
    al: AgentLattice, operator: AgentLattice, tmp_path: Path
) -> None:
    al.execute_sync("deploy")
    operator.apply_policies_sync(
        PolicyDocument.parse(POLICIES.replace("require_approval, approval: {timeout: 100m}", "allow"))
    )
    assert not operator.list_pending_approvals_sync()
    assert "approval_response" in al.posture_sync().unmeasured


def test_only_the_last_month_counts(al: AgentLattice, operator: AgentLattice, clock: ManualClock) -> None:
    al.execute_sync("other")
    answered(al, operator, clock, 99)
    clock.advance(days=31)
    al.checkpoint_sync()
    assert set(al.posture_sync().components) == {"audit_integrity"}
    al.execute_sync("read.a")
    al.checkpoint_sync()
    assert scores(al.posture_sync()) == {"policy_coverage": 25.0, "audit_integrity": 25.0}


def test_entries_that_wait_long_for_a_signature_cost(
    al: AgentLattice, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds the newest signed checkpoint can prove nothing of them."""
    al.checkpoint_sync()
    monkeypatch.setattr(al._opened.notary, "sign", lambda: None)  # as if the signer's disk were away
    al.execute_sync("read.a")
    assert scores(al.posture_sync())["audit_integrity"] == 25.0
    clock.advance(seconds=61)
    integrity = al.posture_sync().components["audit_integrity"]
    assert (integrity.score, integrity.extra["unsigned"]) == (15.0, 1)


def test_a_log_that_is_not_what_was_written_scores_nothing(tmp_path: Path, clock: ManualClock) -> None:
    """Nor is anything else counted in it."""
    with opened(tmp_path, clock) as al:
        al.execute_sync("read.a")
        al.checkpoint_sync()
    connection = apsw.Connection(os.fspath(tmp_path / "governance.db"))
    connection.execute(
        "UPDATE entries SET body = CAST(replace(CAST(body AS TEXT), 'executed', 'requests') AS BLOB) "
        "WHERE CAST(body AS TEXT) LIKE '%read.a%'"
    )
    assert connection.changes() == 1
    connection.close()
    with AgentLattice.embedded(tmp_path / "governance.db", operator="ana", clock=clock) as operator:
        found = operator.posture_sync()
    assert (found.score, scores(found)) == (0.0, {"audit_integrity": 0.0})
    assert found.components["audit_integrity"].extra["problem"]
    assert "policy_coverage" in found.unmeasured


def test_a_tampered_policy_covers_nothing(tmp_path: Path, clock: ManualClock) -> None:
    """Its state was edited: the log verifies, and what the policy governs is denied."""
    with opened(tmp_path, clock) as al:
        al.execute_sync("read.a")
        al.execute_sync("deploy")
    connection = apsw.Connection(os.fspath(tmp_path / "governance.db"))
    connection.execute(
        "UPDATE state SET value = CAST(json_set(CAST(value AS TEXT), '$.version', 7) AS BLOB) "
        "WHERE kind = 'policy' AND CAST(value AS TEXT) LIKE '%read.*%'"
    )
    assert connection.changes() == 1
    connection.close()
    with AgentLattice.embedded(tmp_path / "governance.db", operator="ana", clock=clock) as operator:
        coverage = operator.posture_sync().components["policy_coverage"]
    assert coverage.extra["tampered"] >= 1
    assert "read.a" in coverage.extra["uncovered"]


async def test_the_same_log_at_the_same_time_has_the_same_posture(
    al: AgentLattice, operator: AgentLattice, clock: ManualClock
) -> None:
    """Asked by an agent or an operator, waiting or not; looking records nothing."""
    al.execute_sync("other")
    answered(al, operator, clock, 70)
    al.checkpoint_sync()
    first = al.posture_sync()
    assert first == al.posture_sync() == await al.posture()
    assert scores(first) == scores(await operator.posture())
